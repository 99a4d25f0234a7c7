"""The one path from pixels to model input, shared by dataset builder, training, evaluation and prediction.

`prepare` is costly and done once per image (its result is cached); `scale` is cheap and runs inside the
jitted step, so that images travel to the device as bytes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from boneage_jax.data.hand import Hand, find_hand
from boneage_jax.errors import BoneAgeError

SCALINGS = ("symmetric", "standardise")
REGIONS = ("image", "hand")
VIEWS = ("centre", "flip", "ten_crop")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a radiograph becomes model input.

    The image is squashed to a square, not padded or cropped: every published entry to the RSNA challenge
    that the zoo reproduces does so, no part of the hand is lost, and the aspect ratio (0.74 to 0.79 for most
    originals) says more about the cassette than about the child.

    Attributes:
      size: pixels per side of the square.
      region: "image", or "hand": the square around the hand that `find_hand` finds, which also exposes for the
        hand: black is the background beside it, white the brightest percentile of it. A picture in which no hand
        is found is taken whole.
      margin: of "hand", how much larger the square is than the hand, as a fraction.
      exposure: percentiles of the resized image mapped to 0 and 255, which makes the two hospitals'
        exposures comparable; None leaves 8-bit images alone and maps 16-bit ones by their own range.
      clahe_clips: one channel per CLAHE clip limit; empty for one channel without CLAHE.
      clahe_grid: CLAHE tiles per side.
      scaling: "symmetric" maps 0..255 to [-1, 1] as Keras' Xception does; "standardise" gives every image
        zero mean and unit standard deviation.
      crop: pixels per side of the part of the square that the network sees, a random one in training (see
        `views` for evaluation); 0 for all of it.
    """

    size: int = 299
    region: str = "image"
    margin: float = 0.06
    exposure: tuple[float, float] | None = (1.0, 99.0)
    clahe_clips: tuple[float, ...] = (2.0,)
    clahe_grid: int = 8
    scaling: str = "symmetric"
    crop: int = 0

    def __post_init__(self):
        for field in ("size", "clahe_grid"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BoneAgeError(f"preprocessing.{field} must be a positive whole number, not {value!r}.")
        if self.clahe_grid > self.size:
            raise BoneAgeError(
                f"preprocessing.clahe_grid is {self.clahe_grid}, finer than the image of {self.size} pixels."
            )
        if not isinstance(self.crop, int) or isinstance(self.crop, bool) or not 0 <= self.crop <= self.size:
            raise BoneAgeError(
                f"preprocessing.crop must be a whole number of pixels up to the size of {self.size}, or 0 for the "
                f"whole image, not {self.crop!r}."
            )
        clips = _floats("clahe_clips", self.clahe_clips)
        if not all(clip > 0 for clip in clips):
            raise BoneAgeError(f"preprocessing.clahe_clips must be positive limits, not {self.clahe_clips!r}.")
        object.__setattr__(self, "clahe_clips", clips)
        if self.exposure is not None:
            exposure = _floats("exposure", self.exposure)
            if len(exposure) != 2 or not 0 <= exposure[0] < exposure[1] <= 100:
                raise BoneAgeError(
                    "preprocessing.exposure must be None or two rising percentiles between 0 and 100, "
                    f"not {self.exposure!r}."
                )
            object.__setattr__(self, "exposure", exposure)
        if self.region not in REGIONS:
            raise BoneAgeError(f"preprocessing.region must be one of {', '.join(REGIONS)}, not {self.region!r}.")
        if not isinstance(self.margin, int | float) or isinstance(self.margin, bool) or not 0 <= self.margin <= 1:
            raise BoneAgeError(f"preprocessing.margin must be a fraction from 0 to 1, not {self.margin!r}.")
        if self.scaling not in SCALINGS:
            raise BoneAgeError(f"preprocessing.scaling must be one of {', '.join(SCALINGS)}, not {self.scaling!r}.")

    @property
    def channels(self) -> int:
        """Channels of the prepared image: one per CLAHE clip limit, at least one."""
        return max(1, len(self.clahe_clips))

    @property
    def visible(self) -> int:
        """Pixels per side of what the network sees."""
        return self.crop or self.size

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Turns a grey image `[H, W]` (uint8 or uint16) into uint8 `[size, size, channels]`."""
        check_grey(image)
        hand = self._hand(image)
        if hand is None:
            image = _expose(_square(image, self.size), self.exposure)
        else:
            shown = _cut(image, _around(image.shape, hand, self.margin))
            image = _stretch(_square(shown, self.size), *_hand_exposure(image, hand))
        if not self.clahe_clips:
            return image[..., None]
        grid = (self.clahe_grid, self.clahe_grid)
        return np.stack([cv2.createCLAHE(clip, grid).apply(image) for clip in self.clahe_clips], axis=-1)

    def window(self, image: np.ndarray) -> tuple[int, int, int, int]:
        """The part of a grey image `[H, W]` that `prepare` shows: left, top, right, bottom in pixels.

        Right and bottom are the first that are not shown; of "hand", the window may reach beyond the image.
        """
        hand = self._hand(image)
        return (0, 0, image.shape[1], image.shape[0]) if hand is None else _around(image.shape, hand, self.margin)

    def _hand(self, image: np.ndarray) -> Hand | None:
        return find_hand(image) if self.region == "hand" else None

    def scale(self, images: Any) -> Any:
        """Scales uint8 `[..., size, size, channels]` (numpy or jax) to float32 of the same shape and kind.

        "standardise" divides by no less than one grey level, so that an empty image stays finite.
        """
        images = images.astype(np.float32)
        if self.scaling == "symmetric":
            return images / np.float32(127.5) - np.float32(1)
        axes = (-3, -2, -1)
        images = images - images.mean(axis=axes, keepdims=True)
        variance = (images * images).mean(axis=axes, keepdims=True)
        return images / variance.clip(min=np.float32(1)) ** np.float32(0.5)

    def check_views(self, views: str) -> None:
        """Raises BoneAgeError unless `views` can be cut, so that a run says so before it trains."""
        if views not in VIEWS:
            raise BoneAgeError(f"there are no views {views!r}; expected one of {', '.join(VIEWS)}.")
        if views == "ten_crop" and not self.crop:
            raise BoneAgeError("the views 'ten_crop' need preprocessing.crop above 0: the side of each crop in pixels.")

    def views(self, images: Any, views: str) -> Any:
        """Cuts the views whose predictions evaluation averages out of prepared images or their heat maps.

        Args:
          images: `[B, size, size, C]` of numpy or jax, of any type.
          views: "centre", the middle of the image; "flip", that and its mirror image; "ten_crop", the four corners
            (upper left, upper right, lower left, lower right), the middle, and the mirror images of the five.

        Returns:
          `[V, B, visible, visible, C]` of the same type, with V = 1, 2 or 10.

        Raises:
          BoneAgeError: there are no such views, or "ten_crop" without a crop, or images of another size.
        """
        self.check_views(views)
        if images.ndim != 4 or images.shape[1:3] != (self.size, self.size):
            raise BoneAgeError(
                f"views() takes prepared images [B, {self.size}, {self.size}, C], not of shape {images.shape}."
            )
        side, rest = self.visible, self.size - self.visible
        corners = [(0, 0), (0, rest), (rest, 0), (rest, rest)] if views == "ten_crop" else []
        places = [*corners, (rest // 2, rest // 2)]
        cut = [images[:, top : top + side, left : left + side] for top, left in places]
        if views != "centre":
            cut += [image[:, :, ::-1] for image in cut]
        return images.__array_namespace__().stack(cut)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, to be stored beside weights and caches."""
        exposure = None if self.exposure is None else list(self.exposure)
        return {**dataclasses.asdict(self), "exposure": exposure, "clahe_clips": list(self.clahe_clips)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`; an unknown key is an error, a missing one takes its default."""
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(fields) - set(known)):
            raise BoneAgeError(f"preprocessing has no key {', '.join(unknown)}; the keys are {', '.join(known)}.")
        lists = (list, tuple)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, lists) else v for k, v in fields.items()}
        return cls(**values)


def check_grey(image: np.ndarray) -> None:
    """Raises BoneAgeError unless this is what `decode` makes: grey `[H, W]`, uint8 or uint16."""
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise BoneAgeError(
            "prepare() takes a grey image [H, W] of 8 or 16 bit without sign, "
            f"not {image.dtype} of shape {image.shape}; decode() makes one."
        )


def _floats(field: str, values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise BoneAgeError(f"preprocessing.{field} must be a list of numbers, not {values!r}.") from None


def _around(shape: tuple[int, ...], hand: Hand, margin: float) -> tuple[int, int, int, int]:
    """The square (of the squashed picture) around the hand: left, top, right, bottom in pixels, beyond it too."""
    left, top, right, bottom = hand.box
    half = max(right - left, bottom - top) * (1 + margin) / 2
    height, width = shape
    x = [round(((left + right) / 2 + side * half) * width) for side in (-1, 1)]
    y = [round(((top + bottom) / 2 + side * half) * height) for side in (-1, 1)]
    return x[0], y[0], x[1], y[1]


def _cut(image: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """What the window shows; what lies beyond the picture is black."""
    left, top, right, bottom = window
    height, width = image.shape
    beyond = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    image = image[max(top, 0) : bottom, max(left, 0) : right]
    return cv2.copyMakeBorder(image, *beyond, cv2.BORDER_CONSTANT, value=0)


def _hand_exposure(image: np.ndarray, hand: Hand) -> tuple[float, float]:
    """The grey levels of the background beside the hand (median) and of its brightest bone (99th percentile)."""
    side = hand.mask.shape[0]
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    left, top, right, bottom = (round(edge * side) for edge in hand.box)
    grown = cv2.dilate(hand.mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    beside = small[top:bottom, left:right][~grown[top:bottom, left:right]]
    white = float(np.percentile(small[hand.mask], 99))
    black = float(np.median(beside)) if beside.size else 0.0
    return (black, white) if black < white else (float(small.min()), float(small.max()))


def _stretch(image: np.ndarray, black: float, white: float) -> np.ndarray:
    """Maps two grey levels to 0 and 255, by a table."""
    levels = np.arange(np.iinfo(image.dtype).max + 1, dtype=np.float32)
    return np.clip(np.rint((levels - black) * (255 / max(white - black, 1))), 0, 255).astype(np.uint8)[image]


def _square(image: np.ndarray, size: int) -> np.ndarray:
    """Squashes `[H, W]` to `[size, size]`: area averages where an axis shrinks, linear where it grows."""
    height, width = image.shape
    if height > size or width > size:
        image = cv2.resize(image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    if image.shape != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return image


def _expose(image: np.ndarray, percentiles: tuple[float, float] | None) -> np.ndarray:
    """Maps two percentiles of the grey levels to 0 and 255 by a table; a constant image turns black."""
    if percentiles is None:
        if image.dtype == np.uint8:
            return image
        percentiles = (0.0, 100.0)
    levels = np.iinfo(image.dtype).max + 1
    share = np.cumsum(np.bincount(image.ravel(), minlength=levels)) / image.size
    # The first level is the darkest that occurs, not 0, which every share would reach.
    low, high = (int(np.searchsorted(share, max(p / 100, np.finfo(float).tiny))) for p in percentiles)
    return _stretch(image, float(low), float(high))
