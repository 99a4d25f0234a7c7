"""timm's ConvMixer: the published 768/32 (with ReLU), and a small one with GELU."""

from typing import Any

from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.pretrained.convmixer import timm_names
from tests.parity import comparison

SMALL: dict[str, Any] = {"dim": 24, "depth": 2, "kernel_size": 5, "patch_size": 4}


def published(height, width):
    return comparison.timm().create_model("convmixer_768_32", num_classes=0)


def small(height, width):
    comparison.timm()
    from timm.models.convmixer import ConvMixer as Original

    return Original(**SMALL, num_classes=0)


def stages(model, image):
    blocks = {f"block{i + 1}": f"blocks.{i}" for i in range(len(model.blocks))}
    return comparison.torch_stages(model, image, {"patch_embedding_bn": "stem.2", **blocks})


CASES = [
    comparison.Case(
        "convmixer", "torch", lambda: ConvMixer(activation="relu"), published, timm_names, stages, (224, 155)
    ),
    comparison.Case("convmixer_small", "torch", lambda: ConvMixer(**SMALL), small, timm_names, stages, (64, 61)),
]
