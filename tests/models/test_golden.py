"""The trunks against what their originals gave for the same weights and image."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.models.convnextv2 import ConvNeXtV2
from boneage_jax.models.efficientnet import EfficientNet
from boneage_jax.models.inception_v3 import InceptionV3
from boneage_jax.models.network import TRUNKS
from boneage_jax.models.resnet import ResNet50
from boneage_jax.models.xception import Xception
from tests.models.golden.make_golden import NAMES, SIZE, kept
from tests.parity import comparison

GOLDEN = Path(__file__).parent / "golden"
ORIGINALS = {
    "convmixer_small-torch": partial(ConvMixer, dim=24, depth=2, kernel_size=5, patch_size=4),
    "convnextv2_atto-torch": partial(ConvNeXtV2, variant="atto"),
    "efficientnet_b0-keras": partial(EfficientNet, variant="b0"),
    "efficientnet_b0-torch": partial(EfficientNet, variant="b0", framework="torch"),
    "inception_v3-keras": InceptionV3,
    "inception_v3-torch": partial(InceptionV3, framework="torch"),
    "resnet50-keras": partial(ResNet50, framework="keras"),
    "resnet50-torch": ResNet50,
    "tf_efficientnet_lite0-torch": partial(EfficientNet, variant="lite0"),
    "xception-keras": Xception,
}


def test_every_registered_family_has_golden_arrays():
    assert set(ORIGINALS) == set(NAMES) == {path.stem for path in GOLDEN.glob("*.npz")}
    families = {type(make()) for make in ORIGINALS.values()}
    # BoNet without a heat map is InceptionV3, which its own test shows; CompactResNet is ours, and the original itself.
    assert families == {type(make()) for name, make in TRUNKS.items() if name not in ("bonet", "compact_resnet")}


@pytest.mark.parametrize("name", ORIGINALS)
def test_every_stage_equals_the_original(name):
    expected = dict(np.load(GOLDEN / f"{name}.npz"))
    trunk, image = ORIGINALS[name](), comparison.image(*SIZE)
    layers = [stage for stage in expected if stage != "whole"]
    actual = comparison.stages(trunk, comparison.filled(trunk, comparison.drawn), image, layers)
    for number, (stage, values) in enumerate(expected.items()):
        found = kept(actual[stage])
        assert comparison.relative_error(found, values) <= (1e-5 if number == 0 else 1e-4), stage


def test_golden_arrays_stay_small():
    assert sum(path.stat().st_size for path in GOLDEN.glob("*.npz")) < 2**20
