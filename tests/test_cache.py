"""Permissions of the cache folder."""

import os
import stat
from pathlib import Path

import pytest

from boneage_jax import cache
from boneage_jax.errors import BoneAgeError


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path):
    """A folder owned by the user, with one file."""
    path = tmp_path / "kernels"
    cache.make_private(path)
    (path / "library.so").write_bytes(b"code")
    (path / "library.so").chmod(0o644)
    return path


def test_new_folders_are_accessible_only_to_the_user(tmp_path):
    tmp_path.chmod(0o755)
    before = os.umask(0)
    try:
        cache.make_private(tmp_path / "a/b/c")
    finally:
        os.umask(before)
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/c")] == [0o700] * 3
    assert mode(tmp_path) == 0o755


def test_a_folder_that_exists_keeps_its_permissions(tmp_path):
    tmp_path.chmod(0o750)
    cache.make_private(tmp_path)
    assert mode(tmp_path) == 0o750


def test_a_folder_owned_by_the_user_is_accepted(folder):
    cache.check_own(folder)
    folder.chmod(0o755)
    cache.check_own(folder)


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(folder, bits):
    folder.chmod(bits)
    with pytest.raises(BoneAgeError, match=r"kernels can be written by other users \(d"):
        cache.check_own(folder)


def test_a_file_that_others_can_reach_and_write_to_is_refused(folder):
    (folder / "library.so").chmod(0o666)
    cache.check_own(folder)
    folder.chmod(0o711)
    with pytest.raises(BoneAgeError, match=r"library\.so can be written by other users \(-rw-rw-rw-\)"):
        cache.check_own(folder)


def test_a_symbolic_link_is_refused(folder, tmp_path):
    (tmp_path / "elsewhere.so").write_bytes(b"code")
    (folder / "link.so").symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(BoneAgeError, match=r"link\.so is a link"):
        cache.check_own(folder)


@pytest.mark.parametrize("name", ["", "library.so"])
def test_a_folder_or_file_of_another_user_is_refused(folder, name, monkeypatch):
    owner = (folder / name).stat().st_uid
    if name:
        original = Path.lstat
        other = os.stat_result((*original(folder / name)[:4], owner + 1, *original(folder / name)[5:10]))
        monkeypatch.setattr(Path, "lstat", lambda _: other)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(BoneAgeError, match=rf"{name or 'kernels'} belongs to another user"):
        cache.check_own(folder)
