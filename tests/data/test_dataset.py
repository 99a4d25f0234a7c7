import dataclasses
import pickle

import numpy as np
import pytest
import rsna_forms as forms

from boneage_jax.data import dataset
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import decode
from boneage_jax.errors import BoneAgeError

SMALL = Preprocessing(size=16, clahe_clips=(1.0, 2.0), clahe_grid=2)


@pytest.fixture
def source(tmp_path):
    return forms.official(tmp_path / "source")


def folders(cache):
    return sorted(path.name for path in cache.iterdir())


def test_rsna_items_are_the_prepared_images_with_their_labels(source, tmp_path):
    splits = dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")
    train = splits["train"]
    assert (len(train), len(splits["validation"])) == (27, 3)
    labels = {row[0]: row for row in forms.train_rows()[1:]}
    for index in (0, 13, 26):
        item = train[index]
        expected = SMALL.prepare(decode(forms.png(int(train.ids[index])), ""))
        np.testing.assert_array_equal(item["image"], expected)
        _, age, male = labels[train.ids[index]]
        assert (item["age"], item["sex"], item["index"]) == (float(age), male == "True", index)
        assert item["age"].dtype == np.float32
        assert item["sex"].dtype == item["index"].dtype == np.int32
    assert [h == "Stanford" for h in train.hospital] == [int(i) < 4560 for i in train.ids]


def test_a_split_pickles_small_and_reopens_its_records(source, tmp_path):
    train = dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")["train"]
    image = train[3]["image"]
    copy = pickle.loads(pickle.dumps(train))
    assert len(pickle.dumps(train)) < 5_000
    np.testing.assert_array_equal(copy[3]["image"], image)


def test_the_cache_is_used_again_unless_what_it_holds_would_change(source, tmp_path):
    def cached(preprocessing):
        dataset.load("rsna_bone_age", source, preprocessing, cache=tmp_path / "cache")
        return folders(tmp_path / "cache")

    first = cached(SMALL)
    assert cached(SMALL) == first
    assert cached(dataclasses.replace(SMALL, scaling="standardise")) == first
    assert len(cached(dataclasses.replace(SMALL, exposure=None))) == 2
    rows = forms.train_rows()
    rows[1][1] = "99"
    forms.write(source, {forms.TRAIN_CSV: forms.table(rows)})
    assert len(cached(SMALL)) == 3
    forms.write(source, {"boneage-training-dataset/1377.png": forms.png(0, channels=3)})
    assert len(cached(SMALL)) == 4


def test_a_damaged_image_ends_the_build_by_name(source, tmp_path):
    forms.write(source, {"boneage-training-dataset/1377.png": forms.png(1377)[:-20]})
    with pytest.raises(BoneAgeError, match=r"boneage-training-dataset/1377\.png is truncated"):
        dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")


def test_the_phantom_is_reproducible_and_its_splits_share_no_child(tmp_path):
    preprocessing = Preprocessing(size=48, clahe_clips=())
    count = {"train": 4, "validation": 3, "test": 2}

    def load(seed, cache):
        return dataset.load("phantom", None, preprocessing, cache=tmp_path / cache, count=count, seed=seed)

    splits, again, other = load(0, "a"), load(0, "b"), load(1, "a")
    assert {name: len(split) for name, split in splits.items()} == count
    for name, split in splits.items():
        np.testing.assert_array_equal(split.age, again[name].age)
        np.testing.assert_array_equal(split[1]["image"], again[name][1]["image"])
        assert (split.age != other[name].age).all()
    ages = np.concatenate([split.age for split in splits.values()])
    assert len(set(ages)) == 9
    assert splits["train"].hospital == [""] * 4


def test_label_statistics_divide_by_n(source, tmp_path):
    train = dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")["train"]
    mean, sd = dataset.label_statistics(train)
    assert mean == pytest.approx(sum(train.age) / 27)
    assert sd == pytest.approx(np.sqrt(((train.age - mean) ** 2).mean()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rsna", {}, "rsna_bone_age, phantom"),
        ("phantom", {"on_missing": "skip"}, "no option on_missing"),
        ("phantom", {"count": {"train": 3, "dev": 2}}, "no split dev"),
        ("phantom", {"count": {"train": 3}}, "at least one training and one validation"),
        ("rsna_bone_age", {}, "data.dir is not set"),
    ],
)
def test_a_wrong_request_says_what_exists(tmp_path, name, options, message):
    with pytest.raises(BoneAgeError, match=message):
        dataset.load(name, None, SMALL, cache=tmp_path, **options)
