"""One EfficientNet for crops around the joints of a hand, because readers rate bone by bone; not from a paper."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax.models.efficientnet import EfficientNet


class JointCrops(EfficientNet):
    """One `EfficientNet` for all crops, stored as the image's channels: [B, H, W, R] to [B, R, H W / 32^2, D].

    The parameters and their names are those of the EfficientNet with one input channel, so training can start from the
    weights of a whole-hand network. A constant crop, such as that of a joint that was not found, gives zeros.
    """

    variant: str = "lite0"

    def __call__(self, image: Float[Array, "B H W R"], *, train: bool) -> Float[Array, "B R n D"]:
        """Needs a "dropout" key when it trains with `drop_path` above 0."""
        batch, height, width, crops = image.shape
        each = jnp.moveaxis(image, -1, 1).reshape(batch * crops, height, width, 1)
        maps = super().__call__(each, train=train)  # [B R, H/32, W/32, D]
        seen = (each.max(axis=(1, 2, 3)) > each.min(axis=(1, 2, 3)))[:, None, None, None]
        return jnp.where(seen, maps, 0).reshape(batch, crops, -1, maps.shape[-1])
