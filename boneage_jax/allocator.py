"""Tunes glibc's memory allocator for programs that allocate and free hundreds of megabytes at every step.

XLA on the CPU allocates its scratch memory anew for each step. By default, glibc returns it to the kernel at once, and
each step has to map and clear it again, in pages of 4 KiB: half of the time of a small network's step.
"""

import os
import sys

TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000"


def keep_memory() -> None:
    """Restarts this program with huge pages and without returning memory to the kernel; call it first in `main`.

    The restart is needed because glibc reads GLIBC_TUNABLES before Python starts. Does nothing on other systems than
    Linux, or if GLIBC_TUNABLES is already set (set it to the empty string to switch this off).
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    sys.stdout.flush()
    os.execv(sys.executable, sys.orig_argv)
