"""ConvMixer."""

from functools import partial

from boneage_jax.models.convmixer import ConvMixer
from tests.models.families import Family

FAMILY = Family(
    # timm 1.0 convmixer_768_32: 21,110,248 parameters, of which its classifier has 769,000.
    sizes={"convmixer": (20_341_248, 99_840)},
    small={"convmixer": {"dim": 16, "depth": 2, "kernel_size": 5, "patch_size": 4}},
    golden={"convmixer_small-torch": partial(ConvMixer, dim=24, depth=2, kernel_size=5, patch_size=4)},
)
