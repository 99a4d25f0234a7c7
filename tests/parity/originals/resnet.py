"""ResNet-50 from `keras.applications` (stride in the first 1x1) and timm (stride in the 3x3)."""

from boneage_jax.models.resnet import ResNet50
from boneage_jax.pretrained.resnet import keras_names, timm_names
from tests.parity import comparison

BLOCKS = {
    f"stage{stage + 1}_block{block + 1}": (stage, block)
    for stage, blocks in enumerate(ResNet50.blocks)
    for block in range(blocks)
}


def keras_original(height, width):
    import keras

    keras.backend.clear_session()
    return keras.applications.ResNet50(weights=None, include_top=False, input_shape=(height, width, 3))


def keras_stages(model, image):
    blocks = {name: f"conv{stage + 2}_block{block + 1}_out" for name, (stage, block) in BLOCKS.items()}
    return comparison.keras_stages(model, image, {"conv1_bn": "conv1_bn", **blocks})


def timm_original(height, width):
    return comparison.timm().create_model("resnet50", num_classes=0)


def timm_stages(model, image):
    blocks = {name: f"layer{stage + 1}.{block}" for name, (stage, block) in BLOCKS.items()}
    return comparison.torch_stages(model, image, {"conv1_bn": "bn1", **blocks})


CASES = [
    comparison.Case(
        "resnet50", "keras", lambda: ResNet50(framework="keras"), keras_original, keras_names, keras_stages, (224, 97)
    ),
    comparison.Case("resnet50", "torch", ResNet50, timm_original, timm_names, timm_stages, (224, 97)),
]
