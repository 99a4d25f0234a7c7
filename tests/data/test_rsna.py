import hashlib
import io
import zipfile

import numpy as np
import openpyxl
import pytest

from boneage_jax.data import files, rsna
from boneage_jax.data.inputs import Kind
from boneage_jax.data.radiograph import decode
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex
from tests.data import rsna_forms as forms


def every_id(found):
    return sorted(i.id for split in ("train", "validation") for i in found[split])


@pytest.mark.parametrize(
    "prefix",
    ["boneage-training-dataset/", "boneage-training-dataset/boneage-training-dataset/", "", "images/"],
    ids=["unpacked", "kaggle", "beside the table", "renamed folder"],
)
@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_unpacked_training_images_are_found(tmp_path, prefix, ending):
    forms.write(tmp_path, forms.images(forms.TRAIN_IDS, prefix, ending=ending))
    forms.write(tmp_path, {forms.TRAIN_CSV: forms.table(forms.train_rows())})
    found = rsna.find(tmp_path)
    assert every_id(found) == sorted(forms.TRAIN_IDS)
    assert len(found["validation"]) == 3


def test_the_official_archive_is_read_without_unpacking(tmp_path):
    found = rsna.find(forms.official(tmp_path))
    assert every_id(found) == sorted(forms.TRAIN_IDS)
    assert [i.id for i in found["train"]] == sorted((i.id for i in found["train"]), key=int)
    for image in found["train"]:
        np.testing.assert_array_equal(decode(image.file.read(), "a"), decode(forms.png(int(image.id)), "b"))


def test_a_subset_of_images_keeps_the_validation_split_of_the_whole_set(tmp_path):
    whole = rsna.find(forms.official(tmp_path / "whole"))
    held = {image.id for image in whole["validation"]}
    part = [*sorted(held)[:1], *[image.id for image in whole["train"]][::2]]
    forms.write(tmp_path / "part", forms.images(part) | {forms.TRAIN_CSV: forms.table(forms.train_rows())})
    found = rsna.find(tmp_path / "part", on_missing="skip")
    assert {image.id for image in found["validation"]} == held & set(part)
    assert every_id(found) == sorted(part)
    forms.write(tmp_path / "none", forms.images(part[1:]) | {forms.TRAIN_CSV: forms.table(forms.train_rows())})
    with pytest.raises(BoneAgeError, match=r"0 of the \d+ images belong to the tenth .* add images"):
        rsna.find(tmp_path / "none", on_missing="skip")


def validation_set(ids, folder="Bone Age Validation Set/"):
    rows = [["Image ID", "male", "Bone Age (months)"], *([i, "FALSE", "30"] for i in ids)]
    half = len(ids) // 2
    parts = {
        f"{folder}boneage-validation-dataset-{n}.zip": forms.archive(
            forms.images(part, f"boneage-validation-dataset-{n}/")
        )
        for n, part in ((1, ids[:half]), (2, ids[half:]))
    }
    return {f"{folder}Validation Dataset.csv": forms.table(rows, end="\r\n"), **parts}


@pytest.mark.parametrize("packed", [True, False])
def test_nested_validation_archives_are_read_and_replace_the_hold_out(tmp_path, packed):
    entries = validation_set(["1386000", "1392000", "1393000"])
    entries["__MACOSX/._1.png"] = b"shadow"
    forms.official(tmp_path)
    forms.write(tmp_path, {"Bone Age Validation Set.zip": forms.archive(entries)} if packed else entries)
    found = rsna.find(tmp_path)
    assert [i.id for i in found["validation"]] == ["1386000", "1392000", "1393000"]
    assert len(found["train"]) == len(forms.TRAIN_IDS)
    assert found["validation"][2].file.read() == forms.png(1393000)
    assert (found["validation"][0].sex, found["validation"][0].age) == (Sex.FEMALE, 30.0)


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_test_set_tables_with_decimal_ages_and_sex_letters_are_read(tmp_path, kind):
    rows = [["Case ID", "Sex", "Ground truth bone age (months)"], [4360, "M", 168.93], [4361, "F", 42]]
    if kind == "xlsx":
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        data = io.BytesIO()
        book.save(data)
        labels = data.getvalue()
    else:
        labels = forms.table(rows)
    entries = {
        f"Bone Age Test Set/Bone age ground truth.{kind}": labels,
        **forms.images(["4360", "4361"], "Bone Age Test Set/Test Set Images/"),
    }
    forms.write(forms.official(tmp_path), {"Bone Age Test Set.zip": forms.archive(entries)})
    test = rsna.find(tmp_path)["test"]
    assert [(i.id, i.sex, i.age) for i in test] == [("4360", Sex.MALE, 168.93), ("4361", Sex.FEMALE, 42.0)]


