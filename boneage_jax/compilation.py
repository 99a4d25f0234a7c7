"""The persistent compilation cache: keeps compiled functions on disk, so that later starts do not compile again."""

import os
from pathlib import Path

import jax
from absl import logging

from boneage_jax import cache
from boneage_jax.errors import BoneAgeError

OFF = "off"


def cache_folder(setting: str) -> Path | None:
    """Resolves the setting `compilation_cache`: "" is the default folder, "off" gives None, all else is a folder."""
    if setting == OFF:
        return None
    return Path(os.path.expanduser(setting)) if setting else cache.folder() / "compiled"


def use_cache(folder: Path | None) -> None:
    """Lets jax load functions that earlier processes compiled, and store those that this one compiles.

    Call it before the first compilation. jax's own settings take precedence: a folder in JAX_COMPILATION_CACHE_DIR, or
    a cache disabled by JAX_ENABLE_COMPILATION_CACHE.

    Args:
        folder: created if missing, accessible to this user only. If it cannot be created or written, or if others can
            write to it, a warning is logged and nothing is cached; everything works without it. None for no cache.
    """
    if folder is None or _setting("jax_compilation_cache_dir") or not _setting("jax_enable_compilation_cache"):
        return
    try:
        cache.make_private(folder)
        cache.check_own(folder)
    except OSError as error:
        logging.warning("Compiled functions are not cached: %s cannot be used (%s).", folder, error.strerror)
        return
    except BoneAgeError as error:
        logging.warning("Compiled functions are not cached: %s.", error)
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        logging.warning("Compiled functions are not cached: %s cannot be written.", folder)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default, jax caches only what took a second to compile; the many small programs of a start take seconds too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _setting(name: str) -> str | bool | None:
    return getattr(jax.config, name)
