import dataclasses
import json
import pickle

import cv2
import numpy as np
import pytest

from boneage_jax.data import dataset, resample
from boneage_jax.data.keypoints import draw_heatmap
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import decode
from boneage_jax.errors import BoneAgeError
from tests.data import rsna_forms as forms

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


def test_repeated_images_of_one_hospital_keep_their_index(source, tmp_path):
    train = dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")["train"]
    stanford = [i for i, name in enumerate(train.hospital) if name == "Stanford"]
    repeated = dataset.Repeated(train, "Stanford", 3)
    shown = [int(repeated.labels(i)["index"]) for i in range(len(repeated))]

    assert 0 < len(stanford) < len(train)
    assert shown == [*range(len(train)), *stanford, *stanford]
    last = pickle.loads(pickle.dumps(repeated))[len(repeated) - 1]
    np.testing.assert_array_equal(last["image"], train[stanford[-1]]["image"])
    assert [int(dataset.Repeated(train, "Stanford", 1).labels(i)["index"]) for i in range(len(train))] == shown[:27]


def test_a_pickled_split_is_small_and_reopens_its_records(source, tmp_path):
    train = dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")["train"]
    image = train[3]["image"]
    copy = pickle.loads(pickle.dumps(train))
    assert len(pickle.dumps(train)) < 5_000
    np.testing.assert_array_equal(copy[3]["image"], image)


def replace(folder, image_id, content):
    """Replaces one image in the training archive."""
    entries = forms.images(forms.TRAIN_IDS, "boneage-training-dataset/")
    entries[f"boneage-training-dataset/{image_id}.png"] = content
    forms.write(folder, {"boneage-training-dataset.zip": forms.archive(entries)})


def test_the_cache_is_reused_unless_its_contents_would_change(source, tmp_path):
    def cached(preprocessing):
        dataset.load("rsna_bone_age", source, preprocessing, cache=tmp_path / "cache")
        return folders(tmp_path / "cache")

    first = cached(SMALL)
    assert cached(SMALL) == first
    assert cached(dataclasses.replace(SMALL, scaling="standardise")) == first
    assert len(cached(dataclasses.replace(SMALL, exposure=(0.0, 100.0)))) == 2
    rows = forms.train_rows()
    rows[1][1] = "99"
    forms.write(source, {forms.TRAIN_CSV: forms.table(rows)})
    assert len(cached(SMALL)) == 3
    replace(source, "1377", forms.png(0, channels=3))
    assert len(cached(SMALL)) == 4


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(size=64, region="hand"),
        Preprocessing(size=64, region="hand", copy_side=40, clahe_clips=(), clahe_grid=64),
        Preprocessing(size=16, region="joints", clahe_clips=(), clahe_grid=2),
    ],
)
def test_the_cache_is_rebuilt_when_the_blur_of_larger_images_changes(preprocessing, tmp_path, monkeypatch):
    def cached():
        dataset.load("phantom", None, preprocessing, cache=tmp_path, count={"train": 1, "validation": 1})
        return len(folders(tmp_path))

    blur = resample.copy_blur
    changes = {
        "copy_blur": lambda *of: tuple(1.05 * sigma for sigma in blur(*of)),
        "LARGER": 1.4,
        "SQUARE": 2.0,
        "BLUR": np.full((3, 3), 1 / 9),
    }
    assert cached() == cached() == 1
    for count, (name, value) in enumerate(changes.items(), start=2):
        with monkeypatch.context() as patch:
            patch.setattr(resample, name, value)
            assert cached() == count
    assert cached() == 1 + len(changes)


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_replaced_by_one_of_the_same_size_is_prepared_again(packed, tmp_path):
    def cached(image):
        content = {f"{i}.bmp": forms.png(int(i), ".bmp") for i in forms.TRAIN_IDS} | {"1377.bmp": image}
        content = {"images.zip": forms.archive(content)} if packed else content
        source = forms.write(tmp_path / "source", {**content, forms.TRAIN_CSV: forms.table(forms.train_rows())})
        splits = dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")
        (shown,) = (s[s.ids.index("1377")]["image"] for s in splits.values() if "1377" in s.ids)
        return shown

    first, second = (forms.png(seed, ".bmp") for seed in (1, 2))
    assert len(first) == len(second)
    assert (cached(first) != cached(second)).any()
    assert len(folders(tmp_path / "cache")) == 2


