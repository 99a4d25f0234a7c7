"""Names of ConvMixer's weights in timm."""

from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.pretrained.names import TORCH, leaves

_PLACES = {"depthwise": "0.fn.0", "depthwise_bn": "0.fn.2", "pointwise": "1", "pointwise_bn": "3"}


def timm_names(trunk: ConvMixer) -> dict[str, str]:
    """Maps our leaves to timm's keys: a stem, then blocks of a residual depthwise part and a pointwise part."""
    names = {}
    for path in leaves(trunk):
        last = TORCH.get(path[-1], path[-1])
        if path[0].startswith("patch_embedding"):
            key = f"stem.{2 if path[0].endswith('_bn') else 0}.{last}"
        else:
            key = f"blocks.{int(path[0].removeprefix('block')) - 1}.{_PLACES[path[1]]}.{last}"
        names["/".join(path)] = key
    return names
