"""A network is a trunk (image to feature map) and a head (feature map, sex and other inputs to months)."""

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from boneage_jax.errors import BoneAgeError, did_you_mean
from boneage_jax.models.bonet import BoNet
from boneage_jax.models.compact_resnet import CompactResNet
from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.models.convnextv2 import ConvNeXtV2
from boneage_jax.models.efficientnet import EfficientNet
from boneage_jax.models.heads import Distribution, Estimate, Joints, Regression, Relative, SexSplitDistribution
from boneage_jax.models.inception_v3 import InceptionV3
from boneage_jax.models.inputs import Input, check_inputs
from boneage_jax.models.joint_crops import JointCrops
from boneage_jax.models.resnet import ResNet50
from boneage_jax.models.xception import Xception

# A trunk: module(image [B, H, W, C], train=...) -> [B, h, w, c]; it takes axis_name, remat and dtype.
# With its option `heatmap` on: module(image, heatmap [B, H, W, 1], train=...).
TRUNKS: dict[str, Callable[..., nn.Module]] = {
    "bonet": BoNet,
    "compact_resnet": CompactResNet,
    "convmixer": ConvMixer,
    "convnextv2_atto": partial(ConvNeXtV2, variant="atto"),
    "convnextv2_femto": partial(ConvNeXtV2, variant="femto"),
    "convnextv2_nano": partial(ConvNeXtV2, variant="nano"),
    "convnextv2_pico": partial(ConvNeXtV2, variant="pico"),
    "convnextv2_tiny": partial(ConvNeXtV2, variant="tiny"),
    "efficientnet_b0": partial(EfficientNet, variant="b0"),
    "efficientnet_b4": partial(EfficientNet, variant="b4"),
    "efficientnet_lite0": partial(EfficientNet, variant="lite0"),
    "efficientnet_lite1": partial(EfficientNet, variant="lite1"),
    "efficientnet_lite2": partial(EfficientNet, variant="lite2"),
    "efficientnet_lite3": partial(EfficientNet, variant="lite3"),
    "efficientnet_lite4": partial(EfficientNet, variant="lite4"),
    "inception_v3": InceptionV3,
    "joint_crops": JointCrops,
    "resnet50": ResNet50,
    "xception": Xception,
}
# A head: module(features, sex [B], inputs, train=...) -> Estimate; it takes inputs, label_mean, label_std and dtype.
HEADS: dict[str, Callable[..., nn.Module]] = {
    "distribution": Distribution,
    "joints": Joints,
    "regression": Regression,
    "relative": Relative,
    "sex_split_distribution": SexSplitDistribution,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
INPUT_CHANNELS = ("native", "rgb")
LARGEST_MONTHS = 600.0
"""Estimates of a larger magnitude are invalid: bone ages end at about 20 years."""
# Arguments of the modules that are not options: flax's own, and those that `create` gives to every module.
_SHARED = {"parent", "name", "axis_name", "remat", "dtype", "inputs", "label_mean", "label_std"}


class Network(nn.Module):
    """A trunk and a head; parameters and batch statistics are stored under "trunk" and "head"."""

    trunk: nn.Module
    head: nn.Module
    input_channels: str = "native"
    inputs: tuple[Input, ...] = ()

    def __call__(
        self,
        image: Float[Array, "B H W C"],
        sex: Int[Array, "..."],
        inputs: Mapping[str, Array] | None = None,
        *,
        train: bool,
    ) -> Estimate:
        """Estimates the bone age.

        Args:
            image: radiographs as `Preprocessing.scale` returns them.
            sex: [B], 0 for girls, 1 for boys.
            inputs: further inputs by name, as `Input` describes them; None if the network has none.
            train: use batch statistics and dropout, as in training (mutable "batch_stats", a "dropout" key).

        Raises:
            BoneAgeError: `sex` or an input does not have one value per image, an input is missing or
                unknown, or the images do not fit the trunk.
        """
        if sex.shape != image.shape[:1]:
            raise BoneAgeError(
                f"sex has the shape {sex.shape}, expected {image.shape[:1]}: a 0 (girl) or 1 (boy) per image"
            )
        given = inputs or {}
        check_inputs(self.inputs, given)
        features = self.features(image, given, train=train)
        for_head = {i.name: _fitting(i, given[i.name], image) for i in self.inputs if i.kind != "heatmap"}
        return self.head(features, sex, for_head, train=train)

    def features(
        self, image: Float[Array, "B H W C"], inputs: Mapping[str, Array] | None = None, *, train: bool
    ) -> Float[Array, "B h w c"]:
        """The trunk's feature map before pooling, the input of heads, heat maps and retrieval.

        Only a heat map is read from the further inputs.
        """
        heatmaps = [i for i in self.inputs if i.kind == "heatmap"]
        given = {i.name: inputs[i.name] for i in heatmaps if inputs and i.name in inputs}
        check_inputs(heatmaps, given)
        for_trunk = [_fitting(i, given[i.name], image) for i in heatmaps]
        if self.input_channels == "rgb":
            image = _as_rgb(image)
        features = self.trunk(image, *for_trunk, train=train)
        if 0 in features.shape:
            height, width = image.shape[1:3]
            trunk = type(self.trunk).__name__
            raise BoneAgeError(f"images of {height} x {width} pixels are too small for {trunk}; use larger ones")
        return features


def names() -> list[str]:
    """Names that `create` knows, in alphabetical order."""
    return sorted(TRUNKS)


@dataclasses.dataclass(frozen=True)
class Description:
    """The complete configuration of a network, stored in weights files and checkpoints.

    Attributes:
        name: a registered trunk, see `names`.
        options: of the trunk.
        head: a registered head.
        head_options: of the head.
        dtype: type of the computation, "float32" or "bfloat16"; parameters and batch statistics stay float32.
        input_channels: "native" takes the image as it is; "rgb" repeats a single channel to three.
        inputs: further inputs besides image and sex; a heat map goes to the trunk, everything else to the head.
        label_mean: mean of the training labels, months.
        label_std: standard deviation of the training labels, months.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    head: str = "regression"
    head_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dtype: str = "float32"
    input_channels: str = "native"
    inputs: tuple[Input, ...] = ()
    label_mean: float = 0.0
    label_std: float = 1.0

    def network(self, *, axis_name: str | None = None, remat: bool = False) -> Network:
        """Makes the network; the arguments only affect training.

        Args:
            axis_name: mapped axis over which BatchNorm's statistics are averaged; None keeps them per device.
            remat: rematerialise whole blocks in the backward pass, convolutions too: less memory, more time.

        Raises:
            BoneAgeError: a name, an option or a value is invalid, or the parts do not fit together.
        """
        trunk = TRUNKS[_known("model", self.name, TRUNKS)]
        head = HEADS[_known("head", self.head, HEADS)]
        dtype = DTYPES[_known("dtype", self.dtype, DTYPES)]
        _known("input_channels", self.input_channels, INPUT_CHANNELS)
        if not self.label_std > 0:
            raise BoneAgeError(f"label_std is {self.label_std}, expected a standard deviation above 0 months")
        options = _checked(f"model {self.name!r}", trunk, self.options)
        head_options = _checked(f"head {self.head!r}", head, self.head_options)
        for_head = tuple(i for i in self.inputs if i.kind != "heatmap")
        labels = {"label_mean": self.label_mean, "label_std": self.label_std}
        network = Network(
            trunk=trunk(**options, axis_name=axis_name, remat=remat, dtype=dtype),
            head=head(**head_options, **labels, inputs=for_head, dtype=dtype),
            input_channels=self.input_channels,
            inputs=self.inputs,
        )
        _check_wiring(self.name, network)
        return network

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, to be stored with the weights."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Description":
        """The inverse of `to_dict`; `network` turns lists into tuples again.

        Raises:
            ValueError, TypeError, KeyError, BoneAgeError: fields are missing, unknown or of the wrong type, or the
                label statistics are out of range.
        """
        inputs = (Input(**{**spec, "categories": tuple(spec["categories"])}) for spec in fields["inputs"])
        description = cls(**{**fields, "inputs": tuple(inputs)})
        mean, std = float(description.label_mean), float(description.label_std)
        if not (0 <= mean <= LARGEST_MONTHS and 0 < std <= LARGEST_MONTHS):
            raise ValueError(f"labels with the mean {mean:g} and the standard deviation {std:g} months")
        return description


def create(name: str, *, axis_name: str | None = None, remat: bool = False, **settings: Any) -> Network:
    """Short for `Description(name, ...).network(...)`; settings that are not its fields become options of the trunk.

    model = create("convmixer", dim=256, depth=8, label_mean=127.3, label_std=41.2)
    image, sex = jnp.zeros((1, 256, 256, 1)), jnp.zeros(1, jnp.int32)
    variables = model.init(jax.random.key(0), image, sex, train=False)
    months = model.apply(variables, image, sex, train=False).months
    """
    fields = {field.name for field in dataclasses.fields(Description)} - {"options"}
    options = {key: value for key, value in settings.items() if key not in fields}
    described = {key: value for key, value in settings.items() if key in fields}
    return Description(name, options=options, **described).network(axis_name=axis_name, remat=remat)


def _check_wiring(name: str, network: Network) -> None:
    """Raises BoneAgeError unless input names are unique and a heat map is given exactly if the trunk reads one."""
    given = [i.name for i in network.inputs]
    if repeated := sorted({i for i in given if given.count(i) > 1}):
        raise BoneAgeError(f"the further input {', '.join(repeated)} is configured more than once")
    heatmaps = [i.name for i in network.inputs if i.kind == "heatmap"]
    reads_one = bool(getattr(network.trunk, "heatmap", False))
    if len(heatmaps) != reads_one:
        raise BoneAgeError(
            f"model {name!r} with these options reads {'one' if reads_one else 'no'} heat map, but the inputs of kind "
            f'"heatmap" are: {", ".join(heatmaps) or "none"}; the model "bonet" with the option heatmap=True reads one'
        )


def _fitting(spec: Input, value: Array, image: Float[Array, "B H W C"]) -> Array:
    expected = (*image.shape[:3], 1) if spec.kind == "heatmap" else image.shape[:1]
    if value.shape != expected:
        raise BoneAgeError(f"the input {spec.name!r} ({spec.kind}) has the shape {value.shape}, expected {expected}")
    return value


def _as_rgb(image: Float[Array, "B H W C"]) -> Float[Array, "B H W 3"]:
    channels = image.shape[-1]
    if channels not in (1, 3):
        raise BoneAgeError(f'input_channels "rgb" takes images of 1 or 3 channels, got {channels}; use "native"')
    return jnp.repeat(image, 3 // channels, axis=-1)


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    if name in known:
        return name
    raise BoneAgeError(f"unknown {kind} {name!r}; known: {', '.join(known)}{did_you_mean(name, known)}")


def _checked(owner: str, factory: Callable[..., nn.Module], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, after checking that they exist and have their default's type; lists become tuples, as flax needs."""
    parameters = inspect.signature(factory).parameters
    defaults = {key: p.default for key, p in parameters.items() if key not in _SHARED}
    checked = {}
    for key, value in options.items():
        default = defaults[_known(f"option of {owner}", key, defaults)]
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        elif isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default) or not _sizes_are_positive(value):
            raise BoneAgeError(f"option {key} of {owner} is {value!r}, expected {_expected(default)}")
        checked[key] = value
    return checked


def _expected(default: Any) -> str:
    if isinstance(default, bool):
        return "True or False"
    kind = "whole numbers above 0" if isinstance(default, int | tuple) else type(default).__name__
    return f"{kind} such as {default!r}"


def _sizes_are_positive(value: Any) -> bool:
    """Whether the whole numbers in an option, which are all sizes or counts, are above 0."""
    if isinstance(value, tuple):
        return all(type(size) is int and size > 0 for size in value)
    return type(value) is not int or value > 0
