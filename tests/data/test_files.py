"""Listing folders and archives: unreadable entries are reported and do not hide the others."""

import gc
import io
import os
import pathlib
import random
import resource
import shutil
import tempfile
import zipfile

import pytest

from boneage_jax.data import archives, files, rsna
from boneage_jax.data.files import File, list_files
from boneage_jax.errors import BoneAgeError
from tests.data import rsna_forms as forms


def names(listing):
    return [file.name for file in listing.files]


def test_files_in_folders_and_nested_archives_are_listed_unless_hidden(tmp_path):
    inner = forms.archive({"d.png": b"d", "__MACOSX/._d.png": b"", ".hidden": b""})
    forms.write(
        tmp_path, {"b/a.png": b"a", "c.ZIP": forms.archive({"x/inner.zip": inner, "y.png": b"yy"}), ".x/a": b""}
    )
    listing = list_files(tmp_path)
    assert names(listing) == ["b/a.png", "c.ZIP/x/inner.zip/d.png", "c.ZIP/y.png"]
    assert [(file.size, file.depth, file.read()) for file in listing.files] == [
        (1, 0, b"a"),
        (1, 2, b"d"),
        (2, 1, b"yy"),
    ]
    assert [file.head(1) for file in listing.files] == [b"a", b"d", b"y"]
    assert listing.problems == {}


def test_an_archive_is_listed_like_a_folder(tmp_path):
    forms.write(tmp_path, {"two.zip": forms.archive({"a.png": b"a", "b/c.png": b"c"})})
    listing = list_files(tmp_path / "two.zip")
    assert names(listing) == ["a.png", "b/c.png"]
    assert [file.read() for file in listing.files] == [b"a", b"c"]


def test_unreadable_entries_are_reported_and_the_rest_is_listed(tmp_path):
    whole = forms.archive({"a.png": b"a" * 999})
    nested = forms.archive({"good.png": b"g", "broken.zip": whole[:50]})
    forms.write(tmp_path, {"a.png": b"a", "half.zip": whole[:100], "empty.zip": b"", "outer.zip": nested})
    (tmp_path / "link.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    listing = list_files(tmp_path)
    assert names(listing) == ["a.png", "outer.zip/good.png"]
    expected = {
        "half.zip": "is not an intact zip archive",
        "empty.zip": "is not an intact zip archive",
        "outer.zip/broken.zip": "is not an intact zip archive",
        "link.png": "cannot be read: No such file",
        "pipe.png": "is a device or a pipe, not a file",
    }
    assert set(listing.problems) == {str(tmp_path / name) for name in expected}
    for name, words in expected.items():
        assert f"{tmp_path / name} {words}" in listing.problems[str(tmp_path / name)]
    with pytest.raises(BoneAgeError, match=r"\(4 further problems of this kind\)$"):
        listing.refuse_problems()


def test_an_unreadable_folder_is_reported(tmp_path, monkeypatch):
    forms.write(tmp_path, {"a/1.png": b"", "b/2.png": b"", "c.png": b""})
    real = os.scandir

    def scandir(path):  # Simulated, because root can read every folder.
        if os.path.basename(path) == "a":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = list_files(tmp_path)
    assert names(listing) == ["b/2.png", "c.png"]
    assert listing.problems == {str(tmp_path / "a"): f"The folder {tmp_path / 'a'} cannot be read: Permission denied"}
    with pytest.raises(BoneAgeError, match="cannot be read: Permission denied"):
        rsna.find(tmp_path)


def test_symlinked_folders_are_followed_without_endless_loops(tmp_path):
    forms.write(tmp_path, {"real/1.png": b"", "listed/2.png": b""})
    (tmp_path / "listed/link").symlink_to(tmp_path / "real")
    (tmp_path / "real/back").symlink_to(tmp_path / "listed")
    (tmp_path / "real/self").symlink_to(tmp_path / "real")
    assert names(list_files(tmp_path / "listed")) == ["2.png", "link/1.png"]


def test_400_archives_need_few_file_descriptors(tmp_path):
    for number in range(400):
        forms.write(tmp_path, {f"{number:03}.zip": forms.archive({"in.zip": forms.archive({"a.png": b"%d" % number})})})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 100, hard))
    try:
        listing = list_files(tmp_path)
        contents = [file.read() for file in listing.files]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert contents == [b"%d" % number for number in range(400)]
    assert listing.problems == {}


def test_files_can_be_read_in_any_order_and_from_several_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    for number in range(40):
        forms.write(tmp_path, {f"{number}.zip": forms.archive({f"{i}.png": b"%d-%d" % (number, i) for i in range(5)})})
    listed = list_files(tmp_path).files
    shuffled = random.Random(0).sample(listed, len(listed)) * 3
    with ThreadPoolExecutor(8) as pool:
        for file, data in zip(shuffled, pool.map(File.read, shuffled), strict=True):
            assert data.decode() == file.name.replace(".zip/", "-").removesuffix(".png")


