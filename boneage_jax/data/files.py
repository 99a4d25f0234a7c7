"""Finds files below a folder and inside its zip archives, and reads them; nothing is unpacked."""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping

from boneage_jax.data.archives import ENDING, MAX_FILE_BYTES, Archives, Entry, is_hidden
from boneage_jax.errors import BoneAgeError

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded; the largest hand radiographs have about 10 million pixels."""


@dataclasses.dataclass(frozen=True)
class File:
    """A file on disk or in an archive.

    Attributes:
      name: path below the data folder, including archives: `Set.zip/part-1.zip/1386.png`.
      size: bytes.
      depth: number of enclosing archives, 0 for a file on disk.
      original_size: for a resized copy, width and height of the original radiograph if a table gives them.
      mark: changes with the contents: the checksum in an archive, on disk the time of the last change.
    """

    name: str
    size: int
    depth: int
    _place: pathlib.Path | Entry | bytes = dataclasses.field(repr=False, compare=False)
    original_size: tuple[int, int] | None = None
    mark: int = 0

    def read(self) -> bytes:
        """Returns the contents; safe to call from several threads at once.

        Raises:
          BoneAgeError: the file cannot be read, or has more than `MAX_FILE_BYTES`.
        """
        if isinstance(self._place, bytes):
            return self._place
        if isinstance(self._place, Entry):
            return self._place.read(MAX_FILE_BYTES)
        try:
            with self._place.open("rb") as stream:
                # Sparse files may state a huge size. Devices and pipes have no size, and may never end.
                size = os.fstat(stream.fileno()).st_size
                data = b"" if size > MAX_FILE_BYTES else stream.read() if size else stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise BoneAgeError(f"{self._place} cannot be read: {error.strerror}") from None
        if max(size, len(data)) > MAX_FILE_BYTES:
            raise BoneAgeError(
                f"{self._place} has more than {MAX_FILE_BYTES:,} bytes; radiographs and tables of labels are smaller: "
                "export it again"
            )
        return data

    def held(self) -> "File":
        """The same file with its contents in memory, unaffected by later changes on disk.

        Raises:
          BoneAgeError: as `read`.
        """
        return dataclasses.replace(self, _place=self.read())

    def head(self, count: int) -> bytes:
        """Returns the first `count` bytes, or fewer if the file is shorter or cannot be read."""
        if isinstance(self._place, bytes):
            return self._place[:count]
        if isinstance(self._place, Entry):
            return self._place.head(count)
        try:
            with self._place.open("rb") as stream:
                return stream.read(count)
        except OSError:
            return b""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files below a folder or in an archive.

    Attributes:
      files: sorted by name.
      problems: a sentence for each folder, archive or file that cannot be read, by its path.
    """

    files: list[File]
    problems: Mapping[str, str]

    def refuse_problems(self) -> None:
        """Raises BoneAgeError with the first problem, if there is one."""
        if sentences := list(self.problems.values()):
            more = f" ({len(sentences) - 1} further problems of this kind)" if len(sentences) > 1 else ""
            raise BoneAgeError(f"{sentences[0]}{more}")


def is_archive(path: pathlib.Path) -> bool:
    """Whether this file is an archive, by its suffix; `list_files` lists archives like folders."""
    return path.suffix.lower() == ENDING and not os.path.isdir(path)


def list_files(place: pathlib.Path) -> Listing:
    """Lists all files below a folder and in its archives, or in an archive; hidden files are left out.

    Linked folders are followed, each folder once. Unreadable files become problems; the others are still listed.
    """
    files: list[File] = []
    problems: dict[str, str] = {}
    archives = Archives()
    for path in [place] if is_archive(place) else _walk(place, problems):
        status = _status(path, problems)
        if status is None:
            continue
        name = "" if path == place else path.relative_to(place).as_posix()
        if is_archive(path):
            for entry, depth in archives.entries(path, str(path), problems):
                inside = entry.name[len(str(path)) :]
                info = entry.info
                files.append(File(f"{name}{inside}".lstrip("/"), info.file_size, depth, entry, mark=info.CRC))
        elif stat.S_ISREG(status.st_mode):
            files.append(File(name, status.st_size, 0, path, mark=status.st_mtime_ns))
        else:
            problems[str(path)] = f"{path} is a device or a pipe, not a file"
    return Listing(sorted(files, key=lambda file: file.name), problems)


def make_folder(folder: pathlib.Path, flag: str) -> None:
    """Creates the folder that a command will write into, unless it exists, before the command's work begins.

    Raises:
      BoneAgeError: it cannot be created or written into; the message names `flag`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise BoneAgeError(f"the folder {folder} for {flag} cannot be created: {reason}; choose another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BoneAgeError(f"the folder {folder} for {flag} cannot be written into; choose another")


def refuse_huge(width: int, height: int, name: str) -> None:
    """Raises BoneAgeError for an image that would exhaust memory."""
    if width * height > MAX_PIXELS:
        raise BoneAgeError(
            f"{name} is refused as a decompression bomb: it has {width} x {height} pixels, "
            f"more than {MAX_PIXELS // 1_000_000} million; hand radiographs have about 4 million"
        )


def _walk(folder: pathlib.Path, problems: dict[str, str]) -> Iterator[pathlib.Path]:
    """The paths of all non-hidden files; each folder is visited once, even if links form a cycle."""

    def note(error: OSError) -> None:
        problems[str(error.filename)] = f"The folder {error.filename} cannot be read: {error.strerror}"

    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=note, followlinks=True):
        here = _status(pathlib.Path(root), problems)
        if here is None or (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (pathlib.Path(root, name) for name in sorted(names) if not is_hidden(name))


def _status(path: pathlib.Path, problems: dict[str, str]) -> os.stat_result | None:
    """The status of a file or folder, or None if it cannot be read, which is then added to `problems`."""
    try:
        return path.stat()
    except OSError as error:
        problems[str(path)] = f"{path} cannot be read: {error.strerror}"
        return None
