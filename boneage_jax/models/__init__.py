"""Networks for bone age: pure `flax.linen` modules, made from a `Description`."""

from boneage_jax.models.heads import Estimate
from boneage_jax.models.inputs import Input, check_inputs, encode
from boneage_jax.models.network import LARGEST_MONTHS, Description, Network, create, names

__all__ = ["LARGEST_MONTHS", "Description", "Estimate", "Input", "Network", "check_inputs", "create", "encode", "names"]
