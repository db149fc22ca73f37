"""Settings of the C library's allocator."""

import ctypes
import sys
from functools import cache

# mallopt(3): parameters of glibc's malloc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 2**30  # bytes


@cache
def keep_freed_memory() -> None:
    """Let the process keep freed blocks of up to 1 GiB instead of returning them to the system.

    A training step frees the tensors that the next one allocates. By default glibc unmaps blocks
    from 128 KiB to 32 MiB on and trims the end of its heap, so each step has the system map and
    clear their pages again: about 1,500 page faults a step at nano. Other C libraries are left
    as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_TRIM_THRESHOLD, _LARGE)
        mallopt(_MMAP_THRESHOLD, _LARGE)
