"""The report of one run or several: a page for people, report.json for programs, report.md for pull requests."""

from lntl.reporting.report.page import write_report

__all__ = ["write_report"]
