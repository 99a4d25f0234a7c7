"""Finds files below a folder and inside its zip archives (nested ones too), without unpacking them."""

import dataclasses
import pathlib
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator

from boneage_jax.errors import BoneAgeError

MAX_FILE_BYTES = 512 * 2**20
"""A label table or an image that claims to be larger inside an archive is refused as a decompression bomb."""

MAX_ARCHIVE_BYTES = 64 * 2**30
"""The same for an archive inside an archive; the whole official training archive has 9 GiB."""

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded; the largest hand radiographs have about 10 million pixels."""

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""What a damaged or encrypted entry of an archive raises."""


@dataclasses.dataclass(frozen=True)
class File:
    """A file on disk or in an archive.

    Attributes:
      name: path below the data folder, through archives: `Set.zip/part-1.zip/1386.png`.
      size: bytes.
      depth: number of archives around it, 0 for a file on disk.
      original_size: width and height of the radiograph of which this is a resized copy, where a table gives them.
    """

    name: str
    size: int
    depth: int
    _place: tuple[zipfile.ZipFile, zipfile.ZipInfo] | pathlib.Path = dataclasses.field(repr=False, compare=False)
    original_size: tuple[int, int] | None = None

    def read(self) -> bytes:
        """Returns the contents; safe to call from several threads at once."""
        if isinstance(self._place, pathlib.Path):
            try:
                return self._place.read_bytes()
            except OSError as error:
                raise BoneAgeError(f"{self._place} cannot be read: {error.strerror}.") from None
        archive, info = self._place
        _refuse_bomb(self.name, info.file_size, MAX_FILE_BYTES)
        try:
            return archive.read(info)
        except _UNREADABLE as error:
            raise BoneAgeError(
                f"{self.name} cannot be read from its archive ({error}); download the archive again."
            ) from None

    def head(self, count: int) -> bytes:
        """Returns the first bytes, fewer if there are not so many or they cannot be read."""
        try:
            if isinstance(self._place, pathlib.Path):
                with self._place.open("rb") as stream:
                    return stream.read(count)
            archive, info = self._place
            with archive.open(info) as stream:
                return stream.read(count)
        except _UNREADABLE:
            return b""


def list_files(directory: pathlib.Path) -> list[File]:
    """All files below `directory` and in its archives, sorted by name; hidden files are left out.

    Raises:
      BoneAgeError: a damaged archive, or one whose entries have absolute paths or leave the folder.
    """
    found: list[File] = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if not path.is_file() or _is_shadow(name):
            continue
        if path.suffix.lower() == ".zip":
            found += _list_archive(_open(path, str(path)), name, depth=1)
        else:
            found.append(File(name, path.stat().st_size, 0, path))
    return sorted(found, key=lambda file: file.name)


def refuse_huge(width: int, height: int, name: str) -> None:
    """Raises BoneAgeError for an image that would fill the memory."""
    if width * height > MAX_PIXELS:
        raise BoneAgeError(
            f"{name} is refused as a decompression bomb: it has {width} x {height} pixels, "
            f"more than {MAX_PIXELS // 1_000_000} million; hand radiographs have about 4 million."
        )


def _list_archive(archive: zipfile.ZipFile, name: str, depth: int) -> Iterator[File]:
    for info in archive.infolist():
        entry = info.filename.replace("\\", "/")
        if entry.startswith("/") or ".." in entry.split("/") or ":" in entry.split("/")[0]:
            raise BoneAgeError(
                f"{name} holds the entry {info.filename!r}, which leaves the archive's folder; "
                "it is refused: download the archive from its official source."
            )
        if info.is_dir() or _is_shadow(entry):
            continue
        full = f"{name}/{entry}"
        if entry.lower().endswith(".zip"):
            yield from _list_archive(_open_nested(archive, info, full), full, depth + 1)
        else:
            yield File(full, info.file_size, depth, (archive, info))


def _open(source, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise BoneAgeError(f"{name} is not an intact zip archive ({error}); download it again.") from None


def _open_nested(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> zipfile.ZipFile:
    """Copies an inner archive to an unnamed temporary file: seeking inside a stream starts over."""
    _refuse_bomb(name, info.file_size, MAX_ARCHIVE_BYTES)
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the archive that reads from it)
    try:
        with archive.open(info) as inner:
            shutil.copyfileobj(inner, copy, 2**20)
    except _UNREADABLE as error:
        raise BoneAgeError(f"{name} cannot be read from its archive ({error}); download it again.") from None
    nested = _open(copy, name)
    weakref.finalize(nested, copy.close)
    return nested


def _refuse_bomb(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise BoneAgeError(
            f"{name} is refused as a decompression bomb: {size:,} bytes once unpacked, more than {limit:,}."
        )


def _is_shadow(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