def test_a_cache_folder_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(
        BoneAgeError, match=r"The cache folder .* cannot be used .*; choose another one \(data\.cache\)"
    ):
        dataset.load("phantom", None, SMALL, cache=tmp_path / ("k" * 300), count={"train": 1, "validation": 1})


def test_a_damaged_image_stops_the_build_and_is_named(source, tmp_path):
    replace(source, "1377", forms.png(1377)[:-20])
    with pytest.raises(BoneAgeError, match=r"boneage-training-dataset/1377\.png is truncated"):
        dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")


def test_phantom_splits_are_reproducible_and_disjoint(tmp_path):
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


def test_phantom_option_even_changes_only_the_training_ages(tmp_path):
    preprocessing, count = Preprocessing(size=48, clahe_clips=()), {"train": 20, "validation": 20}
    plain, even = (
        dataset.load("phantom", None, preprocessing, cache=tmp_path / "cache", count=count, even=share)
        for share in (0.0, 1.0)
    )
    assert (plain["train"].age != even["train"].age).all()
    np.testing.assert_array_equal(plain["validation"].age, even["validation"].age)


def test_label_statistics_use_the_population_standard_deviation(source, tmp_path):
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
        ("phantom", {"seed": -1}, "seed of the phantom is -1, expected 0 or more"),
        ("rsna_bone_age", {}, "data.dir is not set"),
        ("phantom", {"inputs": {"sex": "number"}}, "not a valid name for a further input"),
    ],
)
def test_an_invalid_load_request_is_rejected_with_the_reason(tmp_path, name, options, message):
    with pytest.raises(BoneAgeError, match=message):
        dataset.load(name, None, SMALL, cache=tmp_path, **options)


INPUTS = {"ward": ("north", "south", "unknown"), "chronological_age": "number", "hand": "keypoints"}


def add_inputs(source, age=60.0):
    rows = forms.train_rows()
    wards = ["South", "", "NORTH"]
    added = [["Ward", "Chronological age"], *([wards[n % 3], str(age + n)] for n in range(len(rows) - 1))]
    forms.write(source, {forms.TRAIN_CSV: forms.table([a + b for a, b in zip(rows, added, strict=True)])})


def mark(path, ids=forms.TRAIN_IDS, x=5):
    """Writes key points for the synthetic images, which are 20 pixels wide and 24 high."""
    points = [value for n in range(17) for value in (x, n + 1, 2)]
    images = [{"id": n, "file_name": f"{i}.png"} for n, i in enumerate(ids)]
    annotations = [{"image_id": n, "keypoints": points, "bbox": [0, 0, 20, 24]} for n in range(len(ids))]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_further_inputs_are_loaded_with_their_image(source, tmp_path):
    add_inputs(source)
    splits = dataset.load(
        "rsna_bone_age",
        source,
        SMALL,
        cache=tmp_path / "cache",
        inputs=INPUTS,
        keypoints=mark(tmp_path / "a.json"),
    )
    for split in pickle.loads(pickle.dumps(splits)).values():
        places = [forms.TRAIN_IDS.index(i) for i in split.ids]
        assert {name: values.dtype.name for name, values in split.inputs.items()} == {
            "chronological_age": "float32",
            "ward": "int32",
        }
        np.testing.assert_array_equal(split.inputs["chronological_age"], [60.0 + n for n in places])
        np.testing.assert_array_equal(split.inputs["ward"], [[1, 2, 0][n % 3] for n in places])
        item = split[1]
        assert sorted(item["inputs"]) == sorted(INPUTS)
        assert item["inputs"]["ward"] == split.inputs["ward"][1]
        assert item["inputs"]["chronological_age"].dtype == np.float32
        expected = draw_heatmap(np.array([[5.0, n + 1.0] for n in range(17)]), (24, 20), 16)
        np.testing.assert_array_equal(item["inputs"]["hand"], expected)
        assert item["image"].shape == (16, 16, 2)


def test_items_have_no_further_inputs_unless_requested(source, tmp_path):
    train = dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache")["train"]
    assert (train.inputs, train.heatmap, train[0]["inputs"]) == ({}, None, {})
    assert dataset.input_statistics(train) == {}


