"""BoNet (Escobar et al., "Hand Pose Estimation for Pediatric Bone Age Assessment", MICCAI 2019, figure 3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.inception_v3 import ConvUnit, InceptionV3


class BoNet(InceptionV3):
    """Inception-v3 with an optional second stem for a heat map of the hand's 17 key points.

    With `heatmap`, a 1x1 convolution joins the maps of the two stems before the first mixed block. Without it
    the network is `InceptionV3`, as in the part of the paper that works on radiographs alone. The published
    weights are PyTorch's: `framework="torch"`.
    """

    heatmap: bool = False

    @nn.compact
    def __call__(
        self, image: Float[Array, "B H W C"], heatmap: Float[Array, "..."] | None = None, *, train: bool
    ) -> Float[Array, "B h w 2048"]:
        """Returns the channels of the last mixed block, before pooling.

        Args:
            image: radiographs, scaled to [-1, 1].
            heatmap: [B, H, W, 1] in 0 to 1, high at the key points; required with the option `heatmap`, else None.
            train: normalise with the batch's statistics, as in training (mutable "batch_stats").

        Raises:
            BoneAgeError: a heat map is missing, unexpected, or not of the image's size.
        """
        norm = self.norm(train)
        x = self.stem_layer("stem", norm, train=train)(image)  # [B, H/8, W/8, 192]
        if self.heatmap:
            points = self.stem_layer("heatmap_stem", norm, train=train)(self._checked(heatmap, image.shape))
            x = jnp.concatenate([x, points], axis=-1)  # [B, H/8, W/8, 384]
            x = ConvUnit(192, (1, 1), norm=norm, dtype=self.dtype, name="conv5a_1x1")(x)
        elif heatmap is not None:
            raise BoneAgeError("BoNet got a heat map but was made without a stem for it; set its option heatmap=True")
        return self.mixed_flow(x, norm, train=train)

    def _checked(self, heatmap: Float[Array, "..."] | None, image_shape: tuple[int, ...]) -> Float[Array, "B H W 1"]:
        if heatmap is None:
            raise BoneAgeError("BoNet was made with heatmap=True but got no heat map; give one or set heatmap=False")
        expected = (*image_shape[:3], 1)
        if heatmap.shape != expected:
            raise BoneAgeError(f"the heat map has the shape {heatmap.shape}, expected {expected}: the image's size")
        return heatmap
