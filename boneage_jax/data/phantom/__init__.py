"""Synthetic left-hand radiographs of a given bone age and sex, for use where no patient images are available.

>>> phantom = render(120, Sex.FEMALE, size=64, seed=0)
>>> phantom.image.shape, phantom.growth_plates.dtype
((64, 64), dtype('bool'))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsFloat, SupportsInt

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from boneage_jax.data.phantom.anatomy import build_hand
from boneage_jax.data.phantom.bones import RAY_BONES
from boneage_jax.data.phantom.drawing import attenuation, expose, key_points, make_view, plate_mask
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

__all__ = ["KEY_POINTS", "OLDEST_MONTHS", "SMALLEST", "Phantom", "chronological_age", "render", "sample_children"]

OLDEST_MONTHS = 240.0
SMALLEST = 32
KEY_POINTS = (
    "radius",
    "ulna",
    "metacarpal1",
    *(f"{kind}{digit}" for digit, kinds in RAY_BONES.items() for kind in kinds if kind != "metacarpal"),
)
"""Bones with a key point at the joint beside their growth plate: 17, as in BoNet, and present at every age."""


@dataclass(frozen=True)
class Phantom:
    """A drawn radiograph, the mask of its open growth plates (empty once all have fused), and its joints.

    `key_points` has the order of `KEY_POINTS`: pixels (right, down); the centre of the first pixel is (0, 0).
    """

    image: UInt8[np.ndarray, "size size"]
    growth_plates: Bool[np.ndarray, "size size"]
    key_points: Float32[np.ndarray, "points 2"]


def render(age: SupportsFloat, sex: SupportsInt, *, size: int, seed: int) -> Phantom:
    """Draw the left hand of a child; the same arguments always give the same image.

    Maturity (carpals, epiphyses, plates) depends on age and sex; pose, exposure, frame, marker and noise
    depend on the seed alone. One seed at several ages shows one child growing up.

    Args:
        age: bone age in months, 0 to 240.
        sex: a `Sex` or its integer value.
        size: pixels per side, at least 32.
        seed: any integer >= 0.

    Raises:
        BoneAgeError: an argument is outside its range.
    """
    months = float(age)
    if not 0 <= months <= OLDEST_MONTHS:
        raise BoneAgeError(
            f"phantom.render: age is {age} months, expected 0 to {OLDEST_MONTHS:.0f}; give the bone age in months"
        )
    if sex not in tuple(Sex):
        raise BoneAgeError(f"phantom.render: sex is {sex}, expected {Sex.FEMALE} (female) or {Sex.MALE} (male)")
    if size < SMALLEST:
        raise BoneAgeError(
            f"phantom.render: size is {size} pixels, expected at least {SMALLEST}; ask for a larger picture"
        )
    if seed < 0:
        raise BoneAgeError(f"phantom.render: seed is {seed}, expected 0 or more; choose another seed")
    child, plate, film = (np.random.default_rng([seed, stream]) for stream in range(3))
    hand = build_hand(months, int(sex), child)
    # Small images need more supersampling, or the growth plates fall between the pixels.
    view = make_view(size * (3 if size < 150 else 2), months, plate)
    soft, bone = attenuation(hand, view)
    return Phantom(
        expose(soft, bone, size, film), plate_mask(hand, view, size), key_points(hand, view, size, KEY_POINTS)
    )


def chronological_age(age: SupportsFloat, seed: int) -> float:
    """The chronological age in months of the child of this seed when its bone age is `age` months.

    This is the bone age minus a normally distributed deviation with a standard deviation that grows from 3 months at
    1 year of bone age to 12 months at 12 years and above, roughly as in healthy children. A network that gets the
    chronological age has a useful prior, but still has to read the image.

    Raises:
        BoneAgeError: `seed` is negative.
    """
    if seed < 0:
        raise BoneAgeError(f"phantom.chronological_age: seed is {seed}, expected 0 or more; choose another seed")
    deviation = np.random.default_rng([seed, 3]).normal(0, np.interp(float(age), [12, 144], [3, 12]))
    return max(0.0, float(age) - float(deviation))


def sample_children(
    count: int, seed: int, *, even: SupportsFloat = 0.0
) -> tuple[Float32[np.ndarray, " count"], Int32[np.ndarray, " count"]]:
    """Ages (months) and sexes of `count` children, roughly as in RSNA: mean 127, sd 41, 12 to 228; 46 % girls.

    Args:
        count: number of children.
        seed: any integer >= 0.
        even: fraction of the children (0 to 1) with ages drawn uniformly from 12 to 228 months instead, so that a
            network sees enough of the youngest and the oldest.

    Raises:
        BoneAgeError: `count` or `seed` is negative, or `even` is not a fraction from 0 to 1.
    """
    share = float(even)
    if not 0 <= share <= 1:
        raise BoneAgeError(f"phantom.sample_children: even is {even}, expected a share from 0 to 1")
    if count < 0 or seed < 0:
        raise BoneAgeError(f"phantom.sample_children: count is {count} and seed {seed}, expected both 0 or more")
    rng = np.random.default_rng(seed)
    # Reflecting the tails keeps the ages inside the range without piling them up at its ends.
    ages = rng.normal(127, 41, size=count)
    ages = np.where(ages < 12, 24 - ages, ages)
    ages = np.where(ages > 228, 456 - ages, ages)
    sexes = np.where(rng.random(count) < 0.46, Sex.FEMALE, Sex.MALE)
    ages = np.where(rng.random(count) < share, rng.uniform(12, 228, size=count), ages)
    return np.clip(ages, 12, 228).astype(np.float32), sexes.astype(np.int32)
