"""The user's cache folder: prepared images and compiled functions, which are recreated if missing."""

import os
import stat
from pathlib import Path

import platformdirs

from boneage_jax.errors import BoneAgeError


def folder() -> Path:
    """`boneage_jax` in the system's cache folder for the user ($XDG_CACHE_HOME or ~/.cache on Linux)."""
    return platformdirs.user_cache_path("boneage_jax", appauthor=False)


def make_private(path: Path) -> None:
    """Creates a folder and its missing parents, accessible to this user only (mode 0700).

    Prepared radiographs are patients' images. An existing folder keeps its permissions.

    Raises:
        OSError: the system refuses.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)


def check_own(path: Path) -> None:
    """Rejects a folder of compiled code that another user could have written: its contents run as this user.

    Raises:
        BoneAgeError: the folder or a file in it belongs to another user, can be written by others, or is a link.
    """
    if not hasattr(os, "geteuid"):  # Windows: the user's cache folder is closed to others
        return
    status = path.stat()
    _check_owner(path, status)
    if status.st_mode & 0o022:
        raise _refusal(path, f"can be written by other users ({stat.filemode(status.st_mode)})")
    others_can_enter = status.st_mode & 0o011
    for file in sorted(path.iterdir()):
        try:
            status = file.lstat()
        except FileNotFoundError:  # another process has just removed it
            continue
        _check_owner(file, status)
        if stat.S_ISLNK(status.st_mode):
            raise _refusal(file, "is a link")
        if others_can_enter and status.st_mode & 0o022:
            raise _refusal(file, f"can be written by other users ({stat.filemode(status.st_mode)})")


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise _refusal(path, f"belongs to another user (uid {status.st_uid})")


def _refusal(path: Path, reason: str) -> BoneAgeError:
    return BoneAgeError(
        f"{path} {reason}, and code in it would run under your account; delete it, or correct its owner and permissions"
    )
