"""Aspect ratio: squashed copies, and DICOM images with non-square pixels."""

import logging

import cv2
import numpy as np
import pytest

from boneage_jax.data import rsna
from boneage_jax.data.phantom import render
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import read, square_pixels
from boneage_jax.errors import BoneAgeError
from tests.data import rsna_forms as forms
from tests.data.dicom_files import dataset, write

SIZES = "original_sizes.csv"


def sizes(ids, width=1000, height=2000):
    return forms.table([["id", "width", "height"], *([i, str(width), str(height)] for i in ids)])


def squashed(seed, side=24):
    image = np.random.default_rng(seed).integers(0, 256, (side, side)).astype(np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def folder_of_squares(folder, sides=None):
    images = {f"{i}.png": squashed(int(i), *(sides or {}).get(i, ())) for i in forms.TRAIN_IDS}
    return forms.write(folder, {**images, forms.TRAIN_CSV: forms.table(forms.train_rows())})


def first(found):
    return next(i for images in found.values() for i in images if i.id == "1377")


def test_a_size_table_restores_the_aspect_ratio_of_squashed_copies(tmp_path):
    folder_of_squares(tmp_path)
    forms.write(tmp_path, {SIZES: sizes(forms.TRAIN_IDS)})
    image = first(rsna.find(tmp_path))
    assert image.file.original_size == (1000, 2000)
    pixels, _ = read(image.file)
    assert pixels.shape == (48, 24)
    assert pixels.dtype == np.uint16


def test_sizes_are_matched_by_folder_and_unmatched_ones_are_logged(tmp_path, caplog):
    forms.write(tmp_path, {"A/hand.png": squashed(1), "B/hand.png": squashed(2)})
    rows = [["id", "width", "height"], ["A/hand", "1000", "2000"], ["B/hand.jpg", "600", "900"], ["C/hand", "9", "9"]]
    labels = [["id", "boneage", "sex"], ["A/hand", "100", "F"], ["B/hand", "30", "M"]]
    forms.write(tmp_path, {SIZES: forms.table(rows), "labels.csv": forms.table(labels)})
    with caplog.at_level(logging.WARNING):
        found = rsna.find_labelled(tmp_path / "labels.csv", tmp_path)
    assert [image.file.original_size for image in found] == [(1000, 2000), (600, 900)]
    assert "1 original sizes match no image: C/hand" in caplog.text


def test_a_size_table_does_not_change_full_size_images(tmp_path):
    forms.official(tmp_path)  # 24 rows and 20 columns
    forms.write(tmp_path, {SIZES: sizes(forms.TRAIN_IDS, width=1000, height=1201)})
    assert read(first(rsna.find(tmp_path)).file)[0].shape == (24, 20)


def test_two_sizes_of_one_image_are_an_error(tmp_path):
    folder_of_squares(tmp_path)
    forms.write(tmp_path, {SIZES: sizes(["1377", "1378", "1377.png"])})
    assert first(rsna.find(tmp_path)).file.original_size == (1000, 2000)
    rows = [["id", "width", "height"], ["1377", "1000", "2000"], ["1377", "2000", "1000"]]
    forms.write(tmp_path, {SIZES: forms.table(rows)})
    with pytest.raises(
        BoneAgeError, match=r"original_sizes\.csv, row 3: 1377 has another size in an earlier row; keep"
    ):
        rsna.find(tmp_path)


def test_two_tables_with_different_sizes_of_one_image_are_an_error(tmp_path):
    folder_of_squares(tmp_path)
    forms.write(tmp_path, {SIZES: sizes(["1377"]), "more/sizes.csv": sizes(["1377", "1378"])})
    assert first(rsna.find(tmp_path)).file.original_size == (1000, 2000)
    forms.write(tmp_path, {SIZES: sizes(["1377"], width=2000)})
    with pytest.raises(
        BoneAgeError, match=r"more/sizes\.csv and original_sizes\.csv give different sizes for 1377; keep one"
    ):
        rsna.find(tmp_path)


@pytest.mark.parametrize("size", [("1000", "0"), ("", "2000"), ("1e3", "2000"), ("-5", "20")])
def test_an_invalid_size_is_named(tmp_path, size):
    folder_of_squares(tmp_path)
    forms.write(tmp_path, {SIZES: forms.table([["id", "width", "height"], ["1377", *size]])})
    with pytest.raises(BoneAgeError, match=r"original_sizes\.csv, row 2: the size of 1377.*in pixels"):
        rsna.find(tmp_path)


def test_square_images_without_sizes_are_warned_about(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        rsna.find(folder_of_squares(tmp_path))
    assert "All images are squares of 24 pixels" in caplog.text
    assert "id,width,height" in caplog.text


@pytest.mark.parametrize("form", ["sizes", "originals"])
def test_correct_aspect_ratios_give_no_warning(tmp_path, caplog, form):
    if form == "sizes":
        folder_of_squares(tmp_path)
        forms.write(tmp_path, {SIZES: sizes(forms.TRAIN_IDS)})
    else:
        forms.official(tmp_path)
    with caplog.at_level(logging.WARNING):
        rsna.find(tmp_path)
    assert "squares" not in caplog.text


def test_a_restored_copy_and_its_original_give_similar_inputs():
    original = cv2.resize(render(120, 0, size=512, seed=2).image, (768, 1024))[:, 60:700]
    copy = cv2.resize(original, (299, 299), interpolation=cv2.INTER_AREA)
    restored = square_pixels(copy, 1024 / 640, "copy")
    preprocessing = Preprocessing(size=128, region="hand", clahe_clips=())
    whole, small = preprocessing.prepare(original).astype(int), preprocessing.prepare(restored).astype(int)
    assert np.abs(whole - small).mean() < 3
    assert np.abs(whole - preprocessing.prepare(copy)).mean() > 3 * np.abs(whole - small).mean()


@pytest.mark.parametrize(
    ("elements", "shape"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (80, 30)),
        ({"ImagerPixelSpacing": [0.1, 0.2], "PixelSpacing": [0.1, 0.1]}, (40, 60)),
        ({"PixelAspectRatio": [3, 2]}, (60, 30)),
        ({"PixelSpacing": [0.1, 0.1]}, (40, 30)),
        ({"PixelSpacing": [0.0, 0.1]}, (40, 30)),
        ({"ImagerPixelSpacing": [0.0, 0.0], "PixelSpacing": [0.2, 0.1]}, (80, 30)),
        ({"ImagerPixelSpacing": [0.1], "PixelAspectRatio": [2, 1]}, (80, 30)),
        ({"PixelSpacing": [0.1]}, (40, 30)),
        ({}, (40, 30)),
    ],
)
def test_non_square_dicom_pixels_are_resampled_to_square(elements, shape):
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.uint16)
    image, _ = read(write(dataset(pixels, bits=12, **elements)), "x.dcm")
    assert image.shape == shape


def test_implausible_aspect_ratios_are_rejected():
    with pytest.raises(BoneAgeError, match=r"x\.dcm: its pixels are 9 times as high as wide"):
        square_pixels(np.zeros((4, 4), np.uint8), 9.0, "x.dcm")
