"""Inception-v3 from `keras.applications` and timm, which differ in BatchNorm and average pooling."""

from functools import partial

from boneage_jax.models.inception_v3 import InceptionV3
from boneage_jax.pretrained.inception_v3 import keras_names, timm_names
from tests.parity import comparison

MIXED = [f"mixed{i}" for i in range(11)]
TIMM_MIXED = [f"Mixed_{place}" for place in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")]


def keras_original(height, width):
    import keras

    keras.backend.clear_session()
    return keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(height, width, 3))


def keras_stages(model, image):
    return comparison.keras_stages(model, image, {"stem": "max_pooling2d_1", **dict(zip(MIXED, MIXED, strict=True))})


def timm_original(height, width):
    return comparison.timm().create_model("inception_v3", num_classes=0)


def timm_stages(model, image):
    return comparison.torch_stages(model, image, {"stem": "Pool2", **dict(zip(MIXED, TIMM_MIXED, strict=True))})


CASES = [
    comparison.Case("inception_v3", "keras", InceptionV3, keras_original, keras_names, keras_stages, (299, 155)),
    # 155 pixels would leave a 3 x 3 map, whose float32 statistics are off by up to 1e-4 (float64: 5e-13).
    comparison.Case(
        "inception_v3", "torch", partial(InceptionV3, "torch"), timm_original, timm_names, timm_stages, (299, 203)
    ),
]
