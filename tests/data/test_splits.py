import hashlib
import random

import pytest

from boneage_jax import data
from boneage_jax.data.splits import fold, hospital, split_of_path, validation_tenth
from boneage_jax.errors import BoneAgeError
from tests.data import rsna_forms


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("boneage-training-dataset.zip/boneage-training-dataset/1377.png", "train"),
        (
            "Bone Age Validation Set/boneage-validation-dataset-1.zip/boneage-validation-dataset-1/1386.png",
            "validation",
        ),
        ("Bone Age Test Set/Test Set Images/4360.png", "test"),
        ("RSNA_TRAIN/images/1.png", "train"),
        ("train2/1.png", "train"),
        ("valid/1.png", "validation"),
        ("testing.csv", "test"),
        ("train/test/1.png", "test"),
        ("train/latest/1.png", "train"),
        ("latest/1.png", None),
        ("invalid/1.png", None),
        ("contest/constraints.csv", None),
        ("trained/validated/tests_/1.png", None),
        ("pr\u00e9test/1.png", None),
        ("1.png", None),
    ],
)
def test_a_path_names_a_split_by_a_whole_word(path, split):
    assert split_of_path(path) == split


def children():
    """A synthetic label table with ids and proportions like RSNA's."""
    ids = [*range(1377, 4560, 3), *range(4560, 15612, 3)]
    return [(str(n), int(n * 7919 % 100 < 54), float(1 + n * 104729 % 228)) for n in ids]


def tenth(rows):
    return validation_tenth(*zip(*rows, strict=True))


def test_validation_ids_are_pinned():
    held = tenth(children())
    digest = hashlib.sha256("\n".join(sorted(held)).encode()).hexdigest()
    assert (len(held), digest[:16]) == (474, "e02d904c30629dc9")


def test_the_order_of_the_rows_does_not_matter():
    rows = children()
    expected = tenth(rows)
    random.Random(0).shuffle(rows)
    assert tenth(rows) == expected


@pytest.mark.parametrize("part", [lambda r: hospital(r[0]), lambda r: r[1], lambda r: r[2] // 48])
def test_validation_holds_a_tenth_of_every_group(part):
    rows = children()
    held = tenth(rows)
    for group in {part(row) for row in rows}:
        members = [row[0] for row in rows if part(row) == group]
        assert len(held & set(members)) / len(members) == pytest.approx(0.1, abs=0.02)


def test_folds_partition_the_ids_and_are_stratified():
    rows = children()
    folds = [fold(f"{number}/5", *zip(*rows, strict=True)) for number in range(1, 6)]
    assert sum(map(len, folds)) == len(set().union(*folds)) == len(rows)
    for part in (lambda r: hospital(r[0]), lambda r: r[1], lambda r: r[2] // 48):
        for group in {part(row) for row in rows}:
            members = {row[0] for row in rows if part(row) == group}
            assert [len(each & members) / len(members) for each in folds] == pytest.approx([0.2] * 5, abs=0.02)


@pytest.mark.parametrize("which", ["", "2", "0/5", "6/5", "1/1", "a/b"])
def test_an_invalid_fold_is_rejected(which):
    with pytest.raises(BoneAgeError, match=r"expected K/N, the K-th of N folds, such as 1/5"):
        fold(which, *zip(*children(), strict=True))


def test_hospital_is_derived_from_the_id():
    expected = ["Stanford", "Stanford", "Colorado", "", ""]
    assert [hospital(i) for i in ("1377", "4559", "4560", "train-1", "")] == expected


def test_an_rsna_fold_becomes_a_separate_split(tmp_path):
    rsna_forms.official(tmp_path / "rsna")
    small = data.Preprocessing(size=8, clahe_grid=2)
    whole = data.load("rsna_bone_age", tmp_path / "rsna", small, cache=tmp_path)
    folded = data.load("rsna_bone_age", tmp_path / "rsna", small, cache=tmp_path, fold="2/3")
    assert set(folded["train"].ids) | set(folded["fold"].ids) == set(whole["train"].ids)
    assert len(folded["fold"]) == 9
    assert folded["validation"].ids == whole["validation"].ids
    with pytest.raises(BoneAgeError, match=r"27 training images are too few; choose fewer folds"):
        data.load("rsna_bone_age", tmp_path / "rsna", small, cache=tmp_path, fold="40/50")


def test_numbers_of_thousands_of_digits_are_accepted_as_ids_and_rejected_as_folds():
    assert [hospital(number) for number in ("9" * 5000, "0" * 5000 + "1377", "0" * 5000)] == [
        *("Colorado", "Stanford", "Stanford")
    ]
    with pytest.raises(BoneAgeError, match="expected K/N"):
        fold("1/" + "9" * 5000, *zip(*children(), strict=True))