def test_inner_archives_leave_no_temporary_files_open(tmp_path):
    entries = {f"{number}.zip": forms.archive({"a.png": bytes(5000)}) for number in range(90)}
    forms.write(tmp_path, {"outer.zip": forms.archive(entries)})
    gc.collect()  # Archives and entries form reference cycles; those of other tests may still be open.
    before = len(os.listdir("/proc/self/fd"))
    listing = list_files(tmp_path)
    assert len(listing.files) == 90
    assert len(os.listdir("/proc/self/fd")) - before <= archives._OPEN + 1
    del listing
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_inner_archive_too_large_for_the_temporary_folder_is_reported(tmp_path, monkeypatch):
    forms.write(tmp_path, {"outer.zip": forms.archive({"in.zip": bytes(9000), "a.png": b"a"})})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10_000}))
    listing = list_files(tmp_path)
    assert names(listing) == ["outer.zip/a.png"]
    (sentence,) = listing.problems.values()
    assert f"needs 9,000 bytes in the temporary folder {tempfile.gettempdir()}, but only 5,000 may be used" in sentence


def test_inner_archives_that_are_decompression_bombs_are_reported(tmp_path, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("in.zip", bytes(3_000_000))
    forms.write(tmp_path, {"bomb.zip": packed.getvalue()})
    monkeypatch.setattr(archives, "_RATIO_FROM", 2_000_000)
    (sentence,) = list_files(tmp_path).problems.values()
    assert "bomb.zip/in.zip is refused as a decompression bomb: 3,000,000 bytes once unpacked" in sentence


def test_nesting_depth_and_number_of_archives_are_limited(tmp_path, monkeypatch):
    data = forms.archive({"a.png": b"a"})
    for _ in range(6):
        data = forms.archive({"in.zip": data, "b.png": b"b"})
    forms.write(tmp_path, {"deep.zip": data})
    listing = list_files(tmp_path)
    assert [file.depth for file in listing.files] == [1, 2, 3, 4]
    (sentence,) = listing.problems.values()
    assert "is nested too deeply, in 4 archives; unpack it" in sentence
    monkeypatch.setattr(archives, "_MAX_ARCHIVES", 2)
    (sentence,) = list_files(tmp_path).problems.values()
    assert "is refused as a decompression bomb: there are over 2 archives" in sentence


def test_sparse_and_endless_files_are_rejected(tmp_path, monkeypatch):
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(BoneAgeError, match=r"sparse\.png has more than 536,870,912 bytes"):
        list_files(tmp_path).files[0].read()
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 5000)
    with pytest.raises(BoneAgeError, match="/dev/zero has more than 5,000 bytes"):
        File("/dev/zero", 0, 0, pathlib.Path("/dev/zero")).read()


def test_a_held_file_is_unaffected_by_changes_on_disk(tmp_path):
    forms.write(tmp_path, {"a.png": b"before"})
    held = list_files(tmp_path).files[0].held()
    (tmp_path / "a.png").write_bytes(b"after")
    assert (held.read(), held.head(3), held.name) == (b"before", b"bef", "a.png")


def test_an_archive_replaced_after_listing_is_a_clear_error(tmp_path):
    forms.write(tmp_path, {"a.zip": forms.archive({"a.png": b"a" * 500})})
    (file,) = list_files(tmp_path).files
    (tmp_path / "a.zip").write_bytes(b"no archive any more")
    assert isinstance(file._place, archives.Entry)
    file._place.archives._opened.cache_clear()
    with pytest.raises(BoneAgeError, match=r"a\.zip is not an intact zip archive"):
        file.read()
    assert file.head(5) == b""


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_entry_is_an_error_in_every_compression(method, tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as file:
        file.writestr("a.png", os.urandom(500) * 4)
        file.writestr("in.zip", forms.archive({"b.png": os.urandom(500)}))
    damaged = bytearray(data.getvalue())
    for name in (b"a.png", b"in.zip"):
        at = damaged.index(name) + len(name)
        damaged[at + 20 : at + 200] = bytes(180)
    (tmp_path / "set.zip").write_bytes(damaged)
    listing = list_files(tmp_path)
    assert list(listing.problems) == [str(tmp_path / "set.zip/in.zip")]
    (entry,) = listing.files
    assert entry.head(8) == b""
    with pytest.raises(BoneAgeError, match=r"set.zip/a.png cannot be read from its archive"):
        entry.read()
