"""Files are replaced atomically: if writing fails, the previous file stays."""

import errno
import os

import pytest

from boneage_jax.atomic_files import storage_errors, write_whole
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


@pytest.mark.parametrize("error", [OSError(), TimeoutError(), BrokenPipeError()])
def test_a_system_error_without_a_message_is_named_by_its_type(error, tmp_path):
    with pytest.raises(BoneAgeError, match=f"cannot write to .*: {type(error).__name__}"), storage_errors(tmp_path):
        raise error
