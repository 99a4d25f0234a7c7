"""Reads zip archives, and archives inside them, without unpacking them into the file system."""

import dataclasses
import functools
import pathlib
import shutil
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from boneage_jax.errors import BoneAgeError

try:
    from lzma import LZMAError
except ImportError:  # Python can be built without lzma; zipfile then refuses such archives with a RuntimeError.
    LZMAError = RuntimeError  # type: ignore[misc, assignment]

ENDING = ".zip"

MAX_FILE_BYTES = 512 * 2**20
"""Larger label tables and images are refused, by the size that the archive states if they are inside one."""

MAX_ARCHIVE_BYTES = 64 * 2**30
"""The same limit for an archive inside an archive; the whole official training archive has 9 GiB."""

UNREADABLE = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""Exceptions raised for a damaged or encrypted entry of an archive."""

_OPEN = 64
"""Archives of one listing that are open at once; a process may have 1,024 open files, on macOS 256."""
_MAX_DEPTH = 4
_MAX_ARCHIVES = 10_000
_MAX_RATIO, _RATIO_FROM = 100, 64 * 2**20
"""Archives hardly shrink when they are compressed again, although small ones may."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file in an archive; `name` is its path, including the enclosing archives."""

    archives: "Archives"
    archive: "pathlib.Path | Entry"
    info: zipfile.ZipInfo
    name: str

    def read(self, limit: int) -> bytes:
        """Returns the contents.

        Raises:
          BoneAgeError: more than `limit` bytes, damaged or encrypted.
        """
        _refuse_bomb(self.name, self.info.file_size, limit)
        try:
            return self.archives.open(self.archive).read(self.info)
        except UNREADABLE as error:
            raise BoneAgeError(_unreadable(self.name, error)) from None

    def head(self, count: int) -> bytes:
        """Returns the first `count` bytes, or fewer if the file is shorter or cannot be read."""
        try:
            with self.archives.open(self.archive).open(self.info) as stream:
                return stream.read(count)
        except (*UNREADABLE, BoneAgeError):
            return b""


class Archives:
    """The archives of one listing; only the most recently used are kept open.

    A folder may hold more archives than the number of files that a process may open. Inner archives are copied to
    temporary files, which are deleted when the archive is closed, so at most `_OPEN` copies occupy the disk.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # Opening an inner archive also opens the enclosing one.
        self._opened = functools.lru_cache(_OPEN)(_open)
        self._count = 0

    def open(self, place: "pathlib.Path | Entry") -> zipfile.ZipFile:
        """Opens the archive; it stays open while the caller holds it, even after it is evicted from the cache.

        Raises:
          BoneAgeError: it is not an intact archive, or it is too large to be copied.
        """
        with self._lock:
            return self._opened(place)

    def entries(
        self, place: "pathlib.Path | Entry", name: str, problems: dict[str, str], depth: int = 1
    ) -> Iterator[tuple[Entry, int]]:
        """The files in an archive and in the archives inside it, each with the number of enclosing archives.

        Args:
          place: location of the archive.
          name: the name of the archive in errors and entries.
          problems: receives a sentence for each archive that cannot be read, by its name.
          depth: number of archives that enclose the files of this archive.
        """
        self._count += 1
        try:
            if self._count > _MAX_ARCHIVES:
                raise BoneAgeError(
                    f"{name} is refused as a decompression bomb: there are over {_MAX_ARCHIVES:,} archives"
                )
            infos = self.open(place).infolist()
            for info in infos:
                _refuse_escape(info.filename, name)
        except BoneAgeError as error:
            problems[name] = str(error)
            return
        for info in infos:
            path = info.filename.replace("\\", "/")
            if info.is_dir() or is_hidden(path):
                continue
            found = Entry(self, place, info, f"{name}/{path}")
            if not path.lower().endswith(ENDING):
                yield found, depth
            elif depth < _MAX_DEPTH:
                yield from self.entries(found, found.name, problems, depth + 1)
            else:
                problems[found.name] = f"{found.name} is nested too deeply, in {depth} archives; unpack it"


def is_hidden(name: str) -> bool:
    """Whether a path below the listed folder is hidden, a macOS resource fork or a lock file of Excel."""
    return any(part.startswith((".", "~$")) or part == "__MACOSX" for part in name.split("/"))


def _open(place: pathlib.Path | Entry) -> zipfile.ZipFile:
    if isinstance(place, Entry):
        return _open_inner(place)
    return _zip_file(place, str(place))


def _open_inner(entry: Entry) -> zipfile.ZipFile:
    """Copies an inner archive to an unnamed temporary file: seeking in a compressed stream would restart it."""
    info, folder = entry.info, tempfile.gettempdir()
    _refuse_bomb(entry.name, info.file_size, MAX_ARCHIVE_BYTES)
    if info.file_size > max(_RATIO_FROM, _MAX_RATIO * info.compress_size):
        _refuse_bomb(entry.name, info.file_size, _MAX_RATIO * info.compress_size)
    if info.file_size > (free := shutil.disk_usage(folder).free // 2):
        raise BoneAgeError(
            f"{entry.name} needs {info.file_size:,} bytes in the temporary folder {folder}, but only {free:,} may be "
            "used; unpack the outer archive, or choose another folder with the environment variable TMPDIR"
        )
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the archive that reads from it)
    try:
        with entry.archives.open(entry.archive).open(info) as inner:
            shutil.copyfileobj(inner, copy, 2**20)
        opened = _zip_file(copy, entry.name)
    except (*UNREADABLE, BoneAgeError) as error:
        copy.close()
        raise error if isinstance(error, BoneAgeError) else BoneAgeError(_unreadable(entry.name, error)) from None
    weakref.finalize(opened, copy.close)
    return opened


def _zip_file(source: pathlib.Path | IO[bytes], name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except UNREADABLE as error:
        raise BoneAgeError(f"{name} is not an intact zip archive ({error}); replace it with an intact copy") from None


def _unreadable(name: str, error: Exception) -> str:
    return f"{name} cannot be read from its archive ({error}); replace the archive with an intact copy"


def _refuse_escape(entry: str, name: str) -> None:
    path = entry.replace("\\", "/")
    if path.startswith("/") or ".." in path.split("/") or ":" in path.split("/")[0]:
        raise BoneAgeError(
            f"{name} is refused: its entry {entry!r} points outside the archive's folder; "
            "download the archive from its official source"
        )


def _refuse_bomb(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise BoneAgeError(
            f"{name} is refused as a decompression bomb: {size:,} bytes once unpacked, more than {limit:,}"
        )
