"""ConvMixer against timm, with timm's own random weights: stem, each block, the whole.

`pytest -m parity -rP` prints the errors of every stage.
"""

import sys
from pathlib import Path

import pytest

from boneage_jax.models.convmixer import ConvMixer

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import originals

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.fixture(scope="module")
def timm():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return pytest.importorskip("timm")


def move_normalisation(model) -> None:
    """Fresh BatchNorm is the identity, which would hide swapped statistics."""
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)


# The published ConvMixer-768/32 (with ReLU) at its own and an odd size, and a small one with GELU.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # a warning about speed
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"dim": 768, "depth": 32, "kernel_size": 7, "patch_size": 7, "activation": "relu"}, 224),
        ({"dim": 768, "depth": 32, "kernel_size": 7, "patch_size": 7, "activation": "relu"}, 137),
        ({"dim": 64, "depth": 4, "kernel_size": 8, "patch_size": 4, "activation": "gelu"}, 97),
    ],
)
def test_convmixer_equals_timm(timm, options, size):
    from torch import nn

    original = {key: value for key, value in options.items() if key != "activation"}
    act_layer = {"relu": nn.ReLU, "gelu": nn.GELU}[options["activation"]]
    model = timm.models.convmixer.ConvMixer(**original, act_layer=act_layer).eval()
    move_normalisation(model)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    trunk, image = ConvMixer(**options), originals.image(size, size)
    variables = originals.filled(
        trunk, lambda path, shape: originals.from_torch(state[originals.torch_name(path)]).reshape(shape)
    )
    expected = originals.torch_stages(model, image)
    actual = originals.stages(trunk, variables, image, [name for name in expected if name != "whole"])
    errors = {stage: originals.relative_error(actual[stage], expected[stage]) for stage in expected}
    for stage, error in errors.items():
        print(f"ConvMixer {size:4} {stage:20} {error:.1e}")
    assert errors["patch_embedding_bn"] <= 1e-5, errors
    assert max(errors.values()) <= 1e-4, errors


def test_convmixer_has_as_many_parameters_as_timm(timm):
    model = timm.create_model("convmixer_768_32", pretrained=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 21_110_248
