"""The network that finds ossification regions: the first stages of a bone-age trunk, a decoder, two maps per label.

Centres are peaks of a heat map as in CenterNet (Zhou, Wang, Kraehenbuehl, "Objects as Points", 2019), boxes are
distances from a cell to the edges as in FCOS (Tian et al., ICCV 2019); encoder and decoder are joined as in the U-Net
(Ronneberger et al., MICCAI 2015).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax.models.compact_resnet import BasicBlock, Conv3x3, space_to_depth
from boneage_jax.models.efficientnet import FRAMEWORKS, EfficientNet
from boneage_jax.models.layers import Layer, Pointwise, batch_norm
from boneage_jax.regions.boxes import LABELS

STRIDE = 4
"""Pixels of the input per cell of the maps."""

_HALF_SIDE = 9.0  # pixels from the centre of a typical box to its edge: the initial prediction
_RARE = -4.0  # initial bias of the heat maps: few cells are centres
_LAST_STAGE = 5


@dataclasses.dataclass(frozen=True)
class Maps:
    """The network's predictions, on cells of `STRIDE` pixels.

    Attributes:
      heat: logits `[B, h, w, labels]` of a region's centre lying in the cell.
      boxes: `[B, h, w, labels, 4]`: the region's left, top, right and bottom in pixels of the input.
    """

    heat: Float[Array, "B h w K"]
    boxes: Float[Array, "B h w K 4"]


jax.tree_util.register_dataclass(Maps, data_fields=["heat", "boxes"], meta_fields=[])


class Encoder(EfficientNet):
    """The first five stages of EfficientNet-Lite0, used with their running statistics: they are frozen here.

    Parameter names and shapes are those of `EfficientNet`, so that a bone-age network's trunk can be loaded.
    """

    variant: str = "lite0"

    @nn.compact
    def __call__(  # type: ignore[override]
        self, image: Float[Array, "B H W 1"], *, train: bool = False
    ) -> tuple[Array, Array, Array]:
        """The maps at 1/4, 1/8 and 1/16 of the image's side, of 24, 40 and 112 channels for Lite0."""
        momentum, epsilon = FRAMEWORKS[self.framework]
        norm = batch_norm(train=train, momentum=momentum, epsilon=epsilon, axis_name=None, dtype=self.dtype)
        _, quarter, eighth, _, sixteenth = self.stages(image, norm, train=train, last=_LAST_STAGE)
        return quarter, eighth, sixteenth


class Decoder(nn.Module):
    """Computes the maps of regions from the encoder's feature maps and the image's fine detail.

    `widths` are the channels at 1/16, 1/8 and 1/4 of the image's side, `detail` those of the path from the image.
    """

    widths: tuple[int, ...] = (80, 56, 40)
    detail: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "B H W 1"],
        levels: tuple[Float[Array, "B _ _ _"], ...],
        *,
        train: bool,
    ) -> Maps:
        """Returns the maps; `train` uses batch statistics (mutable "batch_stats")."""
        norm = batch_norm(train=train, momentum=0.95, epsilon=1e-5, axis_name=None, dtype=self.dtype)
        shallow = space_to_depth(space_to_depth(image.astype(self.dtype)))  # [B, H/4, W/4, 16]
        shallow = Conv3x3(self.detail, norm, dtype=self.dtype, name="detail")(shallow)
        quarter, eighth, sixteenth = levels
        x = nn.relu(norm(name="context_norm")(Pointwise(self.widths[0], dtype=self.dtype, name="context")(sixteenth)))
        x = BasicBlock(norm, dtype=self.dtype, name="context_block1")(x, train)
        x = BasicBlock(norm, dtype=self.dtype, name="context_block2")(x, train)
        x = self._joined(x, eighth, self.widths[1], norm, "eighth")
        x = self._joined(x, jnp.concatenate([quarter, shallow], axis=-1), self.widths[2], norm, "quarter")
        x = Conv3x3(self.widths[2], norm, dtype=self.dtype, name="last")(x)
        return self._maps(x)

    def _joined(self, coarse: Array, skip: Array, width: int, norm: Layer, name: str) -> Array:
        """A level of the decoder: the coarse map, upsampled and added to the skip connection, then a convolution."""
        skip = norm(name=f"{name}_skip_norm")(Pointwise(width, dtype=self.dtype, name=f"{name}_skip")(skip))
        coarse = norm(name=f"{name}_up_norm")(Pointwise(width, dtype=self.dtype, name=f"{name}_up")(coarse))
        enlarged = coarse.repeat(2, axis=1).repeat(2, axis=2)[:, : skip.shape[1], : skip.shape[2]]
        return Conv3x3(width, norm, dtype=self.dtype, name=f"{name}_conv")(nn.relu(enlarged + skip))

    def _maps(self, x: Float[Array, "B h w C"]) -> Maps:
        batch, height, width, _ = x.shape
        heat_bias, sides_start = nn.initializers.constant(_RARE), nn.initializers.normal(0.01)
        heat = nn.Conv(len(LABELS), (1, 1), bias_init=heat_bias, name="heat")(x)
        raw = nn.Conv(4 * len(LABELS), (1, 1), kernel_init=sides_start, name="sides")(x)
        sides = _HALF_SIDE * jnp.exp(raw.astype(jnp.float32).clip(-4, 4)).reshape(batch, height, width, len(LABELS), 4)
        down, across = (STRIDE * (jnp.arange(side) + 0.5) for side in (height, width))
        cell = jnp.stack(jnp.broadcast_arrays(across[None, :], down[:, None]), axis=-1)  # [h, w, 2]
        cell = cell[None, :, :, None]
        boxes = jnp.concatenate([cell - sides[..., :2], cell + sides[..., 2:]], axis=-1)
        return Maps(heat.astype(jnp.float32), boxes)


class RegionNet(nn.Module):
    """Finds regions in a prepared radiograph; the sides of the image are multiples of 16 pixels."""

    variant: str = "lite0"

    def setup(self) -> None:
        """Names the parameters' subtrees "trunk" and "decoder"."""
        self.trunk = Encoder(variant=self.variant)
        self.decoder = Decoder()

    def __call__(self, image: Float[Array, "B H W 1"]) -> Maps:
        """Returns the maps, computed with running statistics."""
        return self.decoder(image, self.trunk(image), train=False)

    def encode(self, image: Float[Array, "B H W 1"]) -> tuple[Array, Array, Array]:
        """The encoder's feature maps, the decoder's input; this part of the network is not trained here."""
        return self.trunk(image)
