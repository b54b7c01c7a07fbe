"""Keep freed memory in the process: training frees and asks for the same large blocks at every step."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_BLOCK = 32 * 2**20  # bytes; the largest value that glibc takes for M_MMAP_THRESHOLD on 64 bits
_SPARE = 2**30  # bytes; free memory above this goes back to the system


def keep_freed() -> None:
    """Tell glibc not to return blocks to the system at each free: it would clear every page of them anew.

    A convolution's map is above malloc's usual limit of 128 KiB. Without glibc (macOS, Windows, musl) nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BLOCK)
        mallopt(_TRIM_THRESHOLD, _SPARE)
