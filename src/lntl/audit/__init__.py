"""An audit of data before training."""

from lntl.audit.check import Audit, audit

__all__ = ["Audit", "audit"]
