"""EfficientNet from `keras.applications`, timm (both kinds of padding) and torchvision.

EfficientNet-Lite is in timm and in `efficientnet_lite_pytorch`.
"""

from functools import partial

import jax
import numpy as np
import pytest

from boneage_jax.models.efficientnet import EfficientNet, scaled_stages
from boneage_jax.pretrained.efficientnet import efficientnet_pytorch_names, keras_names, timm_names, torchvision_names
from tests.parity import comparison

SIZES = {"b0": (224, 97), "b4": (380, 97)}
LITE_SIZES = {"lite0": (224, 97), "lite1": (240, 97), "lite2": (260, 97), "lite3": (280, 97), "lite4": (300, 97)}


def blocks_of(variant):
    """Our name for every block, with its stage (from 1) and its index in the stage (from 0)."""
    return {
        f"block{stage}{chr(ord('a') + number)}": (stage, number)
        for stage, row in enumerate(scaled_stages(variant), start=1)
        for number in range(row.blocks)
    }


def keras_original(variant, height, width):
    """All stages, without dropout and without the input normalisation, which our trunk does not have."""
    import keras

    keras.backend.clear_session()
    build = {"b0": keras.applications.EfficientNetB0, "b4": keras.applications.EfficientNetB4}[variant]
    whole = build(weights=None, include_top=False, input_shape=(height, width, 3))
    for layer in whole.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    added = {layer.name for layer in whole.layers if isinstance(layer, keras.layers.Add)}
    ends = [f"{block}_add" if f"{block}_add" in added else f"{block}_project_bn" for block in blocks_of(variant)]
    stages = [whole.get_layer(end).output for end in ("stem_bn", *ends)]
    return keras.Model(whole.get_layer("normalization").output, [*stages, whole.output])


def keras_stages(variant, model, image):
    with jax.numpy_rank_promotion("allow"):
        outputs = model(image, training=False)
    return dict(zip(["stem_bn", *blocks_of(variant), "whole"], map(np.asarray, outputs), strict=True))


def timm_original(name, momentum, height, width):
    """With a given BatchNorm momentum: for tf_ models that of the authors' code, where timm uses PyTorch's."""
    return comparison.timm().create_model(name, num_classes=0, bn_momentum=momentum)


def timm_lite_original(name, height, width):
    """With weights that preserve the scale of the activations.

    With timm's own, activations grow until ReLU6 clips nearly all of them and rounding dominates the rest.
    """
    model = timm_original(name, 0.01, height, width)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            pytest.importorskip("torch").nn.init.kaiming_normal_(parameter)
    return model


def timm_stages(variant, model, image):
    blocks = {name: f"blocks.{stage - 1}.{number}" for name, (stage, number) in blocks_of(variant).items()}
    # After the normalisation, before the activation in the same layer.
    return comparison.torch_stages(model, image, {"stem_bn": "bn1.drop", **blocks})


def torchvision_original(name, height, width):
    model = getattr(pytest.importorskip("torchvision").models, name)(weights=None, stochastic_depth_prob=0.0)
    model.classifier = pytest.importorskip("torch").nn.Identity()
    model.forward_features = model.features.forward
    return model


def torchvision_stages(variant, model, image):
    blocks = {name: f"features.{stage}.{number}" for name, (stage, number) in blocks_of(variant).items()}
    return comparison.torch_stages(model, image, {"stem_bn": "features.0.1", **blocks})


def lite_package_original(variant, height, width):
    """From the package whose weights `init_from = "imagenet"` loads; it pads for one image size."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    size = {"image_size": (height, width), "drop_connect_rate": 0.0}
    model = package.EfficientNet.from_name(f"efficientnet-{variant}", **size)
    model._fc = pytest.importorskip("torch").nn.Identity()
    model.forward_features = model.extract_features
    return model


def lite_package_stages(variant, model, image):
    blocks = {name: f"_blocks.{number}" for number, name in enumerate(blocks_of(variant))}
    return comparison.torch_stages(model, image, {"stem_bn": "_bn0", **blocks})


def timm_case(variant, name, original, **options):
    """One of timm's models, with the padding of `options`."""
    return comparison.Case(
        name=name,
        source="torch",
        trunk=partial(EfficientNet, variant=variant, **options),
        original=original,
        names=timm_names,
        stages=partial(timm_stages, variant),
        sizes=(SIZES | LITE_SIZES)[variant],
    )


def cases(variant):
    """The four originals of one variant."""
    ours, sizes = f"efficientnet_{variant}", SIZES[variant]
    keras_trunk = partial(EfficientNet, variant=variant)
    torch_trunk = partial(EfficientNet, variant=variant, framework="torch")
    return [
        comparison.Case(
            name=ours,
            source="keras",
            trunk=keras_trunk,
            original=partial(keras_original, variant),
            names=keras_names,
            stages=partial(keras_stages, variant),
            sizes=sizes,
        ),
        timm_case(variant, ours, partial(timm_original, ours, 0.1), framework="torch"),
        timm_case(variant, f"tf_{ours}", partial(timm_original, f"tf_{ours}", 0.01)),
        comparison.Case(
            name=f"torchvision_{ours}",
            source="torch",
            trunk=torch_trunk,
            original=partial(torchvision_original, ours),
            names=torchvision_names,
            stages=partial(torchvision_stages, variant),
            sizes=sizes,
        ),
    ]


def lite_case(variant):
    """EfficientNet-Lite from timm, which has the authors' weights."""
    name = f"tf_efficientnet_{variant}"
    return timm_case(variant, name, partial(timm_lite_original, name))


def lite_package_case(variant):
    """EfficientNet-Lite from `efficientnet_lite_pytorch`."""
    return comparison.Case(
        name=f"efficientnet_lite_pytorch_{variant}",
        source="torch",
        trunk=partial(EfficientNet, variant=variant),
        original=partial(lite_package_original, variant),
        names=efficientnet_pytorch_names,
        stages=partial(lite_package_stages, variant),
        sizes=LITE_SIZES[variant],
    )


CASES = [
    *(case for variant in SIZES for case in cases(variant)),
    *(lite_case(variant) for variant in LITE_SIZES),
    *(lite_package_case(variant) for variant in ("lite0", "lite2")),
]
