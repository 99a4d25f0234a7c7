"""Xception."""

from boneage_jax.models.xception import Xception
from tests.models.families import Family

FAMILY = Family(
    # keras.applications.Xception without top: 20,861,480, which counts the 54,528 running statistics.
    sizes={"xception": (20_806_952, 54_528)},
    small={"xception": {"middle_blocks": 1}},
    golden={"xception-keras": Xception},
)