def test_splits_without_images_or_without_labels_are_absent(tmp_path):
    forms.official(tmp_path)
    forms.write(tmp_path, {k: v for k, v in validation_set(["5", "6"]).items() if k.endswith("csv")})
    forms.write(tmp_path, {"boneage-test-dataset.csv": forms.table([["Case ID", "Sex"], ["4360", "M"]])})
    forms.write(tmp_path, forms.images(["4360"], "boneage-test-dataset/boneage-test-dataset/"))
    forms.write(tmp_path, {"original_sizes.csv": forms.table([["id", "width", "height"], ["1377", "1", "2"]])})
    found = rsna.find(tmp_path)
    assert sorted(found) == ["train", "validation"]
    assert every_id(found) == sorted(forms.TRAIN_IDS)


def test_folders_may_name_the_split_of_tables_and_images(tmp_path):
    for split, ids in {"train": forms.TRAIN_IDS, "validation": ["5", "6"], "test": ["7", "8", "9"]}.items():
        labels = forms.table(forms.train_rows(ids))
        forms.write(tmp_path, {f"{split}/labels.csv": labels, **forms.images(ids, f"{split}/images/")})
    assert {name: len(images) for name, images in rsna.find(tmp_path).items()} == {
        "train": len(forms.TRAIN_IDS),
        "validation": 2,
        "test": 3,
    }


def test_folders_that_only_contain_the_word_of_a_split_are_training_images(tmp_path):
    forms.write(tmp_path, forms.images(forms.TRAIN_IDS[:15], "latest/"))
    forms.write(tmp_path, forms.images(forms.TRAIN_IDS[15:], "invalid/"))
    forms.write(tmp_path, {"latest/labels.csv": forms.table(forms.train_rows())})
    found = rsna.find(tmp_path)
    assert sorted(found) == ["train", "validation"]
    assert every_id(found) == sorted(forms.TRAIN_IDS)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    forms.official(tmp_path / "data")
    assert every_id(rsna.find("~/data")) == sorted(forms.TRAIN_IDS)
    assert not rsna.is_official("~/data")
    with pytest.raises(BoneAgeError, match="The data folder ~nobody-of-this-name/data does not exist"):
        rsna.find("~nobody-of-this-name/data")


@pytest.mark.parametrize(("true", "false"), [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
@pytest.mark.parametrize("bom", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_table_variants_of_booleans_bom_and_line_ends_are_read(tmp_path, true, false, bom, end):
    rows = forms.train_rows()
    rows = [[i, a, {"True": true, "False": false}.get(s, s)] for i, a, s in rows] + [["", "", ""]]
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows, end, bom)})
    found = rsna.find(tmp_path)
    sexes = {i.id: i.sex for split in found.values() for i in split}
    assert [sexes[i] for i in forms.TRAIN_IDS] == [Sex.MALE if n % 2 == 0 else Sex.FEMALE for n in range(30)]


def test_unpacked_images_take_precedence_and_loose_extras_are_ignored(tmp_path):
    forms.official(tmp_path)
    forms.write(tmp_path, forms.images(["1377"], "boneage-training-dataset/"))
    forms.write(tmp_path, forms.images(["1377", "77"], "originals/"))
    found = rsna.find(tmp_path)
    (image,) = [i for split in found.values() for i in split if i.id == "1377"]
    assert image.file.name == "boneage-training-dataset/1377.png"


def test_different_files_with_the_same_id_are_rejected(tmp_path):
    forms.official(tmp_path)
    forms.write(tmp_path, {"boneage-training-dataset/1377.png": forms.png(1377) + b"more"})
    refused(tmp_path, "boneage-training-dataset/1377.png and boneage-training-dataset.zip/", "different contents")


def refused(folder, *parts, **options):
    with pytest.raises(BoneAgeError) as caught:
        rsna.find(folder, **options)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_missing_or_empty_folder_error_links_to_the_data(tmp_path, name):
    refused(tmp_path / name, "www.rsna.org", "non-commercial")


