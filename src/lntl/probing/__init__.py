"""Probes that measure how much bias trained features still contain, and the other parts of the report of a run."""

from lntl.probing.checkpoint import complete, probe_checkpoint

__all__ = ["complete", "probe_checkpoint"]
