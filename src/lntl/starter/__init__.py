"""A starter project: a configuration, a table with drawn pictures, a Makefile and a README, all of which run."""

from lntl.starter.project import begin

__all__ = ["begin"]
