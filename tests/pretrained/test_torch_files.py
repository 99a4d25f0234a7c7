"""Pickles of PyTorch; the part of reading weights that needs it."""

import pickle
import re

import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained.formats import read

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")]
torch = pytest.importorskip("torch")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def state(value: float) -> dict:
    return {"stem.weight": torch.full((2,), value), "bn.num_batches_tracked": torch.tensor(3)}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_read(path, zipped):
    torch.save(state(0.5), path, _use_new_zipfile_serialization=zipped)
    source, found = read(path)
    assert source == "torch"
    np.testing.assert_array_equal(found["stem.weight"], np.full(2, 0.5, np.float32))
    assert set(found) == {"stem.weight", "bn.num_batches_tracked"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_every_size_become_float32(path, dtype):
    torch.save({"stem.weight": torch.tensor([0.1, 0.2], dtype=dtype)}, path)
    found = read(path)[1]["stem.weight"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0.1, 0.2], rtol=1e-2)


@pytest.mark.parametrize(
    ("wrapped", "value"),
    [
        ({"state_dict": state(1)}, 1),
        ({"model": state(2), "epoch": 3, "optimizer": {"lr": 0.1}}, 2),
        ({"model": state(2), "state_dict": state(1)}, 1),
        ({"model": state(2), "state_dict": state(1), "model_ema": state(3)}, 3),
        ({"state_dict": state(1), "model_ema": state(3), "state_dict_ema": state(4)}, 4),
        ({f"module.{key}": tensor for key, tensor in state(5).items()}, 5),
        ({"state_dict": {f"module.{key}": tensor for key, tensor in state(6).items()}}, 6),
    ],
)
def test_a_state_dict_is_unwrapped_averaged_weights_first(path, wrapped, value):
    torch.save(wrapped, path)
    found = read(path)[1]
    assert set(found) == set(state(0))
    assert found["stem.weight"].tolist() == [value, value]


class Runs:
    """A pickle that runs something when it is loaded."""

    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_a_pickle_with_objects_is_refused_and_never_run(path):
    torch.save({"state_dict": state(1), "args": Runs()}, path)
    with pytest.raises(BoneAgeError, match=r"Python objects .* use the model's \.safetensors .*exec"):
        read(path)
    path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(BoneAgeError, match=rf"{re.escape(str(path))} cannot be read: it holds Python objects"):
        read(path)


def test_a_whole_module_is_refused(path):
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(BoneAgeError, match="Python objects"):
        read(path)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([torch.zeros(2)], "it is no state dict, a dictionary of tensors, but a list"),
        ({"epoch": 3, "stem.weight": torch.zeros(2)}, "it holds epoch"),
        ({}, "it holds nothing"),
    ],
)
def test_what_is_no_state_dict_is_refused(path, stored, message):
    torch.save(stored, path)
    with pytest.raises(BoneAgeError, match=message):
        read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(path, zipped):
    torch.save(state(0.5), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BoneAgeError, match=f"{re.escape(str(path))} .*damaged"):
        read(path)
