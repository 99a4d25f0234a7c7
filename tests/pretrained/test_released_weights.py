"""`model.init_from` with weights that this package has exported."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax import models
from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Description
from boneage_jax.pretrained import start_from
from boneage_jax.pretrained.released import _check_same
from boneage_jax.regions.detector import FILE
from boneage_jax.released import weights
from tests.predict import random_weights
from tests.trees import structure


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.write(path, random_weights.weights())
    return path


def network(**changes) -> models.Network:
    description = Description.from_dict(random_weights.weights().header.model)
    return dataclasses.replace(description, **changes).network(axis_name="data", remat=True)


def zeros(of=None):
    return jax.tree.map(np.zeros_like, (of or random_weights.weights()).variables)


def same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_trunk_and_head_are_replaced(path):
    started = start_from(path, "convmixer", network(dtype="bfloat16"), zeros())
    assert structure(started) == structure(zeros())
    assert same(started, random_weights.weights().variables)


def test_a_file_of_several_networks_starts_no_network(tmp_path):
    one = random_weights.weights()
    members = [dataclasses.asdict(one.header) | {"name": f"network{number}"} for number in range(2)]
    header = dataclasses.replace(one.header, members=members)
    weights.write(tmp_path / "both.safetensors", weights.Weights(header, one.variables, members=(one, one)))
    with pytest.raises(BoneAgeError, match=r"2 networks \(network0, network1\); name a file with one network"):
        start_from(tmp_path / "both.safetensors", "convmixer", network(), zeros())


def test_packaged_weights_are_found_by_name(path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", path.parent)
    started = start_from("tiny", "convmixer", network(), zeros())
    assert same(started, random_weights.weights().variables)


def test_a_head_of_another_kind_keeps_its_initial_weights(path):
    ours = zeros(random_weights.weights(head="regression"))
    started = start_from(path, "convmixer", network(head="regression"), ours)
    for kind in ("params", "batch_stats"):
        assert same(started[kind]["trunk"], random_weights.weights().variables[kind]["trunk"])
    assert same(started["params"]["head"], ours["params"]["head"])


def test_the_detector_of_regions_is_refused():
    with pytest.raises(BoneAgeError, match=r"convmixer cannot start from .*: it contains a region_net, which"):
        start_from(FILE, "convmixer", network(), zeros())


def test_another_model_is_refused(path):
    theirs = models.create("convnextv2_atto")
    with pytest.raises(
        BoneAgeError, match=r"convnextv2_atto cannot start from .*: it contains a convmixer; set model\.n"
    ):
        start_from(path, "convnextv2_atto", theirs, zeros())


def test_other_options_are_refused_by_name(path):
    options = {**random_weights.weights().header.model["options"], "dim": 16, "activation": "relu"}
    with pytest.raises(BoneAgeError, match=r"different options .*: dim is 8 there, but 16 here; activation is 'gelu'"):
        start_from(path, "convmixer", network(options=options), zeros())


@pytest.mark.parametrize("changed", [{"drop_path": 0.1}, {"frozen_statistics": True}], ids=str)
def test_training_only_options_may_differ(changed):
    theirs, ours = models.create("efficientnet_lite0").trunk, models.create("efficientnet_lite0", **changed).trunk
    _check_same("efficientnet_lite0", "efficientnet_lite0", theirs, ours)


def test_a_network_with_more_input_channels_is_refused(path):
    ours = zeros()
    ours["params"]["trunk"]["patch_embedding"]["kernel"] = np.zeros((8, 8, 3, 8), np.float32)
    with pytest.raises(
        BoneAgeError, match=r"1 of the wrong shape: patch_embedding/kernel \(8x8x1x8, expected 8x8x3x8\)"
    ):
        start_from(path, "convmixer", network(), ours)


def test_a_damaged_file_is_refused(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(BoneAgeError, match="do not match their checksum"):
        start_from(tmp_path / "a.safetensors", "convmixer", network(), zeros())


def test_a_trunk_that_extends_the_stored_one_must_agree_in_its_own_options():
    theirs = models.create("inception_v3", framework="torch").trunk
    _check_same("inception_v3", "bonet", theirs, models.create("bonet", framework="torch").trunk)
    extended = models.create("bonet", framework="torch", heatmap=True, inputs=(models.Input("hand", "heatmap"),)).trunk
    with pytest.raises(BoneAgeError, match="heatmap is False there, but True here"):
        _check_same("inception_v3", "bonet", theirs, extended)


def test_a_loaded_head_gives_the_same_months_with_other_label_statistics(tmp_path):
    stored = random_weights.weights(head="regression")
    path = tmp_path / "theirs.safetensors"
    weights.write(path, stored)
    ours = network(head="regression", label_mean=130.0, label_std=45.0)
    started = start_from(path, "convmixer", ours, zeros(stored))
    image = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1), minval=-1)

    def months(network, variables):
        variables = jax.tree.map(jnp.asarray, variables)
        return network.apply(variables, image, jnp.array([0, 1]), train=False).months

    expected = months(Description.from_dict(stored.header.model).network(), stored.variables)
    np.testing.assert_allclose(months(ours, started), expected, rtol=1e-4)
