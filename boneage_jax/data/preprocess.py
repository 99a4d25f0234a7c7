"""The single path from pixels to model input, shared by dataset builder, training, evaluation and prediction.

`prepare` is expensive and runs once per image (its result is cached); `scale` is cheap and runs inside the
jitted step, so that images are transferred to the device as bytes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from boneage_jax.data import resample
from boneage_jax.data.augment import View
from boneage_jax.data.hand import Hand, find_hand
from boneage_jax.data.keypoints import POINTS
from boneage_jax.errors import BoneAgeError

SCALINGS = ("symmetric", "standardise")
REGIONS = ("image", "hand", "joints")
VIEWS = ("centre", "flip", "rotations", "ten_crop")
ROTATION = 10.0
"""Degrees by which the "rotations" views turn the image in each direction."""


VERSION = 2
"""Preprocessing version, stored with the weights; weights cannot be used with another version.

2: square pixels, an undistorted crop around the hand, floating point up to the last resampling.
"""

MIDDLE = 0.5  # of the range from black to white: where the tone curve of "hand" puts the hand's median intensity
_MOST = {"size": 4096, "clahe_grid": 64}  # a mistyped or damaged larger value would exhaust memory
_MOST_CHANNELS = 16
_LEAST_RANGE = 0.5  # intensity levels of the file; a smaller range is rounding error
_MIDDLES = (0.1, 0.9)  # a median outside this range is not that of a hand


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a radiograph becomes model input.

    The result depends on the hand alone, not on the file: for the same radiograph, bit depth, flat borders and linear
    changes of exposure make no difference beyond rounding.

    Attributes:
      size: pixels per side of the square.
      region: "image" squashes the whole image to the square, as the published entries to the RSNA challenge do. "hand"
        crops a square around the hand that `find_hand` finds, in true proportions, and adjusts the exposure to the
        hand: the background beside it becomes black, its brightest percentile white, and a power law maps its median
        intensity to `MIDDLE`. If no hand is found, the whole image is squashed. "joints" prepares a larger version of
        the "hand" image and crops a square around each of the hand's `POINTS` key points: one channel per point,
        black where the point is unknown.
      margin: for "hand" and "joints", the fraction by which the square is larger than the hand.
      copy_side: for "hand" and "joints", pixels per side of the copies on which the network was trained: larger images
        are made as sharp as their copy would be (`resample.copy_blur`). 299 for RSNA's copies; 0 for a network trained
        on full-size originals, which are then not blurred.
      reach: for "joints", the side of the square around a key point, as a fraction of the square around the hand.
      exposure: for "image", percentiles of the resized image that are mapped to 0 and 255, which makes the two
        hospitals' exposures comparable; (0, 100) maps the full range of the image.
      clahe_clips: one channel per CLAHE clip limit; empty for one channel without CLAHE.
      clahe_grid: CLAHE tiles per side.
      scaling: "symmetric" maps 0..255 to [-1, 1] as Keras' Xception does; "standardise" gives every image
        zero mean and unit standard deviation.
      crop: pixels per side of the crop of the square that the network sees, at a random place in training (see
        `views` for evaluation); 0 for the whole square.
    """

    size: int = 299
    region: str = "image"
    margin: float = 0.06
    copy_side: int = 299
    reach: float = 0.24
    exposure: tuple[float, float] = (1.0, 99.0)
    clahe_clips: tuple[float, ...] = (2.0,)
    clahe_grid: int = 8
    scaling: str = "symmetric"
    crop: int = 0

    def __post_init__(self) -> None:
        for field, most in _MOST.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise BoneAgeError(f"preprocessing.{field} must be a whole number from 1 to {most}, not {value!r}")
        side, most = self.copy_side, _MOST["size"]
        if not isinstance(side, int) or isinstance(side, bool) or not 0 <= side <= most:
            raise BoneAgeError(
                f"preprocessing.copy_side must be a whole number of pixels up to {most}, or 0 for no blur, not {side!r}"
            )
        if self.clahe_grid > self.size:
            raise BoneAgeError(
                f"preprocessing.clahe_grid is {self.clahe_grid}, finer than the image of {self.size} pixels"
            )
        if not isinstance(self.crop, int) or isinstance(self.crop, bool) or not 0 <= self.crop <= self.size:
            raise BoneAgeError(
                f"preprocessing.crop must be a whole number of pixels up to the size of {self.size}, or 0 for the "
                f"whole image, not {self.crop!r}"
            )
        clips = _floats("clahe_clips", self.clahe_clips)
        if not all(clip > 0 for clip in clips) or len(clips) > _MOST_CHANNELS:
            raise BoneAgeError(
                f"preprocessing.clahe_clips must be at most {_MOST_CHANNELS} positive limits, not {clips!r:.80}"
            )
        object.__setattr__(self, "clahe_clips", clips)
        exposure = _floats("exposure", self.exposure)
        if len(exposure) != 2 or not 0 <= exposure[0] < exposure[1] <= 100:
            raise BoneAgeError(
                f"preprocessing.exposure must be two rising percentiles between 0 and 100, not {self.exposure!r}"
            )
        object.__setattr__(self, "exposure", exposure)
        if self.region not in REGIONS:
            raise BoneAgeError(f"preprocessing.region must be one of {', '.join(REGIONS)}, not {self.region!r}")
        if not isinstance(self.margin, int | float) or isinstance(self.margin, bool) or not 0 <= self.margin <= 1:
            raise BoneAgeError(f"preprocessing.margin must be a fraction from 0 to 1, not {self.margin!r}")
        if not isinstance(self.reach, int | float) or isinstance(self.reach, bool) or not 0.05 <= self.reach <= 1:
            raise BoneAgeError(f"preprocessing.reach must be a fraction from 0.05 to 1, not {self.reach!r}")
        if self.region == "joints" and round(self.size / self.reach) > _MOST["size"]:
            raise BoneAgeError(
                f'preprocessing.region "joints" cuts squares of preprocessing.size {self.size} from an image of size / '
                f"reach = {self.size / self.reach:.0f} pixels, more than {_MOST['size']}; choose a smaller size or a "
                f"larger reach than {self.reach:g}"
            )
        if self.region == "joints" and len(clips) > 1:
            raise BoneAgeError(
                'preprocessing.region "joints" has a channel for each key point: preprocessing.clahe_clips must be one '
                f"limit or none, not {clips!r:.80}"
            )
        if self.scaling not in SCALINGS:
            raise BoneAgeError(f"preprocessing.scaling must be one of {', '.join(SCALINGS)}, not {self.scaling!r}")

    @property
    def channels(self) -> int:
        """Channels of the prepared image: one per CLAHE clip limit, at least one; for "joints", one per key point."""
        return POINTS if self.region == "joints" else max(1, len(self.clahe_clips))

    @property
    def visible(self) -> int:
        """Pixels per side of the network's input."""
        return self.crop or self.size

    def prepare(
        self, image: np.ndarray, points: Float[np.ndarray, "points 2"] | None = None
    ) -> UInt8[np.ndarray, "size size channels"]:
        """Turns a greyscale image into the network's input.

        Args:
          image: `[H, W]`, uint8 or uint16, square pixels.
          points: for "joints" only, the key points in pixels (right, down) of the image; the centre of its first
            pixel is (0, 0). NaN for unknown points.

        Raises:
          BoneAgeError: an image of another kind, or key points that are missing, unexpected, or not `POINTS`.
        """
        check_grey(image)
        if self.region == "joints":
            return self._joints(image, points)
        if points is not None:
            raise BoneAgeError(f"prepare() got key points, which preprocessing.region {self.region!r} does not accept")
        hand = self._hand(image)
        if hand is None:
            shown = resample.square(image, self.size)
            shown = _linear(shown, *(float(level) for level in np.percentile(shown, self.exposure)))
        else:
            window = _around(hand, self.margin)
            shown = _tone(resample.cut(image, window, self.size, hand.content, hand.black, self.copy_side), hand)
        prepared = np.rint(255 * shown).astype(np.uint8)
        if not self.clahe_clips:
            return prepared[..., None]
        grid = (self.clahe_grid, self.clahe_grid)
        return np.stack([cv2.createCLAHE(clip, grid).apply(prepared) for clip in self.clahe_clips], axis=-1)

    def _joints(self, image: np.ndarray, points: np.ndarray | None) -> np.ndarray:
        if points is None or points.shape != (POINTS, 2):
            got = "none" if points is None else f"an array of shape {points.shape}"
            raise BoneAgeError(f'preprocessing.region "joints" takes {POINTS} key points [{POINTS}, 2], not {got}')
        whole = dataclasses.replace(self, region="hand", size=round(self.size / self.reach), crop=0)
        picture = whole.prepare(image)[..., 0]
        left, top, right, bottom = whole.window(image)
        scale = np.array([whole.size / (right - left), whole.size / (bottom - top)])
        corners = np.nan_to_num(np.rint((points + 0.5 - [left, top]) * scale - self.size / 2), nan=-whole.size)
        wide = np.pad(picture, self.size)
        # Squares outside the image and those of unknown points become black.
        places = np.clip(corners.astype(int) + self.size, 0, whole.size + self.size)
        return np.stack([wide[y : y + self.size, x : x + self.size] for x, y in places], axis=-1)

    def window(self, image: np.ndarray) -> resample.Window:
        """The part of an image `[H, W]` that `prepare` shows: left, top, right, bottom in pixels.

        Pixel (x, y) covers the area from x to x + 1 and y to y + 1; the window of "hand" may extend beyond the image.

        Raises:
          BoneAgeError: region is "joints", which shows several parts.
        """
        if self.region == "joints":
            raise BoneAgeError('preprocessing.region "joints" shows a square around each key point, not one window')
        hand = self._hand(image)
        height, width = image.shape
        return (0.0, 0.0, float(width), float(height)) if hand is None else _around(hand, self.margin)

    def _hand(self, image: np.ndarray) -> Hand | None:
        return find_hand(image) if self.region == "hand" else None

    def scale(self, images: Any) -> Any:
        """Scales uint8 `[..., size, size, channels]` (numpy or jax) to float32 of the same shape and kind.

        "standardise" divides by at least one intensity level, so that the result is finite even for a blank image.
        """
        images = images.astype(np.float32)
        if self.scaling == "symmetric":
            return images / np.float32(127.5) - np.float32(1)
        axes = (-3, -2, -1)
        images = images - images.mean(axis=axes, keepdims=True)
        variance = (images * images).mean(axis=axes, keepdims=True)
        return images / variance.clip(min=np.float32(1)) ** np.float32(0.5)

    def check_views(self, views: str) -> None:
        """Raises BoneAgeError unless `views` can be cut, so that a run fails before it trains."""
        if views not in VIEWS:
            raise BoneAgeError(f"unknown views {views!r}; expected one of {', '.join(VIEWS)}")
        if views == "ten_crop" and not self.crop:
            raise BoneAgeError("the views 'ten_crop' need preprocessing.crop above 0: the side of each crop in pixels")

    def views(self, images: Any, views: str) -> Any:
        """Cuts views out of prepared images or heat maps; evaluation averages the predictions over these views.

        Args:
          images: `[B, size, size, C]` of numpy or jax, of any type.
          views: "centre", the centre crop; "flip", the centre crop and its mirror image; "rotations", centre crops of
            the image rotated by `ROTATION` in each direction (bilinear, black beyond its edges); "ten_crop", the four
            corners (upper left, upper right, lower left, lower right), the centre, and the mirror images of these five.

        Returns:
          `[V, B, visible, visible, C]` of the same type, with V = 1, 2, 2 or 10.

        Raises:
          BoneAgeError: unknown views, "ten_crop" without a crop, or images of another size.
        """
        self.check_views(views)
        if images.ndim != 4 or images.shape[1:3] != (self.size, self.size):
            raise BoneAgeError(
                f"views() takes prepared images [B, {self.size}, {self.size}, C], not of shape {images.shape}"
            )
        side, rest = self.visible, self.size - self.visible
        corners = [(0, 0), (0, rest), (rest, 0), (rest, rest)] if views == "ten_crop" else []
        places = [*corners, (rest // 2, rest // 2)]
        wholes = [_rotated(images, angle) for angle in (ROTATION, -ROTATION)] if views == "rotations" else [images]
        cut = [whole[:, top : top + side, left : left + side] for whole in wholes for top, left in places]
        if views in ("flip", "ten_crop"):
            cut += [image[:, :, ::-1] for image in cut]
        return images.__array_namespace__().stack(cut)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, with the `version`, for storage beside weights and caches."""
        lists = {"exposure": list(self.exposure), "clahe_clips": list(self.clahe_clips)}
        return {"version": VERSION, **dataclasses.asdict(self), **lists}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`.

        Raises:
          BoneAgeError: an unknown key, or a version other than this program's. A missing key takes its default.
        """
        # Version 1 wrote no number.
        if (version := fields.get("version", 1)) != VERSION:
            raise BoneAgeError(
                f"the weights expect version {version} of the preprocessing, but this program has version {VERSION}"
            )
        return cls.from_settings({key: value for key, value in fields.items() if key != "version"})

    @classmethod
    def from_settings(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing with these fields, as JSON types, in this program's version.

        Raises:
          BoneAgeError: an unknown key. A missing key takes its default.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(fields) - set(known)):
            raise BoneAgeError(f"preprocessing has no key {', '.join(unknown)}; the keys are {', '.join(known)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in fields.items()}
        return cls(**values)


def check_grey(image: np.ndarray) -> None:
    """Raises BoneAgeError unless the image is as `decode` returns it: greyscale, uint8 or uint16, [H, W], not empty."""
    if image.ndim != 2 or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        raise BoneAgeError(
            "prepare() expects a greyscale image [H, W] of unsigned 8- or 16-bit integers, with at least one pixel, "
            f"not {image.dtype} of shape {image.shape}; decode() returns one"
        )


def _floats(field: str, values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise BoneAgeError(f"preprocessing.{field} must be a list of numbers, not {values!r}") from None


def _around(hand: Hand, margin: float) -> resample.Window:
    """The square around the hand: left, top, right, bottom in pixels, which may lie beyond the image."""
    left, top, right, bottom = hand.box
    half = max(right - left, bottom - top) * (1 + margin) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - half, y - half, x + half, y + half


def _linear(image: np.ndarray, black: float, white: float) -> np.ndarray:
    """Maps two intensities to 0 and 1; if they differ by less than `_LEAST_RANGE`, the image becomes black."""
    if white - black < _LEAST_RANGE:
        return np.zeros_like(image)
    return np.clip((image - black) / (white - black), 0, 1)


def _tone(image: np.ndarray, hand: Hand) -> np.ndarray:
    """Maps the hand's black, middle and white to 0, `MIDDLE` and 1."""
    middle = np.clip((hand.middle - hand.black) / (hand.white - hand.black), *_MIDDLES)
    return _linear(image, hand.black, hand.white) ** (np.log(MIDDLE) / np.log(middle))


def _rotated(images: Any, angle: float) -> Any:
    """Rotates images [B, S, S, C] counter-clockwise about their centre, bilinearly; keeps the array kind and dtype."""
    count, size, _, channels = images.shape
    rows, columns = np.mgrid[:size, :size].reshape(2, -1)
    x, y = View(angle=angle).source(size) @ np.stack([columns, rows, np.ones_like(rows)])
    left, top = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    flat = images.reshape(count, size * size, channels)
    total = np.float32(0)
    for down in (0, 1):
        for right in (0, 1):
            i, j = top + down, left + right
            inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
            share = inside * (1 - np.abs(x - j)) * (1 - np.abs(y - i))
            place = np.where(inside, i * size + j, 0)
            total = total + share.astype(np.float32)[None, :, None] * flat[:, place].astype(np.float32)
    if np.issubdtype(images.dtype, np.integer):
        total = images.__array_namespace__().round(total).astype(images.dtype)
    return total.reshape(images.shape)
