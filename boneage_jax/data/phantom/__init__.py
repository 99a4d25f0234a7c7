"""A drawn left-hand radiograph of a given bone age and sex, so that nothing needs a patient's picture.

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

__all__ = ["KEY_POINTS", "OLDEST", "SMALLEST", "Phantom", "chronological_age", "render", "sample_children"]

OLDEST = 240.0
SMALLEST = 32
KEY_POINTS = (
    "radius",
    "ulna",
    "metacarpal1",
    *(f"{kind}{digit}" for digit, kinds in RAY_BONES.items() for kind in kinds if kind != "metacarpal"),
)
"""Bones whose joint nearer to the body is a key point: 17, like BoNet's, and there at every age."""


@dataclass(frozen=True)
class Phantom:
    """A drawn radiograph, the pixels in which its growth plates lie (none once all have fused), and its joints.

    `key_points` follows `KEY_POINTS`: pixels (right, down), the middle of the first one at (0, 0).
    """

    image: UInt8[np.ndarray, "size size"]
    growth_plates: Bool[np.ndarray, "size size"]
    key_points: Float32[np.ndarray, "points 2"]


def render(age: SupportsFloat, sex: SupportsInt, *, size: int, seed: int) -> Phantom:
    """Draw the left hand of a child; the same arguments always give the same picture.

    Maturity (carpals, epiphyses, plates) follows age and sex; pose, exposure, frame, marker and noise
    follow the seed alone. One seed at several ages is one child growing up.

    Args:
        age: bone age in months, 0 to 240.
        sex: a `Sex` or its number.
        size: pixels per side, at least 32.
        seed: any integer from 0.

    Raises:
        BoneAgeError: an argument is outside its range.
    """
    months = float(age)
    if not 0 <= months <= OLDEST:
        raise BoneAgeError(
            f"phantom.render: age is {age} months, expected 0 to {OLDEST:.0f}; give the bone age in months."
        )
    if sex not in tuple(Sex):
        raise BoneAgeError(f"phantom.render: sex is {sex}, expected {Sex.FEMALE} (female) or {Sex.MALE} (male).")
    if size < SMALLEST:
        raise BoneAgeError(
            f"phantom.render: size is {size} pixels, expected at least {SMALLEST}; ask for a larger picture."
        )
    if seed < 0:
        raise BoneAgeError(f"phantom.render: seed is {seed}, expected 0 or more; choose another seed.")
    child, plate, film = (np.random.default_rng([seed, stream]) for stream in range(3))
    hand = build_hand(months, int(sex), child)
    # Small pictures need finer drawing, or the growth plates fall between the pixels.
    view = make_view(size * (3 if size < 150 else 2), months, plate)
    soft, bone = attenuation(hand, view)
    return Phantom(
        expose(soft, bone, size, film), plate_mask(hand, view, size), key_points(hand, view, size, KEY_POINTS)
    )


def chronological_age(age: SupportsFloat, seed: int) -> float:
    """The months that the child of this seed has lived when its bone age is `age` months.

    Bone age minus a normal deviation, whose standard deviation grows from 3 months at 1 year of bone age to 12 at
    12 years and more: roughly how healthy children scatter. So a network that gets the age knows about what
    to expect, and still has to read the picture.

    Raises:
        BoneAgeError: `seed` is negative.
    """
    if seed < 0:
        raise BoneAgeError(f"phantom.chronological_age: seed is {seed}, expected 0 or more; choose another seed.")
    deviation = np.random.default_rng([seed, 3]).normal(0, np.interp(float(age), [12, 144], [3, 12]))
    return max(0.0, float(age) - float(deviation))


def sample_children(
    count: int, seed: int, *, even: SupportsFloat = 0.0
) -> tuple[Float32[np.ndarray, " count"], Int32[np.ndarray, " count"]]:
    """Ages (months) and sexes of `count` children, roughly as RSNA: mean 127, sd 41, 12 to 228; 46 % girls.

    Args:
        count: number of children.
        seed: any integer from 0.
        even: share of the children, 0 to 1, whose ages are spread evenly over 12 to 228 months instead, so that a
            network sees enough of the youngest and the oldest.

    Raises:
        BoneAgeError: `count` or `seed` is negative, or `even` is not a share.
    """
    share = float(even)
    if not 0 <= share <= 1:
        raise BoneAgeError(f"phantom.sample_children: even is {even}, expected a share from 0 to 1.")
    if count < 0 or seed < 0:
        raise BoneAgeError(f"phantom.sample_children: count is {count} and seed {seed}, expected both 0 or more.")
    rng = np.random.default_rng(seed)
    # Folding the tails back keeps the children inside the range without heaping them at its ends.
    ages = rng.normal(127, 41, size=count)
    ages = np.where(ages < 12, 24 - ages, ages)
    ages = np.where(ages > 228, 456 - ages, ages)
    sexes = np.where(rng.random(count) < 0.46, Sex.FEMALE, Sex.MALE)
    ages = np.where(rng.random(count) < share, rng.uniform(12, 228, size=count), ages)
    return np.clip(ages, 12, 228).astype(np.float32), sexes.astype(np.int32)
