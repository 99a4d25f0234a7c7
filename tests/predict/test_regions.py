"""The regions of an image as a predictor reads it: boxes in the file's pixels, and a picture."""

import numpy as np
import pytest

from boneage_jax.predict.items import Picture
from boneage_jax.predict.prediction import Prediction
from boneage_jax.predict.regions import COLOURS, as_json, overlay, warnings
from boneage_jax.regions.boxes import LABELS
from boneage_jax.regions.detector import Region, Regions
from boneage_jax.released.checks import CORRECTED, QUARTER_TURNS, Finding

NOT_READ = Prediction(None, None, None, "")
REGIONS = Regions((Region("Radius", "Radius", (10.0, 20.0, 30.0, 50.0), 0.9),), {"Wrist": 1})


@pytest.mark.parametrize("code", [None, *QUARTER_TURNS])
def test_boxes_are_those_of_the_image_as_it_came(code):
    turned = np.zeros((80, 60), np.uint8)
    turned[20:50, 10:30] = 1
    findings = () if code is None else (Finding(code, "", CORRECTED),)
    came = np.rot90(turned, -QUARTER_TURNS.get(code, 0))
    found = as_json(REGIONS, Picture(turned, None, "hand", findings), NOT_READ)["found"][0]["box"]
    rows, columns = np.nonzero(came)
    assert found == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_a_turn_that_was_only_warned_of_changes_nothing():
    picture = Picture(np.zeros((80, 60), np.uint8), None, "hand", (Finding("upside_down", ""),))
    assert as_json(REGIONS, picture, NOT_READ)["found"][0]["box"] == [10, 20, 30, 50]


def test_json_counts_what_is_missing_and_what_is_too_much():
    found = as_json(REGIONS, Picture(np.zeros((80, 60), np.uint8), None, "hand"), NOT_READ)
    assert found["missing"] == {"DIP": 4, "PIP": 5, "MCP": 5, "Ulna": 1, "Wrist": 1}
    assert found["surplus"] == {"Wrist": 1}


def test_a_hand_that_lacks_few_regions_gets_no_warning():
    assert warnings({}, {}) == warnings({"DIP": 4}, {}) == ()


def test_many_missing_regions_and_any_surplus_are_warned_of():
    cut, several = warnings({"DIP": 4, "Wrist": 1}, {"MCP": 3, "Ulna": 1})
    assert cut == "5 of 17 ossification regions were not found; the hand may be cut off, bent or covered."
    assert several == (
        "There are more ossification regions than one hand has (3 MCP, 1 Ulna too many); is it one hand alone?"
    )


def test_the_overlay_draws_a_box_in_the_colour_of_its_label():
    pixels = np.full((80, 60), 100, np.uint8)
    pixels[0] = 200  # or it would be blank
    shown = overlay(pixels, REGIONS, NOT_READ)
    assert shown.shape == (80, 60, 3)
    assert shown[50, 20].tolist() == list(COLOURS["Radius"])
    assert shown[35, 10].tolist() == list(COLOURS["Radius"])
    assert len(set(shown[35, 15].tolist())) == 1  # inside, the radiograph stays as it is
    assert COLOURS.keys() == set(LABELS)


def test_a_large_radiograph_is_shown_smaller_with_its_box_in_place():
    pixels = np.zeros((4096, 2048), np.uint16)
    pixels[0] = 60000
    shown = overlay(pixels, Regions((Region("Ulna", "Ulna", (400.0, 800.0, 1200.0, 2000.0), 0.9),), {}), NOT_READ)
    assert shown.shape == (1024, 512, 3)
    assert shown[350, 100].tolist() == list(COLOURS["Ulna"])
