"""ResNet-50."""

from functools import partial

from boneage_jax.models.resnet import ResNet50
from tests.models.families import Family

FAMILY = Family(
    # timm 1.0 resnet50: 25,557,032 parameters, of which its classifier has 2,049,000.
    sizes={"resnet50": (23_508_032, 53_120)},
    small={"resnet50": {"blocks": (1, 1, 1, 1), "width": 8}},
    golden={"resnet50-keras": partial(ResNet50, framework="keras"), "resnet50-torch": ResNet50},
    padded=True,
)
