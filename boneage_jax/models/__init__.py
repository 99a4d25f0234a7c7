"""Networks for bone age: pure `flax.linen` modules. `create` is the only way in."""

from boneage_jax.models.heads import Estimate
from boneage_jax.models.network import Network, create, names

__all__ = ["Estimate", "Network", "create", "names"]
