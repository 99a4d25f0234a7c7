"""timm's ConvMixer: the published 768/32 (with ReLU), and a small one with GELU."""

import torch
from timm.models.convmixer import ConvMixer as Original

from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.pretrained.convmixer import timm_names
from parity import comparison

SMALL = {"dim": 24, "depth": 2, "kernel_size": 5, "patch_size": 4}


def stages(model, image):
    blocks = {f"block{i + 1}": f"blocks.{i}" for i in range(len(model.blocks))}
    return comparison.torch_stages(model, image, {"patch_embedding_bn": "stem.2", **blocks})


def published(height, width):
    return Original(dim=768, depth=32, kernel_size=7, patch_size=7, act_layer=torch.nn.ReLU, num_classes=0)


def small(height, width):
    return Original(**SMALL, num_classes=0)


CASES = [
    comparison.Case(
        "convmixer", "torch", lambda: ConvMixer(activation="relu"), published, timm_names, stages, (224, 99)
    ),
    comparison.Case("convmixer small", "torch", lambda: ConvMixer(**SMALL), small, timm_names, stages, (64, 61)),
]