def test_a_missing_training_images_error_links_to_the_data(tmp_path):
    refused(forms.write(tmp_path, {forms.TRAIN_CSV: forms.table(forms.train_rows())}), "www.rsna.org")


def test_unpaired_labels_and_images_are_named_or_skipped(tmp_path):
    rows = forms.train_rows() + [[str(n), "12", "True"] for n in range(20000, 20012)]
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows)})
    refused(tmp_path, "12 labels without an image", "20000, 20001", "20009, ...", "data.on_missing=skip")
    assert every_id(rsna.find(tmp_path, on_missing="skip")) == sorted(forms.TRAIN_IDS)
    forms.write(tmp_path, {forms.TRAIN_CSV: forms.table(forms.train_rows()[:-1])})
    refused(tmp_path, "1 images without a label", forms.TRAIN_IDS[-1])
    assert every_id(rsna.find(tmp_path, on_missing="skip")) == sorted(forms.TRAIN_IDS[:-1])
    refused(tmp_path, "on_missing", on_missing="ignore")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["9", "ten", "True"], "'ten' is not a number"),
        (["9", "", "True"], "is not a number"),
        (["9", "nan", "True"], "outside 0 to 240"),
        (["9", "240.5", "True"], "outside 0 to 240"),
        (["9", "-1", "True"], "outside 0 to 240"),
        (["9", "12", "maybe"], "sex 'maybe' is unknown"),
        (["9", "12"], "sex '' is unknown"),
        (["1377", "12", "True"], "1377 appears twice"),
        (["", "12", "True"], "id is empty"),
    ],
)
def test_an_invalid_label_is_reported_with_file_and_row(tmp_path, row, message):
    rows = [*forms.train_rows(), row]
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows)})
    refused(tmp_path, f"{forms.TRAIN_CSV}, row 32", message)


def test_a_table_without_a_usable_row_is_an_error_even_if_rows_may_be_skipped(tmp_path):
    rows = [["id", "boneage", "male"], *([i, "ten", "True"] for i in forms.TRAIN_IDS)]
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows)})
    refused(tmp_path, f"{forms.TRAIN_CSV}, row 2: the bone age 'ten' is not a number", on_missing="skip")


def test_contradicting_tables_are_rejected_and_equal_ones_accepted(tmp_path):
    forms.write(forms.official(tmp_path), {"copy/" + forms.TRAIN_CSV: forms.table(forms.train_rows())})
    assert every_id(rsna.find(tmp_path)) == sorted(forms.TRAIN_IDS)
    forms.write(tmp_path, {"copy/" + forms.TRAIN_CSV: forms.table(forms.train_rows()[:-1])})
    refused(tmp_path, "copy/" + forms.TRAIN_CSV, "differently")


@pytest.mark.parametrize("name", ["../1377.png", "/tmp/1377.png", "a/../../1.png", "..\\1.png", "C:\\1.png"])
def test_an_archive_with_path_traversal_is_rejected(tmp_path, name):
    forms.write(forms.official(tmp_path), {"more.zip": forms.archive({name: b"x"})})
    refused(tmp_path, "more.zip", "points outside the archive's folder")


