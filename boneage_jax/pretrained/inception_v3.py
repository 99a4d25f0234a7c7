"""Names of Inception-v3's weights in `keras.applications`, and in timm and torchvision, which agree."""

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.inception_v3 import InceptionV3
from boneage_jax.pretrained.names import KERAS_NORM, TORCH

_STEM = ("conv1a_3x3", "conv2a_3x3", "conv2b_3x3", "conv3b_1x1", "conv4a_3x3")
# In the order in which Keras creates, and therefore numbers, the layers: mixed0 first.
_A = (
    "branch1x1",
    *("branch5x5_1", "branch5x5_2"),
    *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    "branch_pool",
)
_B = ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
_C = (
    "branch1x1",
    *("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    *("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
    "branch_pool",
)
_D = ("branch3x3_1", "branch3x3_2", "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4")
_E = (
    "branch1x1",
    *("branch3x3_1", "branch3x3_2a", "branch3x3_2b"),
    *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b"),
    "branch_pool",
)
_MIXED = (_A, _A, _A, _B, _C, _C, _C, _C, _D, _E, _E)
_TORCH_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def keras_names(trunk: InceptionV3) -> dict[str, str]:
    """Maps our leaves to Keras' "<layer>/<variable>"; Keras only numbers these layers.

    BoNet's heat-map stem and the convolution that joins the two stems are not mapped, because no file has them.

    Raises:
        BoneAgeError: the trunk's framework is "torch".
    """
    _check(trunk, "keras")
    names = {}
    units = [("stem", unit) for unit in _STEM]
    units += [(f"mixed{i}", unit) for i, block in enumerate(_MIXED) for unit in block]
    for i, (place, unit) in enumerate(units):
        number = f"_{i}" if i else ""
        names[f"{place}/{unit}/conv/kernel"] = f"conv2d{number}/kernel"
        for leaf in ("bias", "mean", "var"):
            names[f"{place}/{unit}/bn/{leaf}"] = f"batch_normalization{number}/{KERAS_NORM[leaf]}"
    return names


def timm_names(trunk: InceptionV3) -> dict[str, str]:
    """Maps our leaves to the keys in timm's and torchvision's state dict.

    BoNet's heat-map stem and the convolution that joins the two stems are not mapped, because no file has them.

    Raises:
        BoneAgeError: the trunk's framework is "keras".
    """
    _check(trunk, "torch")
    modules = {f"stem/{unit}": f"Conv2d_{unit.removeprefix('conv')}" for unit in _STEM}
    for i, block in enumerate(_MIXED):
        modules |= {f"mixed{i}/{unit}": f"Mixed_{_TORCH_MIXED[i]}.{unit}" for unit in block}
    leaves = ("conv/kernel", "bn/scale", "bn/bias", "bn/mean", "bn/var")
    return {f"{unit}/{leaf}": _torch_key(module, leaf) for unit, module in modules.items() for leaf in leaves}


def _torch_key(module: str, leaf: str) -> str:
    layer, variable = leaf.split("/")
    return f"{module}.{layer}.{TORCH.get(variable, variable)}"


def _check(trunk: InceptionV3, framework: str) -> None:
    if trunk.framework != framework:
        raise BoneAgeError(
            f'these weights belong to {type(trunk).__name__} with model.options.framework = "{framework}", and it is '
            f'"{trunk.framework}"; the two normalise and pool differently'
        )
