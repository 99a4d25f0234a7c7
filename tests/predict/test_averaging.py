"""The mean of several networks' estimates, for given numbers."""

import dataclasses

import numpy as np
import pytest

from boneage_jax.predict.averaging import Member, averaged
from boneage_jax.predict.calibrated import Estimates, mean_of
from boneage_jax.regions.fingers import NAMES
from boneage_jax.released.calibration import Calibration

ALONE = Calibration(1.0, 5.0, (4.0,) * 21, std_scale=1.0, quantile=2.0, images=100)
MEAN = dataclasses.replace(ALONE, intercept=-1.0)


def estimates(*months, parts=False):
    read = np.array(months, np.float32)
    return Estimates(read, None, np.tile(read[:, None], len(NAMES)) if parts else None)


def test_the_mean_is_calibrated_as_a_whole():
    members = [Member(estimates(100, 50), ALONE), Member(estimates(120, 70), ALONE)]
    girl, boy = averaged(members, "FM", MEAN)
    assert [girl.sex, boy.sex] == ["F", "M"]
    assert [girl.months, boy.months] == pytest.approx([109, 59])
    assert girl.interval == pytest.approx((101, 117))


def test_an_image_that_another_network_cannot_read_gets_the_reading_of_the_first_alone():
    members = [Member(estimates(100, 50), ALONE), Member(estimates(np.nan, 70), None)]
    alone, both = averaged(members, "FM", MEAN)
    assert [alone.months, both.months] == pytest.approx([105, 59])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_mean_has_the_standard_deviation_of_the_network_that_predicts_one(order):
    own = dataclasses.replace(ALONE, spread=None)
    spread = dataclasses.replace(estimates(100, 50), std=np.array([3, 6], np.float32))
    members = [Member(spread, own), Member(estimates(120, 70), ALONE)]
    girl, boy = averaged([members[place] for place in order], "FM", dataclasses.replace(MEAN, spread=None))
    assert [girl.std, boy.std] == pytest.approx([3, 6])
    assert [girl.interval, boy.interval] == [pytest.approx((103, 115)), pytest.approx((47, 71))]


def test_standard_deviations_are_averaged_over_the_networks_that_predict_one():
    stds: list[np.ndarray | None] = [np.array([2, np.nan], np.float32), None, np.array([4, 5], np.float32)]
    mean = mean_of([dataclasses.replace(estimates(90, 60), std=std) for std in stds])
    np.testing.assert_array_equal(mean.std, np.array([3, np.nan], np.float32))
    assert mean_of([estimates(90), estimates(60)]).std is None


def test_calibrations_of_earlier_files_keep_the_usual_error_at_that_age():
    spread = dataclasses.replace(estimates(100), std=np.array([3], np.float32))
    (found,) = averaged([Member(spread, ALONE), Member(estimates(120), ALONE)], "F", MEAN)
    assert found.interval == pytest.approx((101, 117))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_regions_are_those_of_the_network_that_reads_them_whatever_its_place(order):
    members = [Member(estimates(100), None), Member(estimates(120, parts=True), None)]
    (found,) = averaged([members[place] for place in order], "F", MEAN)
    assert found.months == pytest.approx(109)
    assert {name: one.months for name, one in found.regions.items()} == dict.fromkeys(NAMES, 120)


def test_estimates_are_put_back_at_their_places():
    found = estimates(3, 4, 4, parts=True).scattered([0, 2], 3)
    np.testing.assert_array_equal(found.months, [3, np.nan, 4])
    assert found.parts is not None
    np.testing.assert_array_equal(found.parts[:, 0], [3, np.nan, 4])
    np.testing.assert_array_equal(found.rows([2]).months, [4])