def test_a_corrupt_archive_is_rejected_and_named(tmp_path):
    data = (forms.official(tmp_path) / "boneage-training-dataset.zip").read_bytes()
    forms.write(tmp_path, {"boneage-training-dataset.zip": data[: len(data) // 2]})
    refused(tmp_path, "boneage-training-dataset.zip", "not an intact zip")


def test_a_corrupt_entry_is_rejected_when_it_is_read(tmp_path):
    path = forms.official(tmp_path) / "boneage-training-dataset.zip"
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    (image,) = [i for split in rsna.find(tmp_path).values() for i in split if i.id == "1377"]
    with pytest.raises(BoneAgeError, match=r"boneage-training-dataset/1377.png"):
        image.file.read()


def test_an_entry_above_the_unpacked_size_limit_is_rejected(tmp_path, monkeypatch):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("1377.png", bytes(3_000_000))
    (tmp_path / "bomb.zip").write_bytes(data.getvalue())
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 2_000_000)
    (bomb,) = files.list_files(tmp_path).files
    with pytest.raises(BoneAgeError, match=r"bomb.zip/1377.png is refused as a decompression bomb"):
        bomb.read()


def test_a_broken_workbook_is_rejected_and_named(tmp_path):
    forms.write(forms.official(tmp_path), {"Bone age ground truth.xlsx": b"no workbook"})
    refused(tmp_path, "Bone age ground truth.xlsx")


def test_the_lock_file_of_a_workbook_is_ignored(tmp_path):
    forms.write(forms.official(tmp_path), {"~$labels.xlsx": b"owner", "more.zip": forms.archive({"~$a.csv": b"\xff"})})
    assert every_id(rsna.find(tmp_path)) == sorted(forms.TRAIN_IDS)


def test_an_unreadable_archive_may_be_skipped(tmp_path, caplog):
    forms.write(forms.official(tmp_path), {"more.zip": b"PK"})
    refused(tmp_path, "more.zip is not an intact zip archive")
    with caplog.at_level("WARNING"):
        assert every_id(rsna.find(tmp_path, on_missing="skip")) == sorted(forms.TRAIN_IDS)
    assert "more.zip is not an intact zip archive" in caplog.text


def test_images_named_by_a_uid_without_suffix_are_paired(tmp_path):
    ids = [f"CR.1.2.840.{number}" for number in range(30)]
    images = {f"images/{one}": forms.png(number) for number, one in enumerate(ids)}
    forms.write(tmp_path, {**images, forms.TRAIN_CSV: forms.table(forms.train_rows(ids))})
    assert every_id(rsna.find(tmp_path)) == sorted(ids)


def test_images_of_an_unknown_suffix_are_paired(tmp_path):
    forms.write(tmp_path, {f"{one}.img": forms.png(int(one)) for one in forms.TRAIN_IDS})
    forms.write(tmp_path, {forms.TRAIN_CSV: forms.table(forms.train_rows())})
    assert every_id(rsna.find(tmp_path)) == sorted(forms.TRAIN_IDS)


AGE_AND_WARD: dict[str, Kind] = {"chronological_age": "number", "ward": ("north", "South", "unknown")}


def with_inputs(rows, titles=("Chronological Age", "WARD"), wards=("NORTH", "south", "")):
    added = [[str(60 + n / 4), wards[n % 3]] for n in range(len(rows) - 1)]
    return [row + more for row, more in zip(rows, [list(titles), *added], strict=True)]


@pytest.mark.parametrize("titles", [("chronological_age", "ward"), (" CHRONOLOGICAL age", "Ward")])
def test_further_columns_are_read_by_name_in_any_spelling(tmp_path, titles):
    rows = with_inputs(forms.train_rows(), titles)
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows)})
    found = rsna.find(tmp_path, inputs=AGE_AND_WARD)
    values = {i.id: i.inputs for split in found.values() for i in split}
    assert [values[i]["chronological_age"] for i in forms.TRAIN_IDS] == [60 + n / 4 for n in range(30)]
    assert [values[i]["ward"] for i in forms.TRAIN_IDS] == ["north", "South", "unknown"] * 10


def test_further_columns_of_a_workbook_are_read(tmp_path):
    book = openpyxl.Workbook()
    for row in [["Case ID", "Sex", "Ground truth bone age (months)", "Chronological age"], [4360, "M", 168.93, 170]]:
        book.active.append(row)
    data = io.BytesIO()
    book.save(data)
    rows = with_inputs(forms.train_rows())
    test_set = {"Bone age ground truth.xlsx": data.getvalue(), **forms.images(["4360"], "Test Set Images/")}
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows), **test_set})
    found = rsna.find(tmp_path, inputs={"chronological_age": "number"})
    assert found["test"][0].inputs == {"chronological_age": 170.0}


def test_unrequested_columns_change_nothing(tmp_path):
    forms.official(tmp_path / "plain")
    rows = with_inputs(forms.train_rows(), wards=("?", "!", "nobody's"))
    forms.write(forms.official(tmp_path / "more"), {forms.TRAIN_CSV: forms.table(rows)})
    assert rsna.find(tmp_path / "plain") == rsna.find(tmp_path / "more")


def test_further_columns_do_not_change_the_validation_split(tmp_path):
    rows = with_inputs(forms.train_rows())
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows)})
    plain, asked = rsna.find(tmp_path), rsna.find(tmp_path, inputs=AGE_AND_WARD)
    for split in ("train", "validation"):
        assert [i.id for i in asked[split]] == [i.id for i in plain[split]]


