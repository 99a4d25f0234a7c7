import numpy as np
import pytest

from boneage_jax.data import phantom
from boneage_jax.errors import BoneAgeError
from boneage_jax.regions.boxes import COUNTS, LABELS
from boneage_jax.regions.detector import Detector, named
from boneage_jax.regions.fingers import NAMES
from boneage_jax.regions.metrics import Boxes
from boneage_jax.released import weights as released
from boneage_jax.sex import Sex
from tests.regions.test_fingers import LABEL, hand

SHAPE = (250, 220)


def test_a_complete_hand_has_all_regions_in_order():
    shuffled = np.random.default_rng(1).permutation(17)
    confidences = np.linspace(0.6, 0.9, 17)
    found = named(Boxes(LABEL[shuffled], hand()[shuffled], confidences[shuffled]), SHAPE)
    assert [one.name for one in found.found] == list(NAMES)
    assert [one.label for one in found.found] == [LABELS[label] for label in LABEL]
    assert found.missing == found.surplus == {}
    np.testing.assert_allclose([one.box for one in found.found], hand())
    np.testing.assert_allclose([one.confidence for one in found.found], confidences)


def test_low_confidence_regions_are_missing_and_extra_ones_surplus():
    boxes = np.concatenate([hand(), hand()[-1:] + 60])
    labels = np.append(LABEL, LABEL[-1])
    confidences = np.full(18, 0.9)
    confidences[[0, -1]] = 0.49, 0.8
    found = named(Boxes(labels, boxes, confidences), SHAPE)
    assert found.missing == {"DIP": 1}
    assert found.surplus == {"Wrist": 1}
    assert len(found.found) == 16
    assert found.found[-1].box == tuple(hand()[-1])  # the more confident wrist


def test_boxes_are_clipped_to_the_image():
    boxes = np.array([[-5.0, -6, 20, 30], [200, 240, 230, 260]])
    found = named(Boxes(np.array([3, 4]), boxes, np.ones(2)), SHAPE).found
    assert [one.box for one in found] == [(0, 0, 20, 30), (200, 240, 220, 250)]


def test_without_detections_all_regions_are_missing():
    found = named(Boxes(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0)), SHAPE)
    assert found.found == ()
    assert found.missing == dict(zip(LABELS, COUNTS, strict=True))


def test_region_values_are_rounded_for_json():
    found = named(Boxes(np.array([3]), np.array([[1.26, 2, 3, 4]]), np.array([0.98765])), SHAPE).found[0].to_dict()
    assert found == {"name": "Radius", "label": "Radius", "box": [1.3, 2.0, 3.0, 4.0], "confidence": 0.988}


@pytest.fixture(scope="module")
def detector():
    return Detector()


@pytest.mark.parametrize("age", [60.0, 180.0])
def test_completeness_is_highest_for_an_upright_hand(detector, age):
    image = phantom.render(age, Sex.MALE, size=300, seed=1).image
    up, *turned = (detector.completeness(np.ascontiguousarray(np.rot90(image, quarters))) for quarters in range(4))
    assert 9 < up <= len(NAMES)
    assert max(turned) < 0.6 * up


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_blank_image_has_no_region(detector, dtype):
    assert detector.find(np.zeros((120, 90), dtype)).found == ()


def test_a_colour_image_is_refused(detector):
    with pytest.raises(BoneAgeError, match="expects a greyscale image"):
        detector.find(np.zeros((120, 90, 3), np.uint8))


def test_bone_age_weights_are_refused_as_a_detector():
    with pytest.raises(BoneAgeError, match="expected a region detector"):
        Detector(released.find(released.most_accurate()))
