"""A user's own folder of labelled images."""

import pytest
import rsna_forms as forms

from boneage_jax.data import rsna
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

IDS = ["7", "12", "a-hand"]


def labelled(tmp_path, rows, ids=IDS, name="labels.csv"):
    forms.write(tmp_path, {name: forms.table(rows)} | forms.images(ids[:2], "train/") | {f"{ids[2]}.png": forms.png(3)})
    return tmp_path / name


def found(path, **options):
    return [(image.id, image.sex, image.age) for image in rsna.find_labelled(path, path.parent, **options)]


@pytest.mark.parametrize(
    ("header", "girl", "boy"),
    [
        (["id", "boneage", "sex"], "F", "M"),
        (["id", "boneage", "male"], "FALSE", "TRUE"),
        (["Case ID", "Ground truth bone age (months)", "Sex"], "F", "M"),
    ],
)
def test_every_form_of_table_and_every_folder_is_read(tmp_path, header, girl, boy):
    path = labelled(tmp_path, [header, ["12", "100.5", girl], ["7", "30", boy], ["a-hand", "9", girl]])
    assert found(path) == [("7", Sex.MALE, 30), ("12", Sex.FEMALE, 100.5), ("a-hand", Sex.FEMALE, 9)]


def test_what_has_no_partner_is_named_and_may_be_skipped(tmp_path):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"], ["13", "30", "M"]])
    with pytest.raises(
        BoneAgeError, match=r"The table labels\.csv has 1 labels without an image: 13; .*--on-missing=sk"
    ):
        found(path)
    assert found(path, on_missing="skip") == [("12", Sex.FEMALE, 100)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["name", "age"], ["12", "100"]], r"labels\.csv is no label table; expected the columns id, boneage"),
        ([["Case ID", "Sex"], ["12", "F"]], r"labels\.csv has no bone ages"),
        ([["id", "boneage", "sex"]], r"labels\.csv has no bone ages"),
        ([["id", "boneage", "sex"], ["12", "100", "x"]], r"labels\.csv, row 2: the sex 'x' is unknown"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, rows, message):
    with pytest.raises(BoneAgeError, match=message):
        found(labelled(tmp_path, rows))


def test_a_folder_without_images_and_missing_places_are_refused(tmp_path):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BoneAgeError, match=r"holds no image; expected files named by their id: 12\.png"):
        rsna.find_labelled(path, tmp_path / "empty")
    with pytest.raises(BoneAgeError, match=r"The image folder .* does not exist"):
        rsna.find_labelled(path, tmp_path / "absent")
    with pytest.raises(BoneAgeError, match=r"The label table .* does not exist"):
        rsna.find_labelled(tmp_path / "absent.csv", tmp_path)
