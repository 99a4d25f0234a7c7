"""Files that are either whole or absent: written beside their place, then renamed into it."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from boneage_jax.errors import BoneAgeError


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file in the folder of `path`, then renames it to `path`.

    A reader, or a run that was killed half way, sees the old file or the new one, never a part.

    Raises:
        BoneAgeError: if the system refuses (disk full, no permission); the previous file is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise BoneAgeError(f"cannot write {path}: {reason}; free or choose another place and run again") from error
    finally:
        with contextlib.suppress(OSError):  # such as a folder that is a file, which has been told above
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_whole` for a text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """`write_whole` for bytes."""
    write_whole(path, lambda temporary: _fill(temporary, content))


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)
