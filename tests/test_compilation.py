import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from boneage_jax import cache, compilation

FOLDER = "jax_compilation_cache_dir"
SETTINGS = (
    FOLDER,
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def enabled():
    """Enables the cache without a folder, as outside tests; restores the settings afterwards."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update(FOLDER, None)
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def named() -> str | None:
    """The cache folder that JAX uses."""
    return getattr(jax.config, FOLDER)


def compile_afresh():
    """Compiles the same program as the last call, from a new function."""
    jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(5)).block_until_ready()


def test_a_compiled_program_is_found_in_the_cache(tmp_path):
    events = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    try:
        compilation.use_cache(tmp_path / "new/compiled")
        compile_afresh()
        assert list((tmp_path / "new/compiled").glob("*-cache"))
        assert "/jax/compilation_cache/cache_hits" not in events
        compile_afresh()
        assert "/jax/compilation_cache/cache_hits" in events
    finally:
        jax.monitoring.clear_event_listeners()


def test_a_folder_that_cannot_be_created_is_reported_and_not_used(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    compilation.use_cache(tmp_path / "file/compiled")

    assert "file/compiled cannot be used" in caplog.text
    assert named() is None
    compile_afresh()


def test_a_folder_that_cannot_be_written_is_reported_and_not_used(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # as for anybody but root
    compilation.use_cache(tmp_path)

    assert f"{tmp_path} cannot be written" in caplog.text
    assert named() is None


def test_a_folder_that_others_can_write_to_is_refused(tmp_path, caplog):
    tmp_path.chmod(0o777)
    compilation.use_cache(tmp_path)

    assert f"{tmp_path} can be written by other users" in caplog.text
    assert named() is None


def test_a_cache_folder_already_set_in_jax_is_kept(tmp_path):
    jax.config.update(FOLDER, str(tmp_path))
    compilation.use_cache(tmp_path / "ours")

    assert named() == str(tmp_path)
    assert not (tmp_path / "ours").exists()


def test_without_a_folder_no_cache_is_set():
    compilation.use_cache(None)
    assert named() is None


def test_the_configuration_sets_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "boneage_jax"
    assert compilation.cache_folder("") == tmp_path / "boneage_jax/compiled"
    assert compilation.cache_folder("off") is None
    assert compilation.cache_folder(str(tmp_path / "mine")) == tmp_path / "mine"
