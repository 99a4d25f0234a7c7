"""Names of ResNet-50's weights in `keras.applications`, and in timm and torchvision, which agree."""

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.resnet import ResNet50
from boneage_jax.pretrained.names import KERAS_NORM, TORCH, leaves

_KERAS_LAYERS = {
    "shortcut": "0_conv",
    "shortcut_bn": "0_bn",
    **{f"conv{i}": f"{i}_conv" for i in (1, 2, 3)},
    **{f"conv{i}_bn": f"{i}_bn" for i in (1, 2, 3)},
}
_TORCH_LAYERS = {
    "shortcut": "downsample.0",
    "shortcut_bn": "downsample.1",
    **{f"conv{i}": f"conv{i}" for i in (1, 2, 3)},
    **{f"conv{i}_bn": f"bn{i}" for i in (1, 2, 3)},
}


def keras_names(trunk: ResNet50) -> dict[str, str]:
    """Maps our leaves to Keras' "<layer>/<variable>"; our stem is Keras' conv1, our stage 1 its conv2.

    Raises:
        BoneAgeError: the trunk's framework is "torch".
    """
    _check(trunk, "keras")
    names = {}
    for *layers, leaf in leaves(trunk):
        if len(layers) == 1:
            layer = {"conv1": "conv1_conv", "conv1_bn": "conv1_bn"}[layers[0]]
        else:
            stage, block = _place(layers[0])
            layer = f"conv{stage + 1}_block{block}_{_KERAS_LAYERS[layers[1]]}"
        names["/".join([*layers, leaf])] = f"{layer}/{KERAS_NORM.get(leaf, leaf) if layer.endswith('_bn') else leaf}"
    return names


def timm_names(trunk: ResNet50) -> dict[str, str]:
    """Maps our leaves to the keys in timm's and torchvision's state dict.

    Raises:
        BoneAgeError: the trunk's framework is "keras".
    """
    _check(trunk, "torch")
    names = {}
    for *layers, leaf in leaves(trunk):
        if len(layers) == 1:
            layer = _TORCH_LAYERS[layers[0]]
        else:
            stage, block = _place(layers[0])
            layer = f"layer{stage}.{block - 1}.{_TORCH_LAYERS[layers[1]]}"
        names["/".join([*layers, leaf])] = f"{layer}.{TORCH.get(leaf, leaf)}"
    return names


def _place(block: str) -> tuple[int, int]:
    """Stage and number of a block, "stage2_block3" to (2, 3)."""
    stage, number = block.removeprefix("stage").split("_block")
    return int(stage), int(number)


def _check(trunk: ResNet50, framework: str) -> None:
    if trunk.framework != framework:
        raise BoneAgeError(
            f'these weights belong to ResNet50 with model.options.framework = "{framework}", and it is '
            f'"{trunk.framework}"; the two stride in different convolutions'
        )