def test_the_cache_is_rebuilt_when_the_further_inputs_change(source, tmp_path):
    def cached(inputs, **options):
        dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache", inputs=inputs, **options)
        return len(folders(tmp_path / "cache"))

    age, ward = {"chronological_age": "number"}, {"ward": ("south", "north", "unknown")}
    add_inputs(source)
    assert cached({}) == cached({}) == 1
    assert cached(age) == cached(age) == 2
    assert cached({**age, **ward}) == cached({**ward, **age}) == 3
    assert cached({**age, "ward": ["north", "south", "unknown"]}) == 4
    add_inputs(source, age=61.0)
    assert cached({}) == 4
    assert cached(age) == 5
    path = mark(tmp_path / "a.json")
    assert cached({"hand": "keypoints"}, keypoints=path) == cached({"hand": "keypoints"}, keypoints=path) == 6
    assert cached({}, keypoints=path) == 6
    mark(path, x=6)
    assert cached({"hand": "keypoints"}, keypoints=path) == 7
    dataset.load("rsna_bone_age", source, dataclasses.replace(SMALL, crop=8), cache=tmp_path / "cache")
    assert len(folders(tmp_path / "cache")) == 7


def test_images_without_key_points_are_an_error_or_get_an_empty_heat_map(source, tmp_path):
    def load(**options):
        return dataset.load(
            "rsna_bone_age", source, SMALL, cache=tmp_path / "cache", inputs={"hand": "keypoints"}, **options
        )

    path = mark(tmp_path / "a.json", forms.TRAIN_IDS[:18])
    with pytest.raises(BoneAgeError, match=r"a\.json has no key points for 12 images: .*, \.\.\.; .*on_missing=skip"):
        load(keypoints=path)
    train = load(keypoints=path, on_missing="skip")["train"]
    for index, image_id in enumerate(train.ids):
        assert train[index]["inputs"]["hand"].any() == (image_id in forms.TRAIN_IDS[:18])
    with pytest.raises(BoneAgeError, match=r"set data\.keypoints to their file"):
        load()


def test_the_phantom_provides_chronological_age_and_key_points(tmp_path):
    inputs = {"chronological_age": "number", "hand": "keypoints"}
    preprocessing = Preprocessing(size=64, clahe_clips=())
    count = {"train": 3, "validation": 1}
    train = dataset.load("phantom", None, preprocessing, cache=tmp_path, inputs=inputs, count=count)["train"]
    plain = dataset.load("phantom", None, preprocessing, cache=tmp_path, count=count)["train"]
    np.testing.assert_array_equal(train.age, plain.age)
    np.testing.assert_array_equal(train[0]["image"], plain[0]["image"])
    deviation = train.inputs["chronological_age"] - train.age
    assert ((np.abs(deviation) < 48) & (deviation != 0)).all()
    heatmap = train[0]["inputs"]["hand"]
    assert (heatmap.shape, heatmap.dtype.name) == ((64, 64, 1), "uint8")
    peaks = (heatmap[..., 0] == cv2.dilate(heatmap, np.ones((3, 3)))) & (heatmap[..., 0] > 150)
    assert 15 <= peaks.sum() <= 19  # 17 joints, some of which may touch or fall between two pixels
    for wrong in ({"ward": ("a", "b")}, {"chronological_age": ("a", "b")}, {"weight": "number"}):
        with pytest.raises(BoneAgeError, match=r"phantom has no input .* chronological_age"):
            dataset.load("phantom", None, preprocessing, cache=tmp_path, inputs=wrong, count=count)


def test_the_phantom_has_the_same_heat_map_with_joint_crops(tmp_path):
    whole, joints = (
        dataset.load(
            "phantom",
            None,
            Preprocessing(size=64, clahe_clips=(), region=region),
            cache=tmp_path,
            inputs={"hand": "keypoints"},
            count={"train": 1, "validation": 1},
        )["train"][0]["inputs"]["hand"][..., 0]
        for region in ("image", "joints")
    )
    assert np.count_nonzero(whole > 150) >= 15
    assert np.corrcoef(whole.ravel(), joints.ravel())[0, 1] > 0.99


def test_input_statistics_are_mean_and_std_of_numeric_inputs(source, tmp_path):
    add_inputs(source)
    inputs = {name: kind for name, kind in INPUTS.items() if name != "hand"}
    train = dataset.load("rsna_bone_age", source, SMALL, cache=tmp_path / "cache", inputs=inputs)["train"]
    ages = train.inputs["chronological_age"].astype(float)
    (name,) = dataset.input_statistics(train)
    assert name == "chronological_age"
    assert dataset.input_statistics(train)[name] == pytest.approx((ages.mean(), ages.std()))
