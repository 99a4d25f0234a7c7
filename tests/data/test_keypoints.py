import json

import cv2
import numpy as np
import pytest

from boneage_jax.data import keypoints
from boneage_jax.errors import BoneAgeError


def hand(shift=0.0):
    """17 distinct points within 300 x 400 pixels."""
    return np.array([[20.0 + 15 * n + shift, 30.0 + 20 * n] for n in range(17)])


def marked(points):
    return np.column_stack([points, np.full(len(points), 2)]).ravel().tolist()


def write(path, images, marks):
    path.write_text(json.dumps({"images": images, "annotations": marks}))
    return path


def write_one(path, points, **image):
    return write(path, [{"id": 7, "file_name": "1377.png", **image}], [{"image_id": 7, "keypoints": points}])


@pytest.mark.parametrize("name", ["1377.png", "boneage-training-dataset/1377.png"])
def test_key_points_are_read_by_image_name(tmp_path, name):
    images = [{"id": 7, "file_name": name}, {"id": 8, "file_name": "1378.png"}]
    marks = [{"image_id": i, "keypoints": marked(hand(i)), "bbox": [0, 0, 9, 9]} for i in (8, 7)]
    found = keypoints.read_key_points(write(tmp_path / "a.json", images, marks))
    assert sorted(found) == ["1377", "1378"]
    np.testing.assert_array_equal(found["1377"].points, hand(7))
    assert found["1378"].shape is None


def test_the_last_number_of_a_uid_belongs_to_the_image_name(tmp_path):
    names = {7: "a/1.2.840.7", 8: "1.2.840.8.dcm", 9: "9.img"}
    images = [{"id": i, "file_name": name} for i, name in names.items()]
    marks = [{"image_id": i, "keypoints": marked(hand(i))} for i in names]
    found = keypoints.read_key_points(write(tmp_path / "a.json", images, marks))
    assert sorted(found) == ["1.2.840.7", "1.2.840.8", "9"]


def test_points_at_the_origin_are_unmarked_and_unmarked_images_left_out(tmp_path):
    points = hand()
    points[3] = 0
    path = write_one(tmp_path / "a.json", marked(points))
    assert np.flatnonzero(np.isnan(keypoints.read_key_points(path)["1377"].points[:, 0])).tolist() == [3]
    assert keypoints.read_key_points(write_one(path, [0] * 51)) == {}


def test_a_folder_may_hold_one_file_per_split(tmp_path):
    write_one(tmp_path / "train.json", marked(hand()))
    write(
        tmp_path / "validation.json",
        [{"id": 7, "file_name": "1386.png"}],
        [{"image_id": 7, "keypoints": marked(hand())}],
    )
    assert sorted(keypoints.read_key_points(tmp_path)) == ["1377", "1386"]
    write_one(tmp_path / "again.json", marked(hand()))
    with pytest.raises(BoneAgeError, match=r"train\.json, 1377\.png has key points twice \(.*again\.json"):
        keypoints.read_key_points(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", r"a\.json contains no key points .*expected \{\"images\""),
        ("[]", "contains no key points"),
        ('{"images": []}', "contains no key points .*'annotations'"),
        ('{"images": [{"id": 1}], "annotations": []}', "contains no key points .*'file_name'"),
        (
            '{"images": [{"id": 1, "file_name": "7.png", "width": 0, "height": 9}], "annotations": []}',
            r"contains no key points .*the size of 7\.png is 0 x 9 pixels",
        ),
        ('{"images": [], "annotations": [{"image_id": 1, "keypoints": []}]}', "marks an image 1"),
        ('{"images": [], "annotations": [{"image_id": [], "keypoints": []}]}', "contains no key points .*TypeError"),
    ],
)
def test_another_format_is_rejected(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BoneAgeError, match=message):
        keypoints.read_key_points(path)


@pytest.mark.parametrize("values", [[1, 2, 3], ["x"] * 51, [float("nan")] * 51, None])
def test_invalid_key_points_are_reported_with_their_image(tmp_path, values):
    with pytest.raises(BoneAgeError, match=r"a\.json, 1377\.png: expected 17 key points"):
        keypoints.read_key_points(write_one(tmp_path / "a.json", values))


def test_a_missing_key_point_file_is_named(tmp_path):
    with pytest.raises(BoneAgeError, match=r"absent\.json .*No such file"):
        keypoints.read_key_points(tmp_path / "absent.json")
    with pytest.raises(BoneAgeError, match=r"contains no \.json file"):
        keypoints.read_key_points(tmp_path)
    with pytest.raises(BoneAgeError, match=r"The key points k+ \(data\.keypoints\) cannot be read: File name too long"):
        keypoints.read_key_points("k" * 300)


def test_the_heat_map_matches_the_resized_heat_map_of_the_original():
    height, width, size = 400, 300, 100
    y, x = np.mgrid[:height, :width]
    original = np.zeros((height, width))
    for px, py in hand():
        original = np.maximum(original, 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 25.0**2)))
    expected = cv2.resize(original, (size, size), interpolation=cv2.INTER_AREA)
    found = keypoints.draw_heatmap(hand(), (height, width), size)
    assert found.shape == (size, size, 1)
    assert found.dtype == np.uint8
    difference = np.abs(found[..., 0] - expected)
    # Largest where two Gaussians meet: resizing smooths that edge.
    assert difference.max() < 4
    assert difference.mean() < 0.5


def test_heat_map_peaks_at_255_and_falls_by_root_e_at_one_sigma():
    found = keypoints.draw_heatmap(np.array([[100.0, 60.0]]), (200, 200), 200)[..., 0]
    assert found[60, 100] == 255
    np.testing.assert_allclose(found[[60, 60, 35, 85], [75, 125, 100, 100]], 255 * np.exp(-0.5), atol=0.6)
    assert not keypoints.draw_heatmap(np.zeros((0, 2)), (200, 200), 32).any()


def test_points_on_a_resized_copy_need_the_size_of_the_original(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(BoneAgeError, match=r"1377\.png: a key point at \(95, 130\) lies outside .* 64 x 96 pixels"):
        keypoints.read_key_points(write_one(path, marked(hand())))["1377"].heatmap((96, 64), 32)
    known = keypoints.read_key_points(write_one(path, marked(hand()), width=300, height=400))["1377"]
    expected = keypoints.draw_heatmap(hand(), (400, 300), 32)
    np.testing.assert_array_equal(known.heatmap((96, 64), 32), expected)
