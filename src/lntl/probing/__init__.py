"""Probes that measure how much of the bias trained features still hold, and the other parts of a run's report."""

from lntl.probing.checkpoint import complete, probe_checkpoint

__all__ = ["complete", "probe_checkpoint"]
