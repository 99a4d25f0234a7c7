"""A drawn left-hand radiograph of a given bone age and sex, so that nothing needs a patient's picture.

>>> phantom = render(120, FEMALE, size=64, seed=0)
>>> phantom.image.shape, phantom.growth_plates.dtype
((64, 64), dtype('bool'))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsFloat, SupportsInt

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from boneage_jax.data.phantom.anatomy import build_hand
from boneage_jax.data.phantom.drawing import attenuation, expose, make_view, plate_mask
from boneage_jax.data.radiograph import FEMALE, MALE
from boneage_jax.errors import BoneAgeError

__all__ = ["OLDEST", "SMALLEST", "Phantom", "render", "sample_children"]

OLDEST = 240.0
SMALLEST = 32


@dataclass(frozen=True)
class Phantom:
    """A drawn radiograph and the pixels in which its growth plates lie (empty once all have fused)."""

    image: UInt8[np.ndarray, "size size"]
    growth_plates: Bool[np.ndarray, "size size"]


def render(age: SupportsFloat, sex: SupportsInt, *, size: int, seed: int) -> Phantom:
    """Draw the left hand of a child; the same arguments always give the same picture.

    Maturity (carpals, epiphyses, plates) follows age and sex; pose, exposure, frame, marker and noise
    follow the seed alone. One seed at several ages is one child growing up.

    Args:
        age: bone age in months, 0 to 240.
        sex: FEMALE or MALE.
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
    if sex not in (FEMALE, MALE):
        raise BoneAgeError(f"phantom.render: sex is {sex}, expected {FEMALE} (female) or {MALE} (male).")
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
    return Phantom(expose(soft, bone, size, film), plate_mask(hand, view, size))


def sample_children(count: int, seed: int) -> tuple[Float32[np.ndarray, " count"], Int32[np.ndarray, " count"]]:
    """Ages (months) and sexes of `count` children, roughly as RSNA: mean 127, sd 41, 12 to 228; 46 % girls.

    Raises:
        BoneAgeError: `count` or `seed` is negative.
    """
    if count < 0 or seed < 0:
        raise BoneAgeError(f"phantom.sample_children: count is {count} and seed {seed}, expected both 0 or more.")
    rng = np.random.default_rng(seed)
    # Folding the tails back keeps the children inside the range without heaping them at its ends.
    ages = rng.normal(127, 41, size=count)
    ages = np.where(ages < 12, 24 - ages, ages)
    ages = np.where(ages > 228, 456 - ages, ages)
    sexes = np.where(rng.random(count) < 0.46, FEMALE, MALE)
    return np.clip(ages, 12, 228).astype(np.float32), sexes.astype(np.int32)
