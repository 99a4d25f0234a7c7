"""Names of EfficientNet's weights in `keras.applications`, timm, torchvision and `efficientnet_pytorch`."""

import itertools

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.efficientnet import STAGES, EfficientNet, scaled_stages
from boneage_jax.pretrained.names import KERAS_NORM, TORCH, leaves

_KERAS_LAYERS = {
    "expand": "expand_conv",
    "expand_bn": "expand_bn",
    "depthwise": "dwconv",
    "depthwise_bn": "bn",
    "squeeze_excite/reduce": "se_reduce",
    "squeeze_excite/expand": "se_expand",
    "project": "project_conv",
    "project_bn": "project_bn",
}
_TIMM_LAYERS = {
    "expand": "conv_pw",
    "expand_bn": "bn1",
    "depthwise": "conv_dw",
    "depthwise_bn": "bn2",
    "squeeze_excite/reduce": "se.conv_reduce",
    "squeeze_excite/expand": "se.conv_expand",
    "project": "conv_pwl",
    "project_bn": "bn3",
}
# Stage 1 has no expansion, so its layers are numbered from the depthwise one.
_TIMM_UNEXPANDED = _TIMM_LAYERS | {"depthwise_bn": "bn1", "project": "conv_pw", "project_bn": "bn2"}
_TORCHVISION_LAYERS = {
    "expand": (0, "0"),
    "expand_bn": (0, "1"),
    "depthwise": (1, "0"),
    "depthwise_bn": (1, "1"),
    "squeeze_excite/reduce": (2, "fc1"),
    "squeeze_excite/expand": (2, "fc2"),
    "project": (3, "0"),
    "project_bn": (3, "1"),
}
_EFFICIENTNET_PYTORCH_LAYERS = {
    "expand": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "squeeze_excite/reduce": "_se_reduce",
    "squeeze_excite/expand": "_se_expand",
    "project": "_project_conv",
    "project_bn": "_bn2",
}
_TIMM_ENDS = {"stem_conv": "conv_stem", "stem_bn": "bn1", "top_conv": "conv_head", "top_bn": "bn2"}
_TORCHVISION_ENDS = {
    "stem_conv": "features.0.0",
    "stem_bn": "features.0.1",
    "top_conv": f"features.{len(STAGES) + 1}.0",
    "top_bn": f"features.{len(STAGES) + 1}.1",
}
_EFFICIENTNET_PYTORCH_ENDS = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1"}


def keras_names(trunk: EfficientNet) -> dict[str, str]:
    """Maps our leaves to Keras' "<layer>/<variable>".

    The three variables of Keras' layer "normalization" have no counterpart here: they are its input scaling.

    Raises:
        BoneAgeError: the trunk's framework is "torch".
    """
    _check(trunk, "keras")
    names = {}
    for block, *layers, leaf in leaves(trunk):
        layer = f"{block}_{_KERAS_LAYERS['/'.join(layers)]}" if layers else block
        names["/".join([block, *layers, leaf])] = (
            f"{layer}/{KERAS_NORM.get(leaf, leaf) if layer.endswith('bn') else leaf}"
        )
    return names


def timm_names(trunk: EfficientNet) -> dict[str, str]:
    """Maps our leaves to timm's keys, for both frameworks.

    The keys of timm's `efficientnet_b0` (`framework="torch"`) and `tf_efficientnet_b0` (`framework="keras"`) are
    the same, so only the user knows which of them a file belongs to.
    """
    names = {}
    for block, *layers, leaf in leaves(trunk):
        if layers:
            stage, number = _place(block)
            known = _TIMM_LAYERS if STAGES[stage - 1].expansion > 1 else _TIMM_UNEXPANDED
            layer = f"blocks.{stage - 1}.{number}.{known['/'.join(layers)]}"
        else:
            layer = _TIMM_ENDS[block]
        names["/".join([block, *layers, leaf])] = f"{layer}.{TORCH.get(leaf, leaf)}"
    return names


def efficientnet_pytorch_names(trunk: EfficientNet) -> dict[str, str]:
    """Maps our leaves to the keys of `efficientnet_pytorch` and `efficientnet_lite_pytorch`, which number all blocks.

    Raises:
        BoneAgeError: the trunk's framework is "torch"; these packages are ports of the authors' weights.
    """
    _check(trunk, "keras")
    firsts = [0, *itertools.accumulate(stage.blocks for stage in scaled_stages(trunk.variant))]
    names = {}
    for block, *layers, leaf in leaves(trunk):
        if layers:
            stage, number = _place(block)
            layer = f"_blocks.{firsts[stage - 1] + number}.{_EFFICIENTNET_PYTORCH_LAYERS['/'.join(layers)]}"
        else:
            layer = _EFFICIENTNET_PYTORCH_ENDS[block]
        names["/".join([block, *layers, leaf])] = f"{layer}.{TORCH.get(leaf, leaf)}"
    return names


def torchvision_names(trunk: EfficientNet) -> dict[str, str]:
    """Maps our leaves to torchvision's keys, which number all layers.

    Raises:
        BoneAgeError: the trunk's framework is "keras".
    """
    _check(trunk, "torch")
    names = {}
    for block, *layers, leaf in leaves(trunk):
        if layers:
            stage, number = _place(block)
            part, last = _TORCHVISION_LAYERS["/".join(layers)]
            part -= STAGES[stage - 1].expansion == 1
            layer = f"features.{stage}.{number}.block.{part}.{last}"
        else:
            layer = _TORCHVISION_ENDS[block]
        names["/".join([block, *layers, leaf])] = f"{layer}.{TORCH.get(leaf, leaf)}"
    return names


def _place(block: str) -> tuple[int, int]:
    """Stage and number of a block, "block3b" to (3, 1)."""
    return int(block[5]), ord(block[6]) - ord("a")


def _check(trunk: EfficientNet, framework: str) -> None:
    if trunk.framework != framework:
        raise BoneAgeError(
            f'these weights belong to EfficientNet with model.options.framework = "{framework}", and it is '
            f'"{trunk.framework}"; the two pad their images differently'
        )
