"""What is left of the bias in trained features."""

from lntl.probing.checkpoint import probe_checkpoint
from lntl.probing.report_parts import complete

__all__ = ["complete", "probe_checkpoint"]
