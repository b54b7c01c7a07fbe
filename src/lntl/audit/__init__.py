"""Audit the data of a configuration before training."""

from lntl.audit.check import Audit, audit

__all__ = ["Audit", "audit"]
