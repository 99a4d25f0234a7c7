"""Test session: four fake CPU devices, no silent rank promotion, nothing compiled kept, public shapes checked."""

import os

os.environ["JAX_PLATFORMS"] = os.environ.get("BONEAGE_TEST_PLATFORMS", "cpu")  # benchmarks/gpu.py names others
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # nothing compiled by a test lands in the user's cache folder

import jax
from absl import flags
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
# grain reads absl flags in its worker processes, and refuses flags that nobody has parsed.
flags.FLAGS.mark_as_parsed()
install_import_hook("boneage_jax", "beartype.beartype")
