import json
import re
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained.formats import read
from tests.pretrained.weight_files import flat, norm, numbers, write_archive, write_new, write_old

# Layers with explicit names, and some that Keras numbered in a session that had created other layers before.
LAYERS = {
    "stem_conv": {"kernel": numbers(3, 3, 3, 4), "bias": numbers(4)},
    "conv2d_99": {"kernel": numbers(1, 1, 4, 5)},
    "stem_bn": norm(4),
    "batch_normalization_190": norm(5, scale=False),
    "sepconv": {"depthwise_kernel": numbers(3, 3, 5, 1), "pointwise_kernel": numbers(1, 1, 5, 6)},
    "conv2d_100": {"kernel": numbers(3, 3, 6, 7)},
    "conv2d_95": {"kernel": numbers(3, 3, 7, 8)},
    "normalization_2": {"mean": numbers(3), "variance": numbers(3) + 5, "count": np.array(0)},
}
FRESH = {
    "conv2d_95": "conv2d",
    "conv2d_99": "conv2d_1",
    "conv2d_100": "conv2d_2",
    "batch_normalization_190": "batch_normalization",
    "normalization_2": "normalization",
}
EXPECTED = flat({FRESH.get(layer, layer): variables for layer, variables in LAYERS.items()})

WRITERS = {
    "old": lambda path: write_old(path, LAYERS),
    "old with attributes in parts": lambda path: write_old(path, LAYERS, chunks=2),
    "old with optimiser": lambda path: write_old(path, LAYERS, inside="model_weights"),
    "old by keras 3": lambda path: write_old(path, LAYERS, suffix=""),
    "old, a model in the model": lambda path: write_old(path, LAYERS, root="backbone"),
    "new by class": lambda path: write_new(path, LAYERS),
    "new by layer": lambda path: write_new(path, LAYERS, by_class=False),
    "new by layer without attributes": lambda path: write_new(path, LAYERS, by_class=False, with_names=False),
    "archive": lambda path: write_archive(path, LAYERS, with_names=True),
    "archive without attributes": lambda path: write_archive(path, LAYERS),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights"  # the file name does not matter


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("layout", WRITERS)
def test_every_keras_layout_gives_the_same_arrays_and_layer_names(path, layout):
    WRITERS[layout](path)
    source, found = read(path)
    assert source == "keras"
    assert_same(found, EXPECTED)
    assert {value.dtype for key, value in found.items() if not key.endswith("count")} == {np.dtype(np.float32)}


def test_numbered_layers_are_sorted_numerically(path):
    layers = {f"conv2d_{i}": {"kernel": numbers(1, 1, 1, i)} for i in (8, 9, 10, 11)}
    write_new(path, layers)
    found = read(path)[1]
    assert [found[f"conv2d{number}/kernel"].shape[-1] for number in ("", "_1", "_2", "_3")] == [8, 9, 10, 11]


def test_a_depthwise_kernel_gets_its_keras_3_name(path):
    write_old(path, {"dwconv": {"depthwise_kernel": numbers(3, 3, 4, 1), "bias": numbers(4)}})
    assert set(read(path)[1]) == {"dwconv/kernel", "dwconv/bias"}


def test_a_file_without_layer_names_is_refused(path):
    write_new(path, {"block1_conv1": {"kernel": numbers(3, 3, 3, 4)}, "block1_bn": norm(4)}, with_names=False)
    with pytest.raises(BoneAgeError, match=r"does not contain the names of its layers .* save the model as \.keras"):
        read(path)


def test_nested_layers_are_found_in_an_archive(path):
    inner = {"class_name": "Functional", "config": {"name": "backbone", "layers": [_conv("stem"), _conv("conv2d_7")]}}
    config = {"class_name": "Sequential", "config": {"layers": [inner, _conv("last")]}}
    weights = path.with_suffix(".h5")
    with h5py.File(weights, "w") as file:
        for i, place in enumerate(["functional/layers/conv2d", "functional/layers/conv2d_1", "conv2d"]):
            file[f"layers/{place}/vars/0"] = np.full((1, 1, 1, 1), i, np.float32)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.write(weights, "model.weights.h5")
    found = {key: value.item() for key, value in read(path)[1].items()}
    assert found == {"stem/kernel": 0, "conv2d/kernel": 1, "last/kernel": 2}


def _conv(name):
    return {"class_name": "Conv2D", "config": {"name": name}}


def test_duplicate_layer_names_are_refused(path):
    with h5py.File(path, "w") as file:
        for place in ("layers/conv2d", "layers/functional/layers/conv2d"):
            file[f"{place}/vars/0"] = numbers(1, 1, 1, 1)
            file[f"{place}/vars"].attrs["name"] = "stem"
    with pytest.raises(BoneAgeError, match="two layers are called 'stem'"):
        read(path)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_floats_of_every_size_become_float32(path, dtype):
    save_file({"stem.weight": numbers(4).astype(dtype), "count": np.array(3)}, path)
    source, found = read(path)
    assert source == "torch"
    assert found["stem.weight"].dtype == np.float32
    assert found["count"].dtype == np.int64
    np.testing.assert_array_equal(found["stem.weight"], numbers(4).astype(dtype).astype(np.float32))


def test_keras_bfloat16_is_read(path):
    value = numbers(4, 4).astype(ml_dtypes.bfloat16)
    write_new(path, {})
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/0"] = value
        file["layers/dense/vars/0"].attrs["dtype"] = "bfloat16"
        file["layers/dense/vars"].attrs["name"] = "fc"
    np.testing.assert_array_equal(read(path)[1]["fc/kernel"], value.astype(np.float32))


@pytest.mark.parametrize("layout", ["old", "new by class", "archive"])
def test_a_truncated_keras_file_is_reported_as_damaged(path, layout):
    WRITERS[layout](path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(BoneAgeError, match=rf"{re.escape(str(path))} is damaged \(.*\); download it again"):
        read(path)


def test_a_truncated_safetensors_file_is_reported_as_damaged(path):
    save_file({"stem.weight": numbers(40)}, path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BoneAgeError, match="is damaged"):
        read(path)


def test_a_corrupted_archive_is_reported_as_damaged(path):
    write_archive(path, LAYERS)
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 255
    path.write_bytes(held)
    with pytest.raises(BoneAgeError, match="is damaged"):
        read(path)


def test_a_corrupted_compressed_archive_is_reported_as_damaged(path):
    write_archive(path, LAYERS)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert read(path)
    whole = path.read_bytes()
    for place in range(100, len(whole) - 200, 97):
        path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
        with pytest.raises(BoneAgeError, match="is damaged"):
            read(path)


def test_an_archive_without_hdf5_is_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.npz", "")
    with pytest.raises(BoneAgeError, match=r'contains no "model\.weights\.h5"'):
        read(path)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1"])
def test_a_file_that_is_not_weights_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(BoneAgeError, match=r"it begins with b'.*neither HDF5 .* web page or a Git LFS pointer"):
        read(path)


def test_a_file_without_weights_is_refused(path):
    write_new(path, {})
    with pytest.raises(BoneAgeError, match="it contains no layer weights"):
        read(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(BoneAgeError, match=rf"{re.escape(str(path))} does not exist"):
        read(path)
    with pytest.raises(BoneAgeError, match=r"~nobody-of-this-name/weights\.h5 does not exist"):
        read("~nobody-of-this-name/weights.h5")


def test_a_file_that_declares_implausibly_large_arrays_is_refused(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("dense")
        file.attrs["layer_names"], group.attrs["weight_names"] = [b"dense"], [b"dense/kernel:0"]
        group.create_dataset("dense/kernel:0", shape=(10**6, 10**6), dtype="f4", chunks=(1000, 1000))
    assert path.stat().st_size < 10_000
    with pytest.raises(BoneAgeError, match=r"it contains 4,000,000,000,000 bytes, more than any supported network"):
        read(path)


def test_an_implausibly_large_file_is_refused_unread(path):
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no space on the disk
    with pytest.raises(BoneAgeError, match=r"it contains 1,099,511,627,776 bytes"):
        read(path)
