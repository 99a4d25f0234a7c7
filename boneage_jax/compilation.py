"""Compiled functions are kept on the disk, so that the second start of a program does not compile again."""

import os
from pathlib import Path

import jax
from absl import logging

from boneage_jax import cache
from boneage_jax.errors import BoneAgeError

OFF = "off"


def cache_folder(setting: str) -> Path | None:
    """What the configuration's `compilation_cache` says: "" for the default place, "off" for None, or a folder."""
    if setting == OFF:
        return None
    return Path(setting).expanduser() if setting else cache.folder() / "compiled"


def use_cache(folder: Path | None) -> None:
    """Lets jax find what an earlier process has compiled, and keep what this one compiles.

    Call it before the first compilation. A folder that the user has named to jax itself (JAX_COMPILATION_CACHE_DIR)
    stays, and so does a cache that is switched off there (JAX_ENABLE_COMPILATION_CACHE).

    Args:
        folder: made if it is missing, for this user alone. Where it cannot be made or written, or where others can
            write to it, a warning says so and nothing is kept: everything works without. None for no cache.
    """
    if folder is None or _setting("jax_compilation_cache_dir") or not _setting("jax_enable_compilation_cache"):
        return
    try:
        cache.make_private(folder)
        cache.check_own(folder)
    except OSError as error:
        logging.warning("Nothing compiled is kept: %s cannot be used (%s).", folder, error.strerror)
        return
    except BoneAgeError as error:
        logging.warning("Nothing compiled is kept: %s.", error)
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        logging.warning("Nothing compiled is kept: %s cannot be written.", folder)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default jax keeps only what took a second; the many small programs of a start add up to seconds too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _setting(name: str) -> str | bool | None:
    return getattr(jax.config, name)
