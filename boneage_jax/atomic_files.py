"""Atomic file writes, by a temporary file that is renamed into place; and errors from full disks."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from boneage_jax.errors import BoneAgeError


def write_whole(path: Path, write: Callable[[Path], None], move: Callable[[Path, Path], None] = os.replace) -> None:
    """Lets `write` fill a temporary file in the folder of `path`, then moves it to `path`.

    Readers see the old file or the new one, never a partial one, even if the run is killed half way or several threads
    or processes write the same file. A symbolic link stays, and the file that it refers to is replaced.

    Raises:
        BoneAgeError: if the system refuses (disk full, no permission), or `path` is a device or a pipe, which would be
            replaced; the previous file is left unchanged.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise BoneAgeError(f"{path} is a device or a pipe, not a file; choose another path")
        target.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        move(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise BoneAgeError(
            f"cannot write {path}: {reason}; correct this or choose another path, and run again"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # such as a parent folder that is a file, already reported above
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turns system errors while a run writes into its folder (disk full, no permission) into one clear sentence.

    Raises:
        BoneAgeError: the message names the folder, the reason and the free space.
    """
    try:
        yield
    except BoneAgeError:
        raise
    except Exception as error:
        full = is_disk_full(error)
        if not full and not isinstance(error, OSError):
            raise
        parent = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(parent).free / 2**20
        reason = "the disk is full" if full else (str(error).splitlines() or [type(error).__name__])[0]
        raise BoneAgeError(
            f"cannot write to {folder}: {reason} ({free:.0f} MiB free); earlier files are intact: free some space "
            "and run the same command again"
        ) from error


def is_disk_full(error: Exception) -> bool:
    """Whether a full disk is the reason; C++ libraries report it only in the text of the message."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


def write_text(path: Path, text: str) -> None:
    """`write_whole` for a text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """`write_whole` for bytes."""
    write_whole(path, lambda temporary: _fill(temporary, content))


def write_new(path: Path, content: bytes) -> None:
    """`write_whole` for the bytes of a file that must not exist yet.

    Raises:
        BoneAgeError: the file exists, even if another program created it in the meantime.
    """
    refuse_existing(path)
    write_whole(path, lambda temporary: _fill(temporary, content), _move_new)


def refuse_existing(path: Path) -> None:
    """Raises BoneAgeError if there is something at `path`."""
    if os.path.lexists(path):
        raise _existing(path)


def _move_new(temporary: Path, path: Path) -> None:
    """Moves the file by a hard link, which never replaces a file; by renaming where the file system has no links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _existing(path) from None
    except OSError:
        refuse_existing(path)
        os.replace(temporary, path)


def _existing(path: Path) -> BoneAgeError:
    return BoneAgeError(f"{path} already exists and is not overwritten; move it or choose another folder")


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)
