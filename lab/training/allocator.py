"""Settings of the C library's allocator."""

import ctypes
import sys
from functools import cache

# mallopt(3): parameters of glibc's malloc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 2**30  # bytes
_LARGEST_BEFORE_2_35 = 2**25  # bytes; glibc before 2.35 rejects a larger mmap threshold


@cache
def keep_freed_memory() -> None:
    """Make malloc keep freed blocks of up to 1 GiB instead of returning them to the system.

    Each training step frees tensors of the sizes that the next step allocates. By default glibc
    unmaps freed blocks above a threshold, which it adjusts between 128 KiB and 32 MiB, and trims
    the end of the heap, so the kernel maps and clears these pages again in every step: about
    1,500 page faults per step at size nano. glibc before 2.35 accepts an mmap threshold of at
    most 32 MiB. Other C libraries are not changed.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        # Setting either parameter stops the automatic adjustment of both, so a rejected mmap
        # threshold would remain at 128 KiB.
        if not mallopt(_MMAP_THRESHOLD, _LARGE):
            mallopt(_MMAP_THRESHOLD, _LARGEST_BEFORE_2_35)
        mallopt(_TRIM_THRESHOLD, _LARGE)
