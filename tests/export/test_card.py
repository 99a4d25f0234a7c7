import dataclasses

import pytest

from boneage_jax.export import card
from boneage_jax.released import weights
from tests.predict import random_weights


@pytest.mark.parametrize("name", weights.names())
def test_cards_in_the_package_are_generated_from_their_headers(name):
    path = weights.find(name)
    assert path.with_suffix(".md").read_text() == card.text(weights.read_header(path))


@pytest.mark.parametrize("name", weights.names())
def test_weights_in_the_package_have_the_name_that_the_flag_takes(name):
    header = weights.read_header(weights.find(name))
    assert header.name == name
    assert not header.members or header.members[0]["name"] in weights.names()


def test_the_card_is_written_beside_the_weights(tmp_path):
    stored = random_weights.weights()
    card.write_weights(tmp_path / "tiny.safetensors", stored)
    assert weights.read(tmp_path / "tiny.safetensors").header == stored.header
    assert (tmp_path / "tiny.md").read_text() == card.text(stored.header)


def test_only_figures_of_the_validation_split_are_called_optimistic():
    header = weights.read_header(weights.FOLDER / "fast.safetensors")
    other = dataclasses.replace(header, data=header.data | {"measured_split": "test"})
    assert "The checkpoint was selected on these images" in card.text(header)
    assert "selected" not in card.text(other)


def test_checks_of_earlier_versions_have_no_number_of_images():
    header = dataclasses.replace(random_weights.weights().header, checks={"least_good": -1.0})
    assert "- Input checks: fitted on training images\n" in card.text(header)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "validation MAE alone 6.50 months\n"),
        ({"measured_split": "test"}, "test MAE alone 6.50 months\n"),
        ({"measured_split": "own", "calibrated_on": "East"}, "`), MAE alone 6.50 months on images of East\n"),
    ],
)
def test_the_error_of_a_network_alone_names_its_images(changes, words):
    header = weights.read_header(weights.FOLDER / "accurate.safetensors")
    figures = {"overall": {"mae": {"value": 6.5}}}
    first = header.members[0] | {"data": header.members[0]["data"] | changes, "figures": figures}
    assert words in card.text(dataclasses.replace(header, members=[first, header.members[1]]))
