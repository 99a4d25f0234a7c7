"""Networks for bone age: pure `flax.linen` modules. `create` is the only way in."""

from boneage_jax.models.heads import Estimate
from boneage_jax.models.inputs import Input, check_inputs, encode
from boneage_jax.models.network import Network, create, names

__all__ = ["Estimate", "Input", "Network", "check_inputs", "create", "encode", "names"]
