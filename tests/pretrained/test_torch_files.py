"""`torch.save` files read without PyTorch; `test_torch_saves.py` uses files written by PyTorch itself."""

import pickle
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained.formats import read
from tests.pretrained.weight_files import Tensor, numbers, write_torch

each_form = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "sequence"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def state(value: float) -> dict[str, np.ndarray]:
    return {"stem.weight": np.full(2, value, np.float32), "bn.num_batches_tracked": np.array([3])}


@each_form
@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_every_array_is_read(path, zipped, byte_order):
    stored = {"a": numbers(3, 2), "b": np.array(7), "c": numbers(4, 3, 3, 2), "d": np.zeros((0, 3), np.float32)}
    write_torch(path, stored, zipped=zipped, byte_order=byte_order)
    source, found = read(path)
    assert source == "torch"
    assert list(found) == list(stored)
    for key, value in stored.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
        assert found[key].shape == value.shape


@each_form
def test_views_of_one_storage_are_read_by_their_offset_and_strides(path, zipped):
    whole = np.arange(24, dtype=np.float32)
    stored = {"turned": whole.reshape(4, 6).T, "part": whole.reshape(4, 6)[1:, 1::2], "last": whole[-1:]}
    write_torch(path, stored, zipped=zipped)
    for key, value in read(path)[1].items():
        np.testing.assert_array_equal(value, stored[key], err_msg=key)


@each_form
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(path, zipped, dtype):
    write_torch(path, {"stem.weight": numbers(4).astype(dtype)}, zipped=zipped)
    found = read(path)[1]["stem.weight"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, numbers(4).astype(dtype).astype(np.float32))


@each_form
@pytest.mark.parametrize(
    ("wrapped", "value"),
    [
        ({"state_dict": state(1)}, 1),
        ({"model": state(2), "epoch": 3, "optimizer": {"lr": 0.1, "moments": [numbers(2)]}}, 2),
        ({"model": state(2), "state_dict": state(1)}, 1),
        ({"model": state(2), "state_dict": state(1), "model_ema": state(3)}, 3),
        ({"state_dict": state(1), "model_ema": state(3), "state_dict_ema": state(4)}, 4),
        ({f"module.{key}": tensor for key, tensor in state(5).items()}, 5),
        ({"state_dict": {f"module.{key}": tensor for key, tensor in state(6).items()}}, 6),
    ],
)
def test_a_state_dict_is_unwrapped_preferring_ema_weights(path, zipped, wrapped, value):
    write_torch(path, wrapped, zipped=zipped)
    found = read(path)[1]
    assert set(found) == set(state(0))
    assert found["stem.weight"].tolist() == [value, value]


class Runs:
    """A pickle that runs something when it is loaded."""

    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


@each_form
def test_a_file_with_python_objects_is_refused_and_runs_nothing(path, zipped):
    write_torch(path, {"state_dict": state(1), "args": Runs()}, zipped=zipped)
    with pytest.raises(
        BoneAgeError, match=r"contains Python objects .* run any code \(__builtin__\.exec\); use .*safetens"
    ):
        read(path)


def test_a_pickle_not_written_by_torch_save_is_refused(path):
    path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(BoneAgeError, match=rf"{re.escape(str(path))} cannot be read: it contains Python objects"):
        read(path)
    path.write_bytes(pickle.dumps({"stem.weight": [0.5]}))
    with pytest.raises(BoneAgeError, match=r"it is a pickle not written by torch\.save"):
        read(path)


def test_a_zip_archive_not_written_by_torch_save_is_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.txt", "")
    with pytest.raises(BoneAgeError, match=r"zip archive not written by torch\.save"):
        read(path)


@each_form
@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([np.zeros(2)], r"it is not a state dict \(a dictionary of tensors\) but a list"),
        ({"epoch": 3, "stem.weight": numbers(2)}, "it also contains epoch"),
        ({}, "it contains no layer weights"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(path, zipped, stored, message):
    stored = [numbers(2)] if isinstance(stored, list) else stored
    write_torch(path, stored, zipped=zipped)
    with pytest.raises(BoneAgeError, match=message):
        read(path)


@each_form
@pytest.mark.parametrize("missing", [1, 4, 100])
def test_a_truncated_file_is_reported_as_damaged(path, zipped, missing):
    write_torch(path, {"stem.weight": numbers(2), "stem.bias": numbers(50)}, zipped=zipped)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(BoneAgeError, match=rf"{re.escape(str(path))} is damaged \(.*\); download it again"):
        read(path)


def test_an_unknown_version_of_the_legacy_format_is_refused(path):
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1002, 2))
    with pytest.raises(BoneAgeError, match="it has the unknown version 1002, expected 1001"):
        read(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (1, 1)),
        (0, (1,), (2**62,)),
    ],
)
def test_a_tensor_outside_its_storage_is_reported_as_damaged(path, offset, shape, strides):
    write_torch(path, {"w": Tensor(numbers(4), offset, shape, strides)}, zipped=True)
    with pytest.raises(BoneAgeError, match=rf"{re.escape(str(path))} is damaged \(.*(tensor|int too large)"):
        read(path)


@each_form
def test_an_implausibly_large_tensor_with_zero_strides_is_refused(path, zipped):
    elements = np.zeros(1, np.float32)
    write_torch(path, {"a": Tensor(elements, 0, (10**6, 10**6), (0, 0))}, zipped=zipped)
    with pytest.raises(BoneAgeError, match=r"it contains 4,000,000,000,000 bytes, more than any supported network"):
        read(path)
