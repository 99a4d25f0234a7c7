"""How many processor cores this process may use."""

import os


def usable() -> int:
    """Cores that the system grants this process (a container or a job may have fewer than the machine)."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