def test_a_missing_column_is_named_with_its_file(tmp_path):
    forms.official(tmp_path)
    refused(
        tmp_path,
        f"{forms.TRAIN_CSV} has no column 'chronological_age'",
        "the RSNA files do not have",
        "(in months)",
        inputs={"chronological_age": "number"},
    )
    refused(tmp_path, f"{forms.TRAIN_CSV} has no column 'ward'", inputs={"ward": ("a", "b")})


def test_a_second_table_may_supply_the_column_if_the_labels_agree(tmp_path):
    forms.official(tmp_path)
    rows = with_inputs(forms.train_rows())
    for name in ("a.csv", "z.csv"):  # before and after the official table
        forms.write(tmp_path, {name: forms.table(rows)})
        found = rsna.find(tmp_path, inputs=AGE_AND_WARD)
        assert all(i.inputs["ward"] for split in found.values() for i in split)
        (tmp_path / name).unlink()
    rows[5][1] = "99"
    forms.write(tmp_path, {"z.csv": forms.table(rows)})
    refused(tmp_path, f"{forms.TRAIN_CSV} and z.csv", "differently", inputs=AGE_AND_WARD)


def test_tables_with_contradicting_further_values_are_rejected(tmp_path):
    forms.official(tmp_path)
    rows = with_inputs(forms.train_rows())
    forms.write(tmp_path, {"a.csv": forms.table(rows)})
    rows[5][3] = "61.75"
    forms.write(tmp_path, {"b.csv": forms.table(rows)})
    refused(tmp_path, "a.csv and b.csv", "differently", inputs=AGE_AND_WARD)


def test_omitted_splits_do_not_need_the_further_columns(tmp_path):
    rows = with_inputs(forms.train_rows())
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows)})
    forms.write(tmp_path, {k: v for k, v in validation_set(["5", "6"]).items() if k.endswith("csv")})
    forms.write(tmp_path, {"boneage-test-dataset.csv": forms.table([["Case ID", "Sex"], ["4360", "M"]])})
    assert sorted(rsna.find(tmp_path, inputs=AGE_AND_WARD)) == ["train", "validation"]


def test_a_duplicate_further_column_is_rejected(tmp_path):
    rows = with_inputs(forms.train_rows(), ("ward", "Ward"))
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows)})
    refused(tmp_path, forms.TRAIN_CSV, "several columns for ward: 'ward' and 'Ward'", inputs={"ward": ("a", "b")})


@pytest.mark.parametrize(
    ("age", "ward", "message"),
    [
        ("", "north", "chronological_age is empty"),
        ("ten", "north", "chronological_age is 'ten', which is not a number"),
        ("301", "north", "chronological_age 301 lies outside 0 to 300 months"),
        ("60", "east", "ward 'east' is not known"),
    ],
)
def test_an_invalid_further_value_is_reported_with_file_and_row(tmp_path, age, ward, message):
    rows = [*with_inputs(forms.train_rows()), ["9", "12", "True", age, ward]]
    forms.write(forms.official(tmp_path), {forms.TRAIN_CSV: forms.table(rows)})
    refused(tmp_path, f"{forms.TRAIN_CSV}, row 32: {message}", inputs=AGE_AND_WARD)


def test_official_labels_are_recognised_by_their_tenth_even_without_images(tmp_path, monkeypatch):
    held = sorted(image.id for image in rsna.find(forms.official(tmp_path / "whole"))["validation"])
    forms.write(tmp_path / "labels", {forms.TRAIN_CSV: forms.table(forms.train_rows())})
    assert not rsna.is_official(tmp_path / "labels")
    monkeypatch.setattr(rsna, "_OFFICIAL_TENTH", hashlib.sha256("\n".join(held).encode()).hexdigest())
    assert rsna.is_official(tmp_path / "labels")
    forms.write(tmp_path / "labels", {"notes.csv": "id,male\n7,Tr\xfce\n".encode("latin-1")})
    assert rsna.is_official(tmp_path / "labels")
    forms.write(tmp_path / "labels", {forms.TRAIN_CSV: forms.table(forms.train_rows(forms.TRAIN_IDS[:-6]))})
    assert not rsna.is_official(tmp_path / "labels")
    forms.write(tmp_path / "labels", {forms.TRAIN_CSV: b"id,boneage,male\n1,abc,True\n"})
    assert not rsna.is_official(tmp_path / "labels")
