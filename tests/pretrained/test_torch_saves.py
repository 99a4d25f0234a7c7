"""Files written by PyTorch, read without it and by `torch.load(weights_only=True)`: `pytest -m parity`."""

import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained import imagenet
from boneage_jax.pretrained.formats import read

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")]
torch = pytest.importorskip("torch")
each_form = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "sequence"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def assert_as_by_torch(path):
    """The same keys in the same order, the same values; floating-point numbers as float32."""
    expected, (source, found) = torch.load(path, weights_only=True), read(path)
    assert source == "torch"
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        tensor = tensor.detach()
        np.testing.assert_array_equal(
            found[key], (tensor.float() if tensor.is_floating_point() else tensor).numpy(), key
        )


@each_form
@pytest.mark.parametrize(
    "dtype",
    ["float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"],
)
def test_tensors_of_every_dtype_are_read(path, zipped, dtype):
    values = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, dtype))
    stored = {"whole": values, "turned": values.permute(2, 0, 1), "part": values[1, 1:, ::2], "one": values[1, 2, 3]}
    torch.save(
        stored | {"none": values[:0], "repeated": values[0, :1].expand(5, 4)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    assert_as_by_torch(path)


@each_form
def test_the_state_and_the_parameters_of_a_module_are_read(path, zipped):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    for stored in (module.state_dict(), dict(module.named_parameters())):
        torch.save(stored, path, _use_new_zipfile_serialization=zipped)
        assert_as_by_torch(path)


@each_form
def test_a_whole_module_is_refused(path, zipped):
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BoneAgeError, match=r"contains Python objects .*\(torch\.nn\.modules\.linear\.Linear\)"):
        read(path)


@pytest.mark.parametrize("trunk", imagenet.PACKAGES)
def test_imagenet_weights_are_read(trunk):
    assert_as_by_torch(imagenet.find(trunk))
