"""Names of ConvNeXt V2's weights in timm, and in the authors' own files.

Both contain more keys: those with the prefix "head." and, in the authors' files, "norm." belong to the classifier.
"""

from boneage_jax.models.convnextv2 import ConvNeXtV2
from boneage_jax.pretrained.names import TORCH, leaves

_TIMM_LAYERS = {"depthwise": "conv_dw", "norm": "norm", "expand": "mlp.fc1", "grn": "mlp.grn", "project": "mlp.fc2"}
_TIMM_LEAVES = TORCH | {"gamma": "weight", "beta": "bias"}
_FAIR_LAYERS = {"depthwise": "dwconv", "norm": "norm", "expand": "pwconv1", "grn": "grn", "project": "pwconv2"}


def timm_names(trunk: ConvNeXtV2) -> dict[str, str]:
    """Maps our leaves to timm's keys, e.g. of `convnextv2_tiny.fcmae_ft_in22k_in1k`."""
    names = {}
    for *layers, leaf in leaves(trunk):
        if len(layers) == 2:
            stage, block = _place(layers[0])
            layer = f"stages.{stage}.blocks.{block}.{_TIMM_LAYERS[layers[1]]}"
        else:
            stage, number = _between(layers[0])
            layer = f"stages.{stage}.downsample.{number}" if stage else f"stem.{number}"
        names["/".join([*layers, leaf])] = f"{layer}.{_TIMM_LEAVES.get(leaf, leaf)}"
    return names


def fair_names(trunk: ConvNeXtV2) -> dict[str, str]:
    """Maps our leaves to the authors' keys, e.g. of `convnextv2_tiny_22k_224_ema.pt`, where all are under "model"."""
    names = {}
    for *layers, leaf in leaves(trunk):
        if len(layers) == 2:
            stage, block = _place(layers[0])
            layer = f"stages.{stage}.{block}.{_FAIR_LAYERS[layers[1]]}"
        else:
            stage, number = _between(layers[0])
            layer = f"downsample_layers.{stage}.{number}"
        names["/".join([*layers, leaf])] = f"{layer}.{TORCH.get(leaf, leaf)}"
    return names


def _place(block: str) -> tuple[int, int]:
    """Stage and block counted from 0, "stage2_block3" to (1, 2)."""
    stage, number = block.removeprefix("stage").split("_block")
    return int(stage) - 1, int(number) - 1


def _between(layer: str) -> tuple[int, int]:
    """The stage that a layer precedes, and the layer's index; the norm comes last in the stem, first elsewhere."""
    is_norm = layer.endswith("_norm")
    if layer.startswith("stem"):
        return 0, int(is_norm)
    return int(layer.removeprefix("downsample").removesuffix("_norm")) - 1, int(not is_norm)
