"""EfficientNet B0 and B4 of `keras.applications`, of timm (both kinds of padding) and of torchvision."""

from functools import partial

import jax
import numpy as np
import pytest

from boneage_jax.models.efficientnet import STAGES, VARIANTS, EfficientNet, scaled_blocks
from boneage_jax.pretrained.efficientnet import keras_names, timm_names, torchvision_names
from tests.parity import comparison

SIZES = {"b0": (224, 97), "b4": (380, 97)}


def blocks_of(variant):
    """Our name of every block, with its stage (from 1) and its number in it (from 0)."""
    return {
        f"block{stage}{chr(ord('a') + number)}": (stage, number)
        for stage, row in enumerate(STAGES, start=1)
        for number in range(scaled_blocks(row.blocks, VARIANTS[variant].depth))
    }


def keras_original(variant, height, width):
    """All stages, without the normalisation in front of them, which has no part in our trunk, and without drops."""
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
    """With the momentum of the authors' code for its tf_ models, which timm goes on to train with PyTorch's."""
    timm = pytest.importorskip("timm")
    return timm.create_model(name, num_classes=0, bn_momentum=momentum)


def timm_stages(variant, model, image):
    blocks = {name: f"blocks.{stage - 1}.{number}" for name, (stage, number) in blocks_of(variant).items()}
    # Behind the normalisation, before the activation that is part of the same layer.
    return comparison.torch_stages(model, image, {"stem_bn": "bn1.drop", **blocks})


def torchvision_original(name, height, width):
    model = getattr(pytest.importorskip("torchvision").models, name)(weights=None, stochastic_depth_prob=0.0)
    model.classifier = pytest.importorskip("torch").nn.Identity()
    model.forward_features = model.features.forward
    return model


def torchvision_stages(variant, model, image):
    blocks = {name: f"features.{stage}.{number}" for name, (stage, number) in blocks_of(variant).items()}
    return comparison.torch_stages(model, image, {"stem_bn": "features.0.1", **blocks})


def cases(variant):
    """The four originals of one variant."""
    ours, sizes = f"efficientnet_{variant}", SIZES[variant]
    keras_trunk = partial(EfficientNet, variant=variant)
    torch_trunk = partial(EfficientNet, variant=variant, framework="torch")
    timm = {"names": timm_names, "stages": partial(timm_stages, variant), "sizes": sizes}
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
        comparison.Case(ours, "torch", torch_trunk, partial(timm_original, ours, 0.1), **timm),
        comparison.Case(f"tf_{ours}", "torch", keras_trunk, partial(timm_original, f"tf_{ours}", 0.01), **timm),
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


CASES = [case for variant in SIZES for case in cases(variant)]
