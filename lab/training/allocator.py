"""Settings of the C library's allocator."""

import ctypes
import sys
from functools import cache

# mallopt(3): parameters of glibc's malloc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 2**30  # bytes
_LARGEST_BEFORE_2_35 = 2**25  # bytes; an older glibc takes no larger mmap threshold


@cache
def keep_freed_memory() -> None:
    """Let the process keep freed blocks of up to 1 GiB instead of returning them to the system.

    A training step frees the tensors that the next one allocates. By default glibc unmaps blocks
    from 128 KiB to 32 MiB on and trims the end of its heap, so each step has the system map and
    clear their pages again: about 1,500 page faults a step at nano. Before version 2.35 glibc
    keeps blocks of up to 32 MiB. Other C libraries are left as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        # Setting either parameter ends the automatic adjustment of both: an mmap threshold that is
        # refused would stay at 128 KiB.
        if not mallopt(_MMAP_THRESHOLD, _LARGE):
            mallopt(_MMAP_THRESHOLD, _LARGEST_BEFORE_2_35)
        mallopt(_TRIM_THRESHOLD, _LARGE)
