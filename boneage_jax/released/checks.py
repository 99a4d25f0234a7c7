"""Recognises images that are not hand radiographs like those in the training set, before a bone age is read.

A linear classifier on the features of `describe` recognises hands that are turned, inverted, cut off or too small,
several hands, and images of anything else; a Gaussian fitted to the training radiographs measures how far an image is
from them. Both are fitted by `export.check_fitting` and stored with the weights. A region detector, which measures how
much of a hand is visible, confirms or overrules their result. Inverted and turned images are corrected. Flat borders
are excluded from every measurement, so that padding changes nothing. Laterality is not detected: networks are trained
on mirror images too.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from scipy.special import log_softmax

from boneage_jax.data.hand import content
from boneage_jax.errors import BoneAgeError
from boneage_jax.released.descriptor import LENGTH, describe, squashed

WARNING, CORRECTED = "warning", "corrected"

GOOD = "good"
INVERTED = "inverted"
UNLIKE = "unlike"
QUARTER_TURNS = {"turned_left": -1, "turned_right": 1, "upside_down": 2}
"""Anticlockwise quarter turns (`np.rot90`) that put a turned hand upright, by the code of the finding."""

TEXTS = {
    "turned_left": "The hand seems to point to the left; turn the image so that the fingers point up.",
    "turned_right": "The hand seems to point to the right; turn the image so that the fingers point up.",
    "upside_down": "The hand seems to point down; turn the image so that the fingers point up.",
    "cut_off": "A good part of the hand seems to be cut off; the whole hand with the wrist has to be seen.",
    "small_hand": "The hand fills only a small part of the image; crop the image to the hand and the wrist.",
    "several_hands": "There seems to be more than one hand in the image; crop it to the left one.",
    UNLIKE: "This does not look like the radiographs of hands that the network was trained on.",
    "blank": "The image is blank: it has next to no contrast.",
    "few_levels": "The image has very few intensity levels; it is strongly underexposed or was converted wrongly.",
    "saturated": "A large part of the image is saturated at its brightest level; details of the bones are lost.",
    "few_pixels": "The image has very few pixels; the growth plates cannot be seen at this size.",
}
"""The sentence of each warning, by its code."""

CORRECTIONS = {
    INVERTED: "The image was inverted (dark bones on a bright background); its negative was read.",
    "turned_left": "The hand pointed to the left; the image was turned upright before reading.",
    "turned_right": "The hand pointed to the right; the image was turned upright before reading.",
    "upside_down": "The hand pointed down; the image was turned upright before reading.",
}
"""The sentence of each correction, by its code."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A defect of an image: its code, its text, and "warning", or "corrected" if the image was corrected."""

    code: str
    text: str
    severity: str = WARNING


@dataclasses.dataclass(frozen=True)
class Settings:
    """The limits of the checks: some are fitted, the others are set by hand.

    Attributes:
      kinds: names of the classifier's outputs; `GOOD` is one, and "unlike" stands for images of anything else.
      least_good: log probability of `GOOD` below which an image is not good.
      largest_distance: distance from the training radiographs above which an image is unlike them.
      least_side: pixels of the shorter side.
      least_contrast: difference of the last and the first percentile, as a share of the range of the bits in use.
      least_levels: distinct intensity levels between these percentiles.
      largest_saturation: share of the pixels at the brightest level that occurs.
      least_completeness: sum of the confidences of the regions found in an image, below which it shows no hand.
      whole_hand: the same sum from which on the image shows a whole hand; it is at most 17.
      sure_good, sure_distance: stricter values of `least_good` and `largest_distance` within which no other check is
        made. Nine of ten training radiographs lie within them, but no turned or inverted hand, and no chest among the
        images that pass the other limits.
    """

    kinds: tuple[str, ...]
    least_good: float
    largest_distance: float
    least_side: int = 96
    least_contrast: float = 0.03
    least_levels: int = 12
    largest_saturation: float = 0.2
    least_completeness: float = 1.5
    whole_hand: float = 9.0
    sure_good: float = -0.1
    sure_distance: float = 1.2

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Settings":
        """The inverse of `dataclasses.asdict` after a round trip through JSON.

        Raises:
          BoneAgeError: a key is missing or unknown, or a kind is unknown.
        """
        try:
            settings = cls(**{**fields, "kinds": tuple(fields["kinds"])})
        except (TypeError, KeyError) as error:
            raise BoneAgeError(
                f"the settings of the checks do not fit this version ({error}); fit them again"
            ) from None
        if unknown := set(settings.kinds) - {GOOD, INVERTED, *TEXTS}:
            raise BoneAgeError(f"the checks have the unknown kinds {sorted(unknown)}; fit them again")
        return settings


