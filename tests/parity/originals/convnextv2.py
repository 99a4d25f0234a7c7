"""timm's ConvNeXt V2: atto, and tiny, for which timm uses linear layers in place of 1x1 convolutions."""

from functools import partial

import pytest

from boneage_jax.models.convnextv2 import VARIANTS, ConvNeXtV2
from boneage_jax.pretrained.convnextv2 import timm_names
from tests.parity import comparison


def original(variant, height, width):
    """The model without its classifier and the LayerNorm after global pooling."""
    torch, timm = pytest.importorskip("torch"), comparison.timm()
    torch.manual_seed(0)
    model = timm.create_model(f"convnextv2_{variant}", num_classes=0)
    model.head = torch.nn.Identity()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            # With the initial scale of 0.02, the blocks would add almost nothing to their shortcuts.
            torch.nn.init.kaiming_normal_(parameter)
    return model


def stages(variant, model, image):
    blocks = {
        f"stage{stage + 1}_block{block + 1}": f"stages.{stage}.blocks.{block}"
        for stage, depth in enumerate(VARIANTS[variant].depths)
        for block in range(depth)
    }
    return comparison.torch_stages(model, image, {"stem_norm": "stem.1", **blocks})


CASES = [
    comparison.Case(
        name=f"convnextv2_{variant}",
        source="torch",
        trunk=partial(ConvNeXtV2, variant=variant),
        original=partial(original, variant),
        names=timm_names,
        stages=partial(stages, variant),
        sizes=(224, 99),
    )
    for variant in ("atto", "tiny")
]
