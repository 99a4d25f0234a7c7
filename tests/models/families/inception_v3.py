"""InceptionV3."""

from functools import partial

from boneage_jax.models.inception_v3 import InceptionV3
from tests.models.families import Family

FAMILY = Family(
    # keras.applications.InceptionV3 without top: 21,802,784, of which 34,432 running statistics.
    sizes={"inception_v3": (21_768_352, 34_432)},
    small={"inception_v3": {}},
    golden={
        "inception_v3-keras": InceptionV3,
        "inception_v3-torch": partial(InceptionV3, framework="torch"),
    },
    large=True,
)
