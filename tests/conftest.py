"""Test session: four fake CPU devices, no silent rank promotion, its own compilation cache, public shapes checked."""

import os

os.environ["JAX_PLATFORMS"] = os.environ.get("BONEAGE_TEST_PLATFORMS", "cpu")  # benchmarks/gpu.py names others
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # no test process writes to the user's cache folder

import jax
import pytest
from absl import flags
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
# grain reads absl flags in its worker processes, and refuses flags that nobody has parsed.
flags.FLAGS.mark_as_parsed()
install_import_hook("boneage_jax", "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory):
    """Compiles slow programs once per session: many tests train or load the same network."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    compilation_cache.reset_cache()  # compiling during collection made JAX decide that there is none
