"""ConvMixer (Trockman and Kolter, "Patches Are All You Need?", TMLR 2023, figure 2)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.depthwise import DepthwiseConv
from boneage_jax.models.layers import Layer, Pointwise, batch_norm, recomputed

# The paper uses the exact GELU, PyTorch's default, but trained ConvMixer-768/32 with ReLU.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "relu": nn.relu,
}


class MixerBlock(nn.Module):
    """Mixes pixels (depthwise convolution with a residual shortcut), then channels (pointwise convolution)."""

    kernel_size: int
    activation: str
    norm: Layer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        """Keeps the shape."""
        activation = ACTIVATIONS[self.activation]
        depthwise = DepthwiseConv(self.kernel_size, use_bias=True, dtype=self.dtype, name="depthwise")
        x = x + self.norm(name="depthwise_bn")(activation(depthwise(x)))
        pointwise = Pointwise(x.shape[-1], use_bias=True, dtype=self.dtype, name="pointwise")
        return self.norm(name="pointwise_bn")(activation(pointwise(x)))


class ConvMixer(nn.Module):
    """Patch embedding, then `depth` mixer blocks: [B, H, W, C] to [B, H / patch, W / patch, dim].

    The default is ConvMixer-768/32 with kernel 7 and patch 7. Trailing rows and columns of pixels
    that do not fill a patch are dropped, as in the original. Published input: 224 x 224, standardised per channel.
    """

    dim: int = 768
    depth: int = 32
    kernel_size: int = 7
    patch_size: int = 7
    activation: str = "gelu"
    axis_name: str | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects an unknown activation."""
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise BoneAgeError(f"unknown activation {self.activation!r} for ConvMixer; known: {known}")
        super().__post_init__()

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        """Returns the output of the last block, before pooling."""
        norm = batch_norm(train=train, momentum=0.9, epsilon=1e-5, axis_name=self.axis_name, dtype=self.dtype)
        patch = (self.patch_size, self.patch_size)
        embed = nn.Conv(self.dim, patch, patch, padding="VALID", dtype=self.dtype, name="patch_embedding")
        x = ACTIVATIONS[self.activation](embed(image.astype(self.dtype)))
        x = norm(name="patch_embedding_bn")(x)  # [B, h, w, dim]
        block = recomputed(MixerBlock, train=train, remat=self.remat)
        for i in range(self.depth):
            x = block(self.kernel_size, self.activation, norm, dtype=self.dtype, name=f"block{i + 1}")(x)
        return x
