"""What is left of the bias in trained features."""

from lntl.probing.checkpoint import complete, probe_checkpoint

__all__ = ["complete", "probe_checkpoint"]
