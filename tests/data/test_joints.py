"""Crops around the joints of a hand: preparation, augmentation, and the datasets with key points."""

import json

import cv2
import numpy as np
import pytest

from boneage_jax import data
from boneage_jax.data import phantom, rsna
from boneage_jax.data.augment import Augmentation, apply
from boneage_jax.data.keypoints import POINTS, KeyPoints
from boneage_jax.errors import BoneAgeError
from tests.data import rsna_forms

CROPS = data.Preprocessing(size=24, region="joints", clahe_clips=())


def drawn() -> phantom.Phantom:
    return phantom.render(120, 1, size=160, seed=3)


def test_each_channel_shows_the_square_around_its_joint():
    hand = drawn()
    prepared = CROPS.prepare(hand.image, hand.key_points)
    assert prepared.shape == (24, 24, POINTS)
    assert CROPS.channels == POINTS
    whole = data.Preprocessing(size=100, region="hand", clahe_clips=()).prepare(hand.image)[..., 0]
    wide = np.pad(whole, 24)
    matches = [(wide[y : y + 24, x : x + 24] == prepared[..., 5]).all() for y in range(100) for x in range(100)]
    y, x = divmod(int(np.argmax(matches)), 100)
    assert sum(matches) == 1
    left, top, right, bottom = data.Preprocessing(size=100, region="hand").window(hand.image)
    middle = (hand.key_points[5] + 0.5 - [left, top]) * 100 / np.array([right - left, bottom - top])
    np.testing.assert_allclose([x - 24 + 12, y - 24 + 12], middle, atol=0.5)


def test_crops_of_unknown_or_far_outside_joints_are_black():
    points = drawn().key_points.astype(float)
    points[3], points[4] = np.nan, (-500, 5000)
    prepared = CROPS.prepare(drawn().image, points)
    assert not prepared[..., [3, 4]].any()
    assert prepared[..., 5].any()


def test_an_image_without_a_hand_still_has_crops():
    flat = np.full((50, 70), 9, np.uint8)
    assert CROPS.prepare(flat, np.full((POINTS, 2), 20.0)).shape == (24, 24, POINTS)


def test_invalid_arguments_and_settings_are_rejected():
    with pytest.raises(BoneAgeError, match=r'"joints" takes 17 key points \[17, 2\], not none'):
        CROPS.prepare(drawn().image)
    with pytest.raises(BoneAgeError, match=r"not an array of shape \(3, 2\)"):
        CROPS.prepare(drawn().image, np.zeros((3, 2)))
    with pytest.raises(BoneAgeError, match=r"got key points, which preprocessing.region 'hand' does not accept"):
        data.Preprocessing(region="hand").prepare(drawn().image, drawn().key_points)
    with pytest.raises(BoneAgeError, match=r"clahe_clips must be one limit or none"):
        data.Preprocessing(region="joints", clahe_clips=(1.0, 2.0))
    with pytest.raises(BoneAgeError, match=r"reach must be a fraction from 0.05 to 1"):
        data.Preprocessing(region="joints", clahe_clips=(), reach=0.0)
    with pytest.raises(BoneAgeError, match=r"size 512 from an image of size / reach = 10240 pixels, more than 4096"):
        data.Preprocessing(region="joints", clahe_clips=(), size=512, reach=0.05)
    with pytest.raises(BoneAgeError, match="not one window"):
        CROPS.window(drawn().image)


def test_augmentation_treats_all_channels_alike():
    image = np.random.default_rng(0).integers(0, 256, (24, 24, POINTS)).astype(np.uint8)
    changes = Augmentation(flip=0.5, rotation=15.0, shift=0.1, zoom=0.1, gamma=0.3, sharpness=0.7)
    view = changes.sample(np.random.default_rng(1), 24, 20)
    each = np.concatenate([apply(image[..., i : i + 1], view) for i in range(POINTS)], axis=-1)
    np.testing.assert_array_equal(apply(image, view), each)


def test_key_points_scale_with_a_resized_copy():
    points = np.array([[-0.5, -0.5], [99.5, 49.5], [np.nan, np.nan]])
    found = KeyPoints("hand", points, (50, 100)).on((100, 200))
    np.testing.assert_allclose(found, [[-0.5, -0.5], [199.5, 99.5], [np.nan, np.nan]])


def test_the_table_of_sizes_places_points_on_a_squashed_copy(tmp_path):
    points = KeyPoints("hand", np.array([[999.5, 499.5]]))
    assert points.with_size((2000, 1000)).shape == (1000, 2000)
    np.testing.assert_allclose(points.with_size((2000, 1000)).on((100, 200)), [[99.5, 49.5]])
    assert points.with_size(None) is points
    assert KeyPoints("hand", points.points, (50, 100)).with_size((2000, 1000)).shape == (50, 100)


def test_joint_crops_of_squashed_copies_use_the_table_of_sizes(tmp_path):
    ids = rsna_forms.TRAIN_IDS
    original = phantom.render(120, 1, size=160, seed=3)
    copy = cv2.imencode(".png", cv2.resize(original.image, (80, 160)))[1].tobytes()  # squashed to half the width
    rows = [["id", "width", "height"], *([i, "1600", "1600"] for i in ids)]
    files = {f"{i}.png": copy for i in ids} | {"sizes.csv": rsna_forms.table(rows)}
    rsna_forms.write(tmp_path / "rsna", {**files, rsna_forms.TRAIN_CSV: rsna_forms.table(rsna_forms.train_rows())})
    marks = np.hstack([(original.key_points + 0.5) * 10 - 0.5, np.full((POINTS, 1), 2.0)]).ravel().tolist()
    images = [{"id": n, "file_name": f"{one}.png"} for n, one in enumerate(ids)]
    annotations = [{"image_id": n, "keypoints": marks} for n in range(len(ids))]
    (tmp_path / "points.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    splits = data.load("rsna_bone_age", tmp_path / "rsna", CROPS, cache=tmp_path, keypoints=tmp_path / "points.json")
    expected = CROPS.prepare(original.image, original.key_points)
    assert np.abs(splits["train"][0]["image"].astype(int) - expected).mean() < 12


def test_the_phantom_provides_joint_crops(tmp_path):
    splits = data.load("phantom", None, CROPS, cache=tmp_path, count={"train": 2, "validation": 1})
    image = splits["train"][0]["image"]
    assert image.shape == (24, 24, POINTS)
    assert all(channel.any() for channel in np.moveaxis(image, -1, 0))


def test_rsna_joint_crops_need_a_key_point_file(tmp_path):
    rsna_forms.official(tmp_path / "rsna")
    with pytest.raises(BoneAgeError, match=r"require key points: set data.keypoints to their file"):
        data.load("rsna_bone_age", tmp_path / "rsna", CROPS, cache=tmp_path)
    ids = [i.id for split in rsna.find(tmp_path / "rsna").values() for i in split]
    file = {
        "images": [{"id": n, "file_name": f"{one}.png"} for n, one in enumerate(ids)],
        "annotations": [{"image_id": n, "keypoints": [8, 8, 2] * 16 + [0, 0, 0]} for n, _ in enumerate(ids)],
    }
    (tmp_path / "points.json").write_text(json.dumps(file))
    splits = data.load("rsna_bone_age", tmp_path / "rsna", CROPS, cache=tmp_path, keypoints=tmp_path / "points.json")
    image = splits["train"][0]["image"]
    assert image[..., 0].any()
    assert not image[..., 16].any()
