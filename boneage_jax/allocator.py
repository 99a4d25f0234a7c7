"""The C library's memory allocator, set for programs that take and free hundreds of megabytes at every step.

XLA on the CPU takes its scratch memory anew for each step. By default glibc gives it back to the kernel at once, and
each step pays for mapping and clearing it again, in pages of 4 KiB: half of the time of a small network's step.
"""

import os
import sys

TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000"


def keep_memory() -> None:
    """Starts this program again with huge pages and without giving memory back; call it first in `main`.

    Does nothing where there is no glibc, or when GLIBC_TUNABLES is set already (empty, to switch this off): glibc
    reads it before Python starts.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    sys.stdout.flush()
    os.execv(sys.executable, sys.orig_argv)
