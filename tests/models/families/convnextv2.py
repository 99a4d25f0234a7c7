"""ConvNeXt V2."""

from functools import partial

from boneage_jax.models.convnextv2 import ConvNeXtV2
from tests.models.families import Family

FAMILY = Family(
    # timm 1.0 with 1,000 classes: 3,708,400, 5,233,240, 9,066,280, 15,623,800 and 28,635,496 parameters, of which
    # 1,001,000 / 1,000 per channel and two per channel of the last LayerNorm, behind the pool, are the classifier's.
    sizes={
        "convnextv2_atto": (3_708_400 - 1000 * 321 - 2 * 320, 0),
        "convnextv2_femto": (5_233_240 - 1000 * 385 - 2 * 384, 0),
        "convnextv2_nano": (15_623_800 - 1000 * 641 - 2 * 640, 0),
        "convnextv2_pico": (9_066_280 - 1000 * 513 - 2 * 512, 0),
        "convnextv2_tiny": (28_635_496 - 1000 * 769 - 2 * 768, 0),
    },
    small={"convnextv2_atto": {"variant": "micro"}},
    golden={"convnextv2_atto-torch": partial(ConvNeXtV2, variant="atto")},
)
