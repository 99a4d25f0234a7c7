from itertools import pairwise

import numpy as np
import pytest

from boneage_jax.data.phantom import KEY_POINTS, chronological_age, render, sample_children
from boneage_jax.data.phantom.anatomy import CARPAL, OVERLAPPING_CARPAL, build_hand
from boneage_jax.data.phantom.drawing import attenuation, make_view
from boneage_jax.data.phantom.maturity import CARPALS, EPIPHYSES
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex


def _plate_area(years, sex, seeds=range(4)):
    return np.mean([render(12.0 * years, sex, size=192, seed=seed).growth_plates.mean() for seed in seeds])


def test_same_arguments_give_the_same_image():
    first, second = (render(100.0, Sex.MALE, size=64, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.growth_plates, second.growth_plates)


@pytest.mark.parametrize("changed", [{"seed": 4}, {"age": 130.0}, {"sex": Sex.FEMALE}])
def test_every_argument_changes_the_image(changed):
    arguments = {"age": 100.0, "sex": Sex.MALE, "size": 64, "seed": 3}
    first, second = (render(a.pop("age"), a.pop("sex"), **a) for a in (dict(arguments), arguments | changed))
    assert (first.image != second.image).mean() > 0.01


@pytest.mark.parametrize("size", [32, 65, 128])
def test_image_is_uint8_and_mask_bool_of_the_requested_size(size):
    phantom = render(np.float32(100.0), np.int32(Sex.MALE), size=size, seed=0)
    assert phantom.image.shape == phantom.growth_plates.shape == (size, size)
    assert phantom.image.dtype == np.uint8
    assert phantom.growth_plates.dtype == np.bool_


@pytest.mark.parametrize("seed", range(8))
def test_hand_is_brighter_than_the_background(seed):
    image = render(120.0, Sex.FEMALE, size=96, seed=seed).image.astype(float)
    palm = image[40:60, 42:54].mean()
    # Left of the fingers and below a marker in an upper corner.
    background = image[26:34, 8:14].mean()
    assert palm > background + 20


def test_seeds_vary_exposure():
    means = [render(120.0, Sex.FEMALE, size=32, seed=seed).image.mean() for seed in range(24)]
    assert max(means) > 2 * min(means)


def test_growth_plates_lie_on_the_hand():
    phantom = render(96.0, Sex.MALE, size=192, seed=0)
    image = phantom.image.astype(float)
    assert image[phantom.growth_plates].mean() > np.median(image) + 20


@pytest.mark.parametrize("sex", [Sex.FEMALE, Sex.MALE])
def test_growth_plates_narrow_and_close_with_age(sex):
    toddler, child, teenager = (_plate_area(years, sex) for years in (3, 9, 14 if sex == Sex.FEMALE else 16))
    assert toddler > child > teenager > 0
    assert _plate_area(19, sex) == 0


def _bone_shadow(age, sex, seed):
    """Attenuation by bone in one view, without film response or noise."""
    hand = build_hand(float(age), sex, np.random.default_rng(seed))
    return attenuation(hand, make_view(288, 120.0, np.random.default_rng(0)))[1]


@pytest.mark.parametrize("sex", Sex)
def test_bones_still_change_in_every_year_after_fusion(sex):
    for seed in range(2):
        shadows = [_bone_shadow(age, sex, seed) for age in np.linspace(180, 240, 6)]
        changes = [np.sqrt(((b - a) ** 2).mean()) for a, b in pairwise(shadows)]
        # Between 8 and 9 years, the change is ten times as large.
        assert min(changes) > 0.002


@pytest.mark.parametrize("years", [8, 14, 15, 16])
def test_growth_plates_are_smaller_in_girls_than_in_boys_of_the_same_age(years):
    assert _plate_area(years, Sex.FEMALE) < _plate_area(years, Sex.MALE)


@pytest.mark.parametrize("site", [*EPIPHYSES.values(), *CARPALS.values()])
def test_every_site_appears_and_matures_earlier_in_girls(site):
    assert site.appears[Sex.FEMALE] < site.appears[Sex.MALE]
    assert site.matures[Sex.FEMALE] < site.matures[Sex.MALE]


def test_fusion_ends_with_ulna_and_radius():
    for sex in Sex:
        closing = [EPIPHYSES[name].matures[sex] for name in ("distal3", "proximal3", "middle3", "metacarpal3")]
        closing += [EPIPHYSES["ulna"].matures[sex], EPIPHYSES["radius"].matures[sex]]
        assert closing == sorted(closing)


def ossified_carpals(months, sex):
    """Names of the carpals that are visible in a typical child."""
    return [name for name, site in CARPALS.items() if site.progress(months, sex) > 0]


def test_carpals_appear_in_order_and_earlier_in_girls():
    counts = {sex: [len(ossified_carpals(6.0 * half_years, sex)) for half_years in range(30)] for sex in Sex}
    for series in counts.values():
        assert series == sorted(series)
        assert (series[0], series[-1]) == (0, 8)
    assert sum(counts[Sex.FEMALE]) > sum(counts[Sex.MALE])
    assert ossified_carpals(6.0, Sex.MALE) == ["capitate", "hamate"]


@pytest.mark.parametrize("sex", [Sex.FEMALE, Sex.MALE])
def test_drawn_carpals_follow_the_timetable(sex):
    drawn = []
    for months in (1.0, 12.0, 38.0, 90.0, 145.0):
        shapes = build_hand(months, sex, np.random.default_rng(0)).bones
        # Each carpal has two shapes, rim and interior; the thumb's sesamoid, on the same canvas, has one.
        drawn.append(sum(shape.canvas in (CARPAL, OVERLAPPING_CARPAL) for shape in shapes) // 2)
    assert drawn[:2] == [0, 2]
    assert drawn[-1] == 8
    assert drawn == sorted(drawn)


def test_hand_size_barely_depends_on_age():
    def fingertip(years):
        rows = []
        for seed in range(12):
            image = render(12.0 * years, Sex.MALE, size=96, seed=seed).image.astype(float)
            column_free_of_marker = image[8:60, 30:66].max(axis=1)
            rows.append(np.argmax(column_free_of_marker > 0.5 * (image[60, 30:66].max() + np.median(image))))
        return np.mean(rows)

    assert abs(fingertip(4) - fingertip(17)) < 6


@pytest.mark.parametrize(
    ("age", "sex", "size", "seed", "message"),
    [
        (-1.0, Sex.FEMALE, 64, 0, "age is -1.0 months, expected 0 to 240"),
        (240.5, Sex.FEMALE, 64, 0, "age is 240.5 months"),
        (float("nan"), Sex.FEMALE, 64, 0, "age is nan months"),
        (100.0, 2, 64, 0, "sex is 2, expected 0"),
        (100.0, Sex.FEMALE, 31, 0, "size is 31 pixels, expected at least 32"),
        (100.0, Sex.FEMALE, 64, -1, "seed is -1"),
    ],
)
def test_out_of_range_arguments_are_rejected(age, sex, size, seed, message):
    with pytest.raises(BoneAgeError, match=message):
        render(age, sex, size=size, seed=seed)


def test_sampled_children_resemble_rsna():
    ages, sexes = sample_children(4000, seed=1)
    assert ages.dtype == np.float32
    assert sexes.dtype == np.int32
    assert 12 <= ages.min() < 30
    assert 210 < ages.max() <= 228
    assert ages.mean() == pytest.approx(127, abs=3)
    assert ages.std() == pytest.approx(41, abs=2)
    assert set(sexes.tolist()) == {Sex.FEMALE, Sex.MALE}
    assert (sexes == Sex.FEMALE).mean() == pytest.approx(0.46, abs=0.03)


def test_option_even_samples_ages_uniformly():
    ages, sexes = sample_children(4000, seed=1, even=1)
    counts, _ = np.histogram(ages, bins=9, range=(12, 228))
    np.testing.assert_allclose(counts, 4000 / 9, rtol=0.15)
    assert (sexes == sample_children(4000, seed=1)[1]).all()
    changed = ages != sample_children(4000, seed=1)[0]
    assert changed.all()
    assert (sample_children(4000, seed=1, even=0.25)[0] != sample_children(4000, seed=1)[0]).mean() == pytest.approx(
        0.25, abs=0.03
    )


@pytest.mark.parametrize("even", [-0.1, 1.5])
def test_an_out_of_range_even_share_is_rejected(even):
    with pytest.raises(BoneAgeError, match=f"even is {even}, expected a share from 0 to 1"):
        sample_children(10, seed=0, even=even)


def test_sampled_ages_and_sexes_are_determined_by_the_seed():
    for first, again, other in zip(*(sample_children(50, seed=seed) for seed in (1, 1, 2)), strict=True):
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_negative_count_is_rejected():
    with pytest.raises(BoneAgeError, match="count is -1"):
        sample_children(-1, seed=0)


@pytest.mark.parametrize("age", [12.0, 100.0, 228.0])
def test_key_points_are_17_joints_on_the_hand_at_every_age(age):
    phantom = render(age, Sex.MALE, size=192, seed=0)
    assert phantom.key_points.shape == (17, 2)
    assert len(set(KEY_POINTS)) == 17
    columns, rows = np.rint(phantom.key_points).astype(int).T
    image = phantom.image.astype(float)
    assert image[rows, columns].min() > np.median(image)


def test_key_points_lie_beside_their_growth_plates():
    phantom = render(96.0, Sex.FEMALE, size=192, seed=1)
    rows, columns = np.nonzero(phantom.growth_plates)
    distances = [np.hypot(columns - x, rows - y).min() for x, y in phantom.key_points]
    assert max(distances) < 8


def test_key_points_scale_with_the_image_size():
    small, large = (render(96.0, Sex.FEMALE, size=size, seed=1).key_points for size in (96, 192))
    # Coordinates start at the centre of the first pixel, not at its edge.
    np.testing.assert_allclose((small + 0.5) * 2, large + 0.5, atol=0.1)


@pytest.mark.parametrize(("age", "spread"), [(6.0, 3.0), (12.0, 3.0), (78.0, 7.5), (144.0, 12.0), (220.0, 12.0)])
def test_chronological_age_scatter_grows_with_bone_age(age, spread):
    ages = np.array([chronological_age(age, seed) for seed in range(2000)])
    assert ages.min() >= 0
    if age > 20:
        assert ages.mean() == pytest.approx(age, abs=spread / 10)
        assert ages.std() == pytest.approx(spread, rel=0.05)
    else:
        assert np.percentile(np.abs(ages - age), 68.3) == pytest.approx(spread, rel=0.1)


def test_chronological_age_is_determined_by_the_seed():
    assert chronological_age(100.0, 5) == chronological_age(100.0, 5) != chronological_age(100.0, 6)
    with pytest.raises(BoneAgeError, match="seed is -1"):
        chronological_age(100.0, -1)
