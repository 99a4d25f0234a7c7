import dataclasses

import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.export import sources
from boneage_jax.released import weights
from tests.predict import random_weights

OWN = {"name": "other", "title": "East", "url": "", "terms": "internal", "citation": ""}


def stored(path, **data):
    one = random_weights.weights()
    weights.write(path, dataclasses.replace(one, header=dataclasses.replace(one.header, data=data)))
    return str(path)


def test_only_official_labels_are_attributed_to_rsna():
    assert sources.describe("rsna_bone_age", official=True, source=None)["citation"].startswith("Halabi")
    other = sources.describe("rsna_bone_age", official=False, source=None)
    assert "RSNA" not in str(other)
    assert (other["name"], other["citation"]) == ("other", "")
    assert sources.describe("phantom", official=False, source=None)["name"] == "phantom"


def test_a_named_source_replaces_even_official_data():
    found = sources.describe("rsna_bone_age", official=True, source="  East\nHospital ")
    assert (found["name"], found["title"]) == ("other", "East Hospital")
    with pytest.raises(BoneAgeError, match="--source is empty"):
        sources.describe("phantom", official=False, source=" \n")


def test_the_sources_of_initial_weights_are_listed_once_each(tmp_path):
    imagenet = sources.initial_weights("imagenet")
    assert [one["name"] for one in imagenet] == ["imagenet"]
    first = stored(tmp_path / "first.safetensors", **OWN, initialised_from=imagenet)
    second = stored(tmp_path / "second.safetensors", **OWN, initialised_from=sources.initial_weights(first))
    found = sources.initial_weights(second)
    assert [one["name"] for one in found] == ["second.safetensors", "imagenet"]
    assert (found[0]["title"], found[0]["terms"]) == ("East", "internal")
    assert sources.initial_weights("") == []
    assert sources.initial_weights("fast")[0] == {
        "name": "fast",
        **{key: sources.RSNA[key] for key in ("title", "terms", "citation")},
    }


def test_initial_weights_of_unknown_terms_are_named_without_their_folder(tmp_path):
    unknown = [{"name": "keras.h5", "title": "data of an unknown source", "terms": "unknown", "citation": ""}]
    for folder in (str(tmp_path), "~nobody-of-this-name"):
        assert sources.initial_weights(f"{folder}/keras.h5") == unknown
