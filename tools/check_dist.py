"""Compares the archives that `python -m build` made with the checkout: python -m tools.check_dist FOLDER."""

import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

KERNEL_SOURCES = PurePosixPath("boneage_jax/kernels/cpu")
LIBRARIES = ("cpu_avx2.so", "cpu_avx512.so")
BUILD_FILES = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}


def main(folder: Path) -> None:
    """Prints the sizes of both archives; raises SystemExit with the first difference from the files of the checkout."""
    tracked = {PurePosixPath(line) for line in _git("ls-files", "boneage_jax").splitlines()}
    wheel, source = _only(folder, "*.whl"), _only(folder, "*.tar.gz")
    sources = {path for path in tracked if path.is_relative_to(KERNEL_SOURCES)}
    expected = tracked - sources
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        expected |= {KERNEL_SOURCES.parent / name for name in LIBRARIES}
    with zipfile.ZipFile(wheel) as archive:
        names = {PurePosixPath(name) for name in archive.namelist()}
    _compare(wheel, {name for name in names if not name.parts[0].endswith(".dist-info")}, expected)
    with tarfile.open(source) as archive:
        members = [PurePosixPath(member.name) for member in archive if member.isfile()]
    names = {PurePosixPath(*member.parts[1:]) for member in members}
    _compare(source, {name for name in names if name.parts[0] == "boneage_jax"}, tracked)
    if surplus := sorted(str(name) for name in names if name.parts[0] == "tests"):
        raise SystemExit(f"{source.name} has tests without their helpers: {', '.join(surplus)}")
    missing = sorted(BUILD_FILES - set(map(str, names)))
    if missing:
        raise SystemExit(f"{source.name} lacks {', '.join(missing)}")
    for path in (wheel, source):
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(
            f"{folder} has {len(found)} files {pattern}, expected 1; run: python -m build --outdir {folder}"
        )
    return found[0]


def _compare(archive: Path, found: set[PurePosixPath], expected: set[PurePosixPath]) -> None:
    for problem, paths in (("lacks", expected - found), ("should not contain", found - expected)):
        if paths:
            raise SystemExit(f"{archive.name} {problem} {', '.join(sorted(map(str, paths)))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
