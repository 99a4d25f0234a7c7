"""Where the kernels cannot be had, everything still runs, and the log says why."""

import logging
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.kernels import build, channel_sums, conv_general_dilated
from tests.kernels.machine import needs_kernels


@needs_kernels
def test_a_machine_that_can_build_them_has_them():
    assert build.available()


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Decides anew, with an empty cache; forgets the answer afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(build.SWITCH, "on")
    build.available.cache_clear()
    yield tmp_path
    build.available.cache_clear()


def test_without_a_compiler_xla_computes_and_the_log_says_so(fresh, monkeypatch, caplog):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert not build.available()
    assert "there is no C++ compiler" in caplog.text
    x, kernel = jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 16, 16))
    assert (
        conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0, 1, 1, 0] == 144
    )
    np.testing.assert_array_equal(channel_sums(x, x, jnp.ones(16))[0], np.full(16, 16))


def test_a_failed_compilation_leaves_nothing_behind_and_names_the_error(fresh, monkeypatch, tmp_path, caplog):
    source = tmp_path / "cpu" / "calls.cc"
    source.parent.mkdir()
    source.write_text('#error "not today"\n')
    monkeypatch.setattr(build, "SOURCES", source.parent)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert not build.available()
    assert "not today" in caplog.text or "there is no C++ compiler" in caplog.text
    assert not list(tmp_path.rglob("*.so"))


@pytest.fixture
def small(fresh, monkeypatch):
    """A source that compiles in a moment."""
    source = fresh / "cpu" / "calls.cc"
    source.parent.mkdir()
    source.write_text("int one() { return 1; }\n")
    monkeypatch.setattr(build, "SOURCES", source.parent)


@needs_kernels
def test_a_library_is_compiled_once_in_a_folder_for_the_user_alone(small, monkeypatch):
    library = build._compiled()
    assert (library.parent.stat().st_mode & 0o777, [*library.parent.iterdir()]) == (0o700, [library])

    monkeypatch.setattr(build.tempfile, "TemporaryDirectory", pytest.fail)  # in which it would be compiled
    assert build._compiled() == library


@needs_kernels
@pytest.mark.parametrize("damage", [lambda x: x[: len(x) // 2], lambda x: x[:999] + b"?" + x[1000:], lambda x: b""])
def test_a_damaged_library_is_not_loaded_but_compiled_again(small, damage, caplog):
    library = build._compiled()
    intact = library.read_bytes()
    library.write_bytes(damage(intact))
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert build._compiled().read_bytes() == intact
    assert f"{library} is damaged; the CPU kernels are compiled again" in caplog.text


@needs_kernels
def test_a_folder_that_others_can_write_to_is_refused(small, caplog):
    folder = build._compiled().parent
    folder.chmod(0o777)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert not build.available()
    assert f"{folder} can be written by other users" in caplog.text


def test_they_can_be_switched_off(fresh, monkeypatch):
    monkeypatch.setenv(build.SWITCH, "off")
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    assert not build.available()


def test_they_are_not_built_for_other_platforms(fresh, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    assert not build.available()
