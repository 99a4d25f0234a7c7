"""Released weight files: they round-trip, and anything wrong gives one clear error."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from boneage_jax.errors import BoneAgeError
from boneage_jax.released import weights
from tests.predict import random_weights
from tests.trees import structure


@pytest.fixture
def path(tmp_path):
    weights.write(tmp_path / "tiny.safetensors", random_weights.weights())
    return tmp_path / "tiny.safetensors"


def rewritten(path, change):
    """The file with its metadata replaced by `change(metadata)`."""
    with safe_open(str(path), framework="numpy") as file:
        metadata = change(file.metadata())
    save_file(load_file(path), path, metadata=metadata)
    return path


def told(change):
    def changed(metadata):
        header = json.loads(metadata[weights.KEY])
        change(header)
        return {weights.KEY: json.dumps(header)}

    return changed


def test_weights_round_trip_through_a_file(path):
    stored, found = random_weights.weights(), weights.read(path)
    assert found.header == stored.header == weights.read_header(path)
    assert structure(found.variables) == structure(stored.variables)
    for a, b in zip(jax.tree.leaves(found.variables), jax.tree.leaves(stored.variables), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
    assert path.stat().st_mode & 0o777 == usual_mode(path.parent)


def usual_mode(folder) -> int:
    """The permissions of a new file in the folder."""
    (folder / "any").touch()
    return (folder / "any").stat().st_mode & 0o777


def test_scalars_and_check_arrays_keep_shape_and_dtype(tmp_path):
    checks = {"mean": np.arange(6, dtype=np.float64).reshape(2, 3), "count": np.array(7)}
    variables = {"params": {"head": {"scale": np.float32(0.5)}}, "batch_stats": {}}
    header = dataclasses.replace(random_weights.weights().header, checks={"limit": 3.5})
    weights.write(tmp_path / "a.safetensors", weights.Weights(header, variables, checks))
    found = weights.read(tmp_path / "a.safetensors")
    assert found.variables["params"]["head"]["scale"].shape == ()
    assert found.variables["batch_stats"] == {}
    assert found.header.checks == {"limit": 3.5}
    for name, value in checks.items():
        assert found.checks[name].dtype == value.dtype
        np.testing.assert_array_equal(found.checks[name], value)


@pytest.mark.parametrize(("storage", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_rounds_matrices_and_leaves_vectors_alone(path, storage, error):
    small = path.with_name(f"{storage}.safetensors")
    weights.write(small, random_weights.stored_as(storage))
    exact, found = (weights.read(file).variables for file in (path, small))
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(found), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=error if a.ndim > 1 else 0, atol=1e-7 if a.ndim > 1 else 0)
    rounded = weights.rounded(random_weights.weights().variables, storage)
    assert jax.tree.all(jax.tree.map(np.array_equal, rounded, found))
    matrices = sum(x.nbytes for x in load_file(small).values() if x.ndim > 1)
    assert matrices == sum(x.nbytes for x in load_file(path).values() if x.ndim > 1) / 2


@pytest.mark.parametrize(("value", "storage"), [(1e6, "float16"), (np.nan, "float32"), (np.inf, "bfloat16")])
def test_values_not_finite_in_the_storage_type_are_refused_and_not_written(tmp_path, value, storage):
    variables = {"params": {"trunk": {"kernel": np.full((2, 2), value)}}, "batch_stats": {}}
    stored = weights.Weights(random_weights.stored_as(storage).header, variables)
    with pytest.raises(BoneAgeError, match=f"params/trunk/kernel has values that are not finite in {storage}"):
        weights.write(tmp_path / "a.safetensors", stored)
    assert not list(tmp_path.iterdir())


def test_an_unknown_storage_is_refused(tmp_path):
    with pytest.raises(BoneAgeError, match="storage is 'int8', expected one of float32, bfloat16, float16"):
        weights.write(tmp_path / "a.safetensors", random_weights.stored_as("int8"))


@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"])
def test_a_file_that_is_not_safetensors_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(BoneAgeError, match=r"tiny\.safetensors is not an intact safetensors file"):
        weights.read(path)


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BoneAgeError, match="is not an intact safetensors file"):
        weights.read(path)


@pytest.mark.parametrize("place", [-1, -400])
def test_a_changed_byte_is_detected(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(BoneAgeError, match="is damaged: its contents do not match their checksum"):
        weights.read(path)


def test_a_changed_header_is_detected(path):
    rewritten(path, told(lambda header: header["model"].update(label_mean=90.0)))
    with pytest.raises(BoneAgeError, match="do not match their checksum"):
        weights.read(path)


def sealed(path, change_header=lambda header: None, change_tensors=lambda tensors: None):
    """The file with changed contents and a matching checksum, as only tampering produces."""
    with safe_open(str(path), framework="numpy") as file:
        header = json.loads(file.metadata()[weights.KEY])
    tensors = load_file(path)
    del header["sha256"]
    change_header(header)
    change_tensors(tensors)
    header["sha256"] = weights.digest(header, tensors)
    save_file(tensors, path, metadata={weights.KEY: json.dumps(header)})
    return path


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["params/head/output/bias", "checks/mean"])
def test_non_finite_values_are_refused_by_the_name_of_their_array(path, value, name):
    sealed(path, change_tensors=lambda tensors: tensors.update({name: np.array([0, value], np.float32)}))
    with pytest.raises(
        BoneAgeError, match=rf"tiny\.safetensors cannot be used: {name} holds values that are not finite"
    ):
        weights.read(path)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "[" * 100_000, "1" * 5000])
def test_a_header_that_is_not_valid_json_is_refused(path, text):
    rewritten(path, lambda metadata: {weights.KEY: metadata[weights.KEY].replace("100.0", text)})
    with pytest.raises(BoneAgeError, match="its header cannot be read"):
        weights.read(path)


@pytest.mark.parametrize(("field", "value"), [("model", []), ("name", None), ("preprocessing", "x"), ("views", 1)])
def test_header_fields_of_the_wrong_type_are_refused_by_name(path, field, value):
    sealed(path, lambda header: header.update({field: value}))
    with pytest.raises(BoneAgeError, match=f"is damaged: {field} in its header have the wrong type"):
        weights.read(path)


def test_an_implausibly_large_file_is_refused_unread(path):
    with path.open("ab") as file:
        file.truncate(2**40)  # takes no space on the disk
    with pytest.raises(BoneAgeError, match="has 1,099,511,627,776 bytes, more than any weights file"):
        weights.read(path)


def test_an_array_nested_below_another_is_refused(path):
    sealed(path, change_tensors=lambda tensors: tensors.update({"params/a": np.zeros(1), "params/a/b": np.zeros(1)}))
    with pytest.raises(BoneAgeError, match="params/a holds both values and other arrays"):
        weights.read(path)


def test_a_safetensors_file_from_elsewhere_is_refused(path):
    rewritten(path, lambda _: {"format": "pt"})
    with pytest.raises(BoneAgeError, match="its metadata lack the key 'boneage_jax'; `boneage export-weights` writes"):
        weights.read(path)
    assert not weights.is_released(path)


def test_a_later_format_asks_for_an_update(path):
    rewritten(path, told(lambda header: header.update(format=3, version="9.0", something="new")))
    with pytest.raises(BoneAgeError, match=r"format 3, written by a later version of boneage_jax \(9\.0\).*update it"):
        weights.read(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": null}'])
def test_an_unreadable_header_is_reported_as_damaged(path, text):
    rewritten(path, lambda _: {weights.KEY: text})
    for reader in (weights.read, weights.read_header):
        with pytest.raises(BoneAgeError, match="is damaged: its header cannot be read"):
            reader(path)


def test_a_header_with_a_missing_key_is_reported_as_damaged(path):
    rewritten(path, told(lambda header: header.pop("views")))
    with pytest.raises(BoneAgeError, match=r"header has missing or unknown keys \(views\)"):
        weights.read_header(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BoneAgeError, match=r"there is no weights file .*absent\.safetensors"):
        weights.read(tmp_path / "absent.safetensors")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with two weight files."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "package")
    for name, mae in (("fast", 9.0), ("best", 6.5)):
        figures = {"overall": {"mae": {"value": mae}}}
        header = dataclasses.replace(random_weights.weights().header, figures=figures)
        weights.write(
            tmp_path / f"package/{name}.safetensors", dataclasses.replace(random_weights.weights(), header=header)
        )
    return tmp_path / "package"


def test_packaged_weights_are_found_by_name(package):
    assert weights.names() == ["best", "fast"]
    assert weights.find("fast") == package / "fast.safetensors"
    assert weights.find(package / "best.safetensors") == package / "best.safetensors"
    assert weights.most_accurate() == "best"


def test_an_unknown_name_is_refused_with_a_suggestion(package):
    with pytest.raises(BoneAgeError, match="no weights 'fats'; those in the package: best, fast; did you mean fast"):
        weights.find("fats")


def test_a_path_without_a_file_is_refused_as_a_path(package):
    with pytest.raises(BoneAgeError, match=r"there is no weights file runs/a\.safetensors; those in the package: b"):
        weights.find("runs/a.safetensors")


def test_a_name_that_is_too_long_for_a_file_is_refused_like_any_other(package):
    with pytest.raises(BoneAgeError, match="there are no weights 'nnn"):
        weights.find("n" * 300)


def test_the_home_folder_of_an_unknown_user_is_a_path_without_a_file(package):
    with pytest.raises(BoneAgeError, match=r"there is no weights file ~nobody-of-this-name/a\.safetensors"):
        weights.find("~nobody-of-this-name/a.safetensors")


def test_a_package_without_weights_gives_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(BoneAgeError, match="contains no weights; give a weights file"):
        weights.most_accurate()
    with pytest.raises(BoneAgeError, match="those in the package: none in this copy"):
        weights.find("best")
