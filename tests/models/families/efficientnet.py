"""EfficientNet and EfficientNet-Lite."""

from functools import partial

from boneage_jax.models.efficientnet import EfficientNet
from tests.models.families import Family

FAMILY = Family(
    # keras.applications without top: 4,049,571 and 17,673,823, with 7 of the normalisation in front of it;
    # timm 1.0 with its classifier: 5,288,548 and 19,341,616 parameters. timm 1.0 tf_efficientnet_lite0 to 4 with
    # their classifier of 1,281,000 parameters; their running statistics.
    sizes={
        "efficientnet_b0": (5_288_548 - 1000 * 1281, 4_049_571 - 7 - (5_288_548 - 1000 * 1281)),
        "efficientnet_b4": (19_341_616 - 1000 * 1793, 17_673_823 - 7 - (19_341_616 - 1000 * 1793)),
        "efficientnet_lite0": (4_652_008 - 1000 * 1281, 42_016),
        "efficientnet_lite1": (5_416_680 - 1000 * 1281, 53_664),
        "efficientnet_lite2": (6_092_072 - 1000 * 1281, 58_096),
        "efficientnet_lite3": (8_197_096 - 1000 * 1281, 76_672),
        "efficientnet_lite4": (13_006_568 - 1000 * 1281, 112_368),
    },
    small={"efficientnet_b0": {"variant": "tiny"}, "efficientnet_lite0": {"variant": "tiny_lite"}},
    golden={
        "efficientnet_b0-keras": partial(EfficientNet, variant="b0"),
        "efficientnet_b0-torch": partial(EfficientNet, variant="b0", framework="torch"),
        "tf_efficientnet_lite0-torch": partial(EfficientNet, variant="lite0"),
    },
    padded=True,
)
