"""A user's own folder of labelled images."""

import pytest

from boneage_jax.data import rsna
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex
from tests.data import rsna_forms as forms

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
def test_every_table_layout_is_read_and_subfolders_are_searched(tmp_path, header, girl, boy):
    path = labelled(tmp_path, [header, ["12", "100.5", girl], ["7", "30", boy], ["a-hand", "9", girl]])
    assert found(path) == [("7", Sex.MALE, 30), ("12", Sex.FEMALE, 100.5), ("a-hand", Sex.FEMALE, 9)]


def test_labels_without_an_image_are_named_and_may_be_skipped(tmp_path):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"], ["13", "30", "M"]])
    with pytest.raises(
        BoneAgeError, match=r"The table labels\.csv has 1 labels without an image: 13; .*--on-missing=sk"
    ):
        found(path)
    assert found(path, on_missing="skip") == [("12", Sex.FEMALE, 100)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["name", "age"], ["12", "100"]], r"labels\.csv is not a label table; expected the columns id, boneage"),
        ([["Case ID", "Sex"], ["12", "F"]], r"labels\.csv has no bone ages"),
        ([["id", "boneage", "sex"]], r"labels\.csv has no bone ages"),
        ([["id", "boneage", "sex"], ["12", "100", "x"]], r"labels\.csv, row 2: the sex 'x' is unknown"),
    ],
)
def test_an_invalid_label_table_is_rejected(tmp_path, rows, message):
    with pytest.raises(BoneAgeError, match=message):
        found(labelled(tmp_path, rows))


def test_empty_folders_and_missing_paths_are_rejected(tmp_path):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BoneAgeError, match=r"contains no images; expected files named by their id: 12\.png"):
        rsna.find_labelled(path, tmp_path / "empty")
    with pytest.raises(BoneAgeError, match=r"The image folder .* does not exist"):
        rsna.find_labelled(path, tmp_path / "absent")
    with pytest.raises(BoneAgeError, match=r"The label table .* does not exist"):
        rsna.find_labelled(tmp_path / "absent.csv", tmp_path)


def test_an_id_matching_several_images_is_an_error_that_names_them(tmp_path):
    forms.write(tmp_path, {"A/hand.png": forms.png(1), "B/hand.png": forms.png(2), "1.png": forms.png(3)})
    for ids, message in (
        (["hand", "1"], r"The id hand of labels\.csv matches A/hand\.png and B/hand\.png; rename one"),
        (["A/hand", "1"], r"1 images without a label: B/hand\.png"),
    ):
        forms.write(tmp_path, {"labels.csv": forms.table([["id", "boneage", "sex"], *([i, "9", "F"] for i in ids)])})
        with pytest.raises(BoneAgeError, match=message):
            found(tmp_path / "labels.csv")
    rows = [["id", "boneage", "sex"], ["A/hand.png", "100", "F"], ["B/hand", "30", "M"], ["1", "9", "F"]]
    forms.write(tmp_path, {"labels.csv": forms.table(rows)})
    assert found(tmp_path / "labels.csv") == [
        ("1", Sex.FEMALE, 9),
        ("A/hand", Sex.FEMALE, 100),
        ("B/hand", Sex.MALE, 30),
    ]


def test_the_same_image_in_two_formats_is_an_error(tmp_path):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"]])
    forms.write(tmp_path, {"train/12.tif": forms.png(12, ".tif")})
    with pytest.raises(BoneAgeError, match=r"The id 12 of labels\.csv matches train/12\.png and train/12\.tif"):
        found(path)


def test_archives_and_images_with_an_unknown_suffix_are_read(tmp_path):
    images = {**forms.images(["7"], "in/"), "12.img": forms.png(12, ".jpg"), "notes.txt": b"text"}
    forms.write(tmp_path, {"images.zip": forms.archive(images)})
    rows = [["id", "boneage", "sex"], ["12", "100", "F"], ["7", "30", "M"]]
    forms.write(tmp_path, {"labels.csv": forms.table(rows)})
    pairs = rsna.find_labelled(tmp_path / "labels.csv", tmp_path / "images.zip")
    assert [(pair.id, pair.file.name) for pair in pairs] == [("7", "in/7.png"), ("12", "12.img")]


def test_unusable_rows_may_be_skipped(tmp_path, caplog):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"], ["7", "30", "O"], ["a-hand", "old", "F"]])
    with pytest.raises(BoneAgeError, match=r"labels\.csv, row 3: the sex 'O' is unknown"):
        found(path)
    with caplog.at_level("WARNING"):
        assert found(path, on_missing="skip") == [("12", Sex.FEMALE, 100)]
    assert "2 rows of the table labels.csv are skipped: labels.csv, row 3: the sex 'O' is unknown" in caplog.text


def test_a_row_without_an_id_is_not_reported_as_a_label_without_an_image(tmp_path, caplog):
    rows = [["id", "boneage", "sex"], ["12", "100", "F"], ["7", "9", "M"], ["a-hand", "9", "M"], ["", "9", "F"]]
    path = labelled(tmp_path, rows)
    with caplog.at_level("WARNING"):
        assert len(found(path, on_missing="skip")) == 3
    assert "labels.csv, row 5: the id is empty" in caplog.text
    assert "without an image" not in caplog.text


def test_a_damaged_archive_beside_the_images_is_an_error(tmp_path):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"]])
    forms.write(tmp_path, {"more.zip": b"PK"})
    with pytest.raises(BoneAgeError, match=r"more\.zip is not an intact zip archive"):
        found(path)


def test_unreadable_files_may_be_skipped(tmp_path, caplog):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"]])
    packed = bytearray(forms.archive(forms.images(["7"])))
    packed[60] ^= 255
    forms.write(tmp_path, {"more.zip": b"PK", "7.zip": bytes(packed)})
    with caplog.at_level("WARNING"):
        assert found(path, on_missing="skip") == [("12", Sex.FEMALE, 100)]
    assert "1 files, folders or archives are skipped: " in caplog.text
    assert "more.zip is not an intact zip archive" in caplog.text


def test_tables_beside_the_images_that_cannot_be_read_are_logged(tmp_path, caplog):
    path = labelled(tmp_path, [["id", "boneage", "sex"], ["12", "100", "F"], ["7", "9", "M"], ["a-hand", "9", "M"]])
    forms.write(tmp_path, {"notes.csv": b"\xff\xfe\x00", "~$labels.xlsx": b"owner", "train/~$more.xlsx": b"owner"})
    with caplog.at_level("WARNING"):
        assert len(found(path)) == 3
    assert "notes.csv is not a csv table in UTF-8 or UTF-16" in caplog.text
    assert "~$" not in caplog.text
