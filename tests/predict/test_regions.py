"""Regions found by a predictor: boxes in pixels of the file, and the overlay."""

import dataclasses
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from boneage_jax.models import Input
from boneage_jax.predict.items import Picture, read_inputs, read_picture
from boneage_jax.predict.prediction import Prediction
from boneage_jax.predict.regions import COLOURS, as_json, overlay, warnings
from boneage_jax.regions.boxes import LABELS
from boneage_jax.regions.detector import Region, Regions
from boneage_jax.released.checks import CORRECTED, QUARTER_TURNS, Finding
from tests.data import dicom_files

NOT_READ = Prediction(None, None, None, "")
REGIONS = Regions((Region("Radius", "Radius", (10.0, 20.0, 30.0, 50.0), 0.9),), {"Wrist": 1})


@pytest.mark.parametrize("code", [None, *QUARTER_TURNS])
def test_boxes_are_in_pixels_of_the_original_image(code):
    turned = np.zeros((80, 60), np.uint8)
    turned[20:50, 10:30] = 1
    findings = () if code is None else (Finding(code, "", CORRECTED),)
    came = np.rot90(turned, -QUARTER_TURNS.get(code, 0))
    found = as_json(REGIONS, Picture(turned, None, "hand", findings), NOT_READ)["found"][0]["box"]
    rows, columns = np.nonzero(came)
    assert found == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_and_key_points_are_in_pixels_after_the_exif_orientation():
    exif = Image.Exif()
    exif[0x112] = 6  # the stored image is turned a quarter to the left
    file = io.BytesIO()
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(file, "PNG", exif=exif)
    picture = read_picture(file.getvalue())
    assert picture.pixels.shape == picture.stored_shape == (80, 60)
    assert as_json(REGIONS, picture, NOT_READ)["found"][0]["box"] == [10, 20, 30, 50]
    heatmap = read_inputs((Input("hand", "heatmap"),), {"hand": [[14.5, 39.5]]}, picture, 40)["hand"][..., 0]
    assert np.unravel_index(heatmap.argmax(), heatmap.shape) == pytest.approx((20, 10), abs=1)


def test_a_rotation_that_was_not_corrected_changes_no_boxes():
    picture = Picture(np.zeros((80, 60), np.uint8), None, "hand", (Finding("upside_down", ""),))
    assert as_json(REGIONS, picture, NOT_READ)["found"][0]["box"] == [10, 20, 30, 50]


def test_json_counts_missing_and_surplus_regions():
    found = as_json(REGIONS, Picture(np.zeros((80, 60), np.uint8), None, "hand"), NOT_READ)
    assert found["missing"] == {"DIP": 4, "PIP": 5, "MCP": 5, "Ulna": 1, "Wrist": 1}
    assert found["surplus"] == {"Wrist": 1}


def test_a_few_missing_regions_give_no_warning():
    assert warnings({}, {}) == warnings({"DIP": 4}, {}) == ()


def test_many_missing_regions_and_any_surplus_are_warned_about():
    cut, several = warnings({"DIP": 4, "Wrist": 1}, {"MCP": 3, "Ulna": 1})
    assert cut == "5 of 17 ossification regions were not found; the hand may be cut off, bent or covered."
    assert several == (
        "There are more ossification regions than one hand has (3 MCP, 1 Ulna too many); is it one hand alone?"
    )


def test_the_overlay_draws_a_box_in_the_colour_of_its_label():
    pixels = np.full((80, 60), 100, np.uint8)
    pixels[0] = 200  # otherwise the image would be blank
    shown = overlay(pixels, REGIONS, NOT_READ)
    assert shown.shape == (80, 60, 3)
    assert shown[50, 20].tolist() == list(COLOURS["Radius"])
    assert shown[35, 10].tolist() == list(COLOURS["Radius"])
    assert len(set(shown[35, 15].tolist())) == 1  # the radiograph inside the box is unchanged
    assert COLOURS.keys() == set(LABELS)


def test_a_large_radiograph_is_downscaled_with_its_boxes():
    pixels = np.zeros((4096, 2048), np.uint16)
    pixels[0] = 60000
    shown = overlay(pixels, Regions((Region("Ulna", "Ulna", (400.0, 800.0, 1200.0, 2000.0), 0.9),), {}), NOT_READ)
    assert shown.shape == (1024, 512, 3)
    assert shown[350, 100].tolist() == list(COLOURS["Ulna"])


@pytest.mark.parametrize("code", [None, *QUARTER_TURNS])
@pytest.mark.parametrize("spacing", [[0.2, 0.1], [0.1, 0.2]])
def test_boxes_and_key_points_are_in_pixels_of_a_file_with_oblong_pixels(code, spacing):
    rng = np.random.default_rng(0)
    stored = cv2.resize(rng.integers(0, 255, (8, 6), dtype=np.uint8), (60, 80))
    read = read_picture(dicom_files.make(stored, ImagerPixelSpacing=spacing))
    assert read.pixels.shape == ((160, 60) if spacing[0] > spacing[1] else (80, 120))
    findings = () if code is None else (Finding(code, "", CORRECTED),)
    turned = read._replace(pixels=np.rot90(read.pixels, QUARTER_TURNS.get(code, 0)), findings=findings)
    squares = Picture(np.rot90(stored, QUARTER_TURNS.get(code, 0)), None, "hand", findings)
    height, width = np.array(turned.pixels.shape) / squares.pixels.shape
    scaled = tuple(np.array(REGIONS.found[0].box) * [width, height, width, height])
    regions = Regions((dataclasses.replace(REGIONS.found[0], box=scaled),), {})
    assert as_json(regions, turned, NOT_READ)["found"] == as_json(REGIONS, squares, NOT_READ)["found"]

    point = [[40.0, 10.0]]
    heatmap = read_inputs((Input("hand", "heatmap"),), {"hand": point}, turned, 40)["hand"][..., 0]
    shown = np.rot90(heatmap, -QUARTER_TURNS.get(code, 0))
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert abs((row + 0.5) / 40 * 80 - 10.5) <= 2
    assert abs((column + 0.5) / 40 * 60 - 40.5) <= 2
