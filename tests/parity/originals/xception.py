"""`keras.applications.Xception`, whose blocks end in an addition."""

from boneage_jax.models.xception import Xception
from boneage_jax.pretrained.xception import keras_names
from tests.parity import comparison


def original(height, width):
    import keras

    keras.backend.clear_session()
    return keras.applications.Xception(weights=None, include_top=False, input_shape=(height, width, 3))


def stages(model, image):
    added = [layer.name for layer in model.layers if type(layer).__name__ == "Add"]
    blocks = dict(zip([f"block{i}" for i in range(2, 14)], added, strict=True))
    return comparison.keras_stages(model, image, {"block1_conv2_bn": "block1_conv2_bn", **blocks})


CASES = [comparison.Case("xception", "keras", Xception, original, keras_names, stages, (299, 137))]