SHAPES = {"weights": (LENGTH, None), "bias": (None,), "mean": (LENGTH,), "axes": (LENGTH, None), "spread": (None,)}
"""Shapes of the fitted arrays. The last spread is that of everything outside the axes."""


@dataclasses.dataclass(frozen=True)
class Checks:
    """Fitted checks of input images.

    Attributes:
      settings: limits.
      arrays: float32. `weights` [D, K] and `bias` [K] of the classifier; `mean` [D], `axes` [D, A] and `spread` [A + 1]
        (standard deviations) of the training radiographs.
    """

    settings: Settings
    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        kinds, axes = len(self.settings.kinds), self.arrays["axes"].shape[-1] if "axes" in self.arrays else 0
        free = {"weights": kinds, "bias": kinds, "axes": axes, "spread": axes + 1}
        for name, shape in SHAPES.items():
            wanted = tuple(free[name] if side is None else side for side in shape)
            found = self.arrays[name].shape if name in self.arrays else None
            if found != wanted:
                raise BoneAgeError(
                    f"the checks' array {name!r} has the shape {found}, expected {wanted}; fit them again"
                )

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Settings as JSON types, and arrays, as a weights file stores them."""
        return {**dataclasses.asdict(self.settings), "kinds": list(self.settings.kinds)}, dict(self.arrays)

    @classmethod
    def from_parts(cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Checks":
        """The inverse of `to_parts`.

        Raises:
          BoneAgeError: they do not fit this version or each other.
        """
        return cls(Settings.from_dict(settings), arrays)

    def inspect(
        self, image: np.ndarray, completeness: Callable[[np.ndarray], float] | None = None
    ) -> tuple[np.ndarray, list[Finding]]:
        """Inspects a greyscale image `[H, W]` (uint8 or uint16) as `data.decode` returns it.

        An inverted image is replaced by its negative. A turned image is rotated upright if it is good then; otherwise
        it stays unchanged, with a warning.

        Args:
          image: the image to inspect.
          completeness: measures how much of a hand with fingers up an image shows, as `regions.Detector.completeness`
            does. Without it, or where the fitted limits are clearly met, they alone decide. It selects the direction
            if an image is good in several, as a hand that points to a corner can be, rejects images that show next to
            nothing of a hand, and accepts a whole hand that is merely unlike the training radiographs.

        Returns:
          The image, corrected where possible, and the findings; an empty list for a good image.
        """
        shown = inside_borders(image)
        if code := self._useless(shown):
            return image, [_warning(code)]
        if self._is_surely_good(shown):
            return image, [_warning(code) for code in self._exposure(shown)]
        found = []
        kind = self._kind(shown)
        if kind == INVERTED or (kind == UNLIKE and self._is_turned_hand(_negative(shown))):
            kind = self._kind(_negative(shown))
            if kind == INVERTED:  # Inverted either way: not a hand.
                kind = UNLIKE
            else:
                image, shown = _negative(image), _negative(shown)
                found.append(_corrected(INVERTED))
        kind, good = self._pointing(image, shown, kind, completeness)
        if good and kind != GOOD:
            image = _turned(image, QUARTER_TURNS[kind])
            found.append(_corrected(kind))
            kind = GOOD
        if completeness is not None and kind in (GOOD, UNLIKE):
            kind = self._confirmed(kind, completeness(image))
        codes = ([] if kind == GOOD else [kind]) + self._exposure(shown)
        return image, found + [_warning(code) for code in codes]

    def _confirmed(self, kind: str, completeness: float) -> str:
        """The kind, good or unlike, revised by how much of a hand is visible."""
        if completeness < self.settings.least_completeness:
            return UNLIKE
        return GOOD if completeness >= self.settings.whole_hand else kind

    def _pointing(
        self, image: np.ndarray, shown: np.ndarray, kind: str, completeness: Callable[[np.ndarray], float] | None
    ) -> tuple[str, bool]:
        """The kind, revised if several directions are good, and whether the image is good once turned upright."""
        if kind != GOOD and kind not in QUARTER_TURNS:
            return kind, False
        turns, square = {GOOD: 0, **QUARTER_TURNS}, squashed(shown)
        good = [code for code, quarters in turns.items() if self._kind(_turned(square, quarters)) == GOOD]
        if len(good) > 1 and completeness is not None:
            kind = max(good, key=lambda code: completeness(_turned(image, turns[code])))
        return kind, kind in good

    def _is_turned_hand(self, image: np.ndarray) -> bool:
        """Whether the image shows a turned hand that is good once it is turned upright."""
        kind = self._kind(image)
        return kind in QUARTER_TURNS and self._kind(_turned(image, QUARTER_TURNS[kind])) == GOOD

    def _useless(self, image: np.ndarray) -> str:
        """The code of a defect that makes further inspection pointless, or ""."""
        if min(image.shape) < self.settings.least_side:
            return "few_pixels"
        low, high, _ = _levels(image)
        # Files of 10 to 14 bits use the lower part of 16: contrast is relative to the range of the bits in use.
        full = max(2 ** int(image.max()).bit_length(), 256) - 1
        return "blank" if (high - low) / full < self.settings.least_contrast else ""

    def _exposure(self, image: np.ndarray) -> list[str]:
        low, high, levels = _levels(image)
        found = []
        if np.count_nonzero(levels[low : high + 1]) < self.settings.least_levels:
            found.append("few_levels")
        if levels[int(image.max())] / image.size > self.settings.largest_saturation:
            found.append("saturated")
        return found

    def _is_surely_good(self, image: np.ndarray) -> bool:
        """Whether the image is so far inside the limits that no other check is needed."""
        chances, distance = self._measured(image)
        return chances[GOOD] > self.settings.sure_good and distance < self.settings.sure_distance

    def _kind(self, image: np.ndarray) -> str:
        chances, distance = self._measured(image)
        if chances[GOOD] < self.settings.least_good:
            return max((kind for kind in chances if kind != GOOD), key=chances.__getitem__)
        return GOOD if distance <= self.settings.largest_distance else UNLIKE

    def _measured(self, image: np.ndarray) -> tuple[dict[str, float], float]:
        """The log probability of each kind, and the distance from the training radiographs."""
        described = describe(image)
        chances = log_softmax(described @ self.arrays["weights"] + self.arrays["bias"])
        return dict(zip(self.settings.kinds, chances.tolist(), strict=True)), float(self.distance(described))

    def distance(self, described: np.ndarray) -> np.ndarray:
        """Distance of descriptors `[..., D]` from the training radiographs: an RMS deviation, typically 1."""
        return distance(described, self.arrays)


def inside_borders(image: np.ndarray) -> np.ndarray:
    """The part of an image `[H, W]` inside its flat borders; the checks describe only this part."""
    left, top, right, bottom = content(image)
    return image[top:bottom, left:right]


def _negative(image: np.ndarray) -> np.ndarray:
    return np.iinfo(image.dtype).max - image


def _turned(image: np.ndarray, quarters: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image, quarters))


def _warning(code: str) -> Finding:
    return Finding(code, TEXTS[code])


def _corrected(code: str) -> Finding:
    return Finding(code, CORRECTIONS[code], CORRECTED)


def _levels(image: np.ndarray) -> tuple[int, int, np.ndarray]:
    """The levels at the first and the last percentile, and the number of pixels at each level."""
    count = np.iinfo(image.dtype).max + 1
    levels = cv2.calcHist([image], [0], None, [count], [0, count]).ravel().astype(np.int64)
    low, high = np.searchsorted(np.cumsum(levels), (0.01 * image.size, 0.99 * image.size))
    return int(low), int(high), levels


def distance(described: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """As `Checks.distance`: deviations along the principal axes and outside them, each divided by its own spread."""
    centred = described - arrays["mean"]
    along = centred @ arrays["axes"]
    spread = arrays["spread"]
    rest = np.maximum((centred**2).sum(axis=-1) - (along**2).sum(axis=-1), 0) / (LENGTH - along.shape[-1])
    inside = ((along / spread[:-1]) ** 2).mean(axis=-1)
    return np.asarray(np.sqrt((inside + rest / spread[-1] ** 2) / 2))
