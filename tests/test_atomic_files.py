"""Files are replaced atomically: if writing fails, the previous file stays."""

import errno
import os
import threading

import pytest

from boneage_jax import atomic_files
from boneage_jax.atomic_files import storage_errors, write_new, write_text, write_whole
from boneage_jax.errors import BoneAgeError


def test_a_file_appears_under_its_name_only_when_complete(tmp_path):
    target = tmp_path / "new folder" / "metrics.json"

    def write(path):
        path.write_text("half")
        assert not target.exists()
        path.write_text("whole")

    write_whole(target, write)
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_is_a_clear_error_and_keeps_the_previous_file(tmp_path):
    target = tmp_path / "metrics.json"
    target.write_text("previous")

    def write(path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(BoneAgeError, match=r"metrics\.json: No space left on device"):
        write_whole(target, write)
    assert target.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [target]


def test_any_other_failure_leaves_no_partial_file_behind(tmp_path):
    def write(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "metrics.json", write)
    assert not list(tmp_path.iterdir())


def test_threads_that_write_the_same_file_do_not_disturb_each_other(tmp_path):
    target, started = tmp_path / "metrics.json", threading.Barrier(2, timeout=60)

    def run(text):
        def write(path):
            path.write_text("half")
            started.wait()
            path.write_text(path.read_text() + text)

        write_whole(target, write)

    other = threading.Thread(target=run, args=(" one",))
    other.start()
    run(" two")
    other.join()
    assert target.read_text() in ("half one", "half two")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        with pytest.raises(BoneAgeError, match=rf"{path} is a device or a pipe, not a file; choose another path"):
            write_text(path, "text")
    assert pipe.is_fifo()
    assert (tmp_path / "link").is_symlink()


def test_the_file_behind_a_symbolic_link_is_replaced(tmp_path):
    target, link = tmp_path / "real" / "metrics.json", tmp_path / "link.json"
    link.symlink_to(target)
    for text in ("first", "second"):
        write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text


def test_a_name_of_the_longest_length_can_be_written(tmp_path):
    target = tmp_path / ("x" * 250 + ".json")
    write_text(target, "text")
    assert target.read_text() == "text"


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_replaces_one_that_appears_meanwhile(tmp_path, monkeypatch, links):
    def no_links(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    write_new(tmp_path / "a.dcm", b"new")
    assert (tmp_path / "a.dcm").read_bytes() == b"new"
    target, refuse = tmp_path / "b.dcm", atomic_files.refuse_existing

    def appear(path):
        refuse(path)
        if not target.exists():
            target.write_bytes(b"another program's")

    monkeypatch.setattr(atomic_files, "refuse_existing", appear)
    with pytest.raises(BoneAgeError, match=r"b\.dcm already exists and is not overwritten"):
        write_new(target, b"new")
    assert target.read_bytes() == b"another program's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dcm", "b.dcm"]


@pytest.mark.parametrize("error", [OSError(), TimeoutError(), BrokenPipeError()])
def test_a_system_error_without_a_message_is_named_by_its_type(error, tmp_path):
    with pytest.raises(BoneAgeError, match=f"cannot write to .*: {type(error).__name__}"), storage_errors(tmp_path):
        raise error
