"""Keep freed memory in the process: training allocates and frees the same large blocks at every step."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_BLOCK = 32 * 2**20  # bytes; the largest M_MMAP_THRESHOLD that glibc accepts on 64 bits
_SPARE = 2**30  # bytes; free memory above this returns to the system


def keep_freed_memory() -> None:
    """Set glibc's malloc not to return large blocks to the system, which would zero their pages at each allocation.

    A convolution's output is above malloc's default limit of 128 KiB. Without glibc (macOS, Windows, musl) nothing
    happens. It changes the whole process, so only the command line calls it.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BLOCK)
        mallopt(_TRIM_THRESHOLD, _SPARE)
