"""The user's cache folder: prepared images and compiled functions, which are made again where they are missing."""

import os
from pathlib import Path


def folder() -> Path:
    """`boneage_jax` in the folder that the system has for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "boneage_jax").expanduser()
