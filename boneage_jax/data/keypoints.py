"""Key points of the hand and their heat map, an extra input of BoNet (Escobar et al., MICCAI 2019, pp. 531-539)."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from boneage_jax.data.matching import without_suffix
from boneage_jax.errors import BoneAgeError, listed

POINTS = 17
SIGMA = 25.0
"""Pixels of the original radiograph."""

_FORM = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "keypoints": [x, y, v] * 17}]}'


@dataclasses.dataclass(frozen=True)
class KeyPoints:
    """The key points of one radiograph.

    Attributes:
      source: file and image for error messages.
      points: pixels (right, down) of the original; the centre of its first pixel is (0, 0). NaN if not marked.
      shape: (height, width) of the original if the file gives it; needed to place points on a resized copy.
    """

    source: str
    points: Float[np.ndarray, "points 2"]
    shape: tuple[int, int] | None = None

    def with_size(self, size: tuple[int, int] | None) -> "KeyPoints":
        """The same points with width and height of the original, if they are known and `shape` is not."""
        return self if size is None or self.shape else dataclasses.replace(self, shape=size[::-1])

    def heatmap(self, image_shape: tuple[int, ...], size: int) -> UInt8[np.ndarray, "size size 1"]:
        """Draws the heat map of an image; `image_shape` is used unless the key points have their own `shape`.

        Raises:
          BoneAgeError: a point lies outside the image, so the points belong to another image or size.
        """
        height, width = self.shape or image_shape
        self._check_inside(height, width)
        return draw_heatmap(self.points[~np.isnan(self.points).any(axis=1)], (height, width), size)

    def on(self, image_shape: tuple[int, ...]) -> Float[np.ndarray, "points 2"]:
        """The points in pixels of an image of this shape, which may be a resized copy if `shape` is known.

        Raises:
          BoneAgeError: as `heatmap`.
        """
        height, width = self.shape or image_shape
        self._check_inside(height, width)
        scale = np.array([image_shape[1] / width, image_shape[0] / height])
        return (self.points + 0.5) * scale - 0.5

    def _check_inside(self, height: int, width: int) -> None:
        outside = (self.points < -SIGMA) | (self.points > np.array([width, height]) + SIGMA)
        if outside.any():
            x, y = self.points[outside.any(axis=1)][0]
            raise BoneAgeError(
                f"{self.source}: a key point at ({x:g}, {y:g}) lies outside the image of {width} x {height} pixels; "
                "if the images are resized copies, add the originals' width and height to the file's images"
            )


def draw_heatmap(
    points: Float[np.ndarray, "points 2"], shape: tuple[int, int], size: int
) -> UInt8[np.ndarray, "size size 1"]:
    """Draws a Gaussian of `SIGMA` at every point, on an image of `shape` (height, width) squashed to a square.

    The value is 255 at a point; overlapping Gaussians combine by their maximum. BoNet's own maps differ only in scale:
    it blurs a spot of 3 x 3 pixels, which leaves 0.58 of 255 at a point.
    """
    height, width = shape
    middles = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = points[:, :1].astype(np.float32), points[:, 1:].astype(np.float32)
    across = np.exp(-0.5 * ((middles * width - 0.5 - x) / SIGMA) ** 2)  # [points, size]
    along = np.exp(-0.5 * ((middles * height - 0.5 - y) / SIGMA) ** 2)
    highest = (along[:, :, None] * across[:, None, :]).max(axis=0, initial=0)
    return np.rint(255 * highest).astype(np.uint8)[..., None]


def read_key_points(path: str | pathlib.Path) -> dict[str, KeyPoints]:
    """Reads key points by image (`1377` for `1377.png`) from a file in BoNet's format, or from a folder of such files.

    As in COCO, a point at (0, 0) is not marked. Images without a marked point are left out.

    Raises:
      BoneAgeError: no file, another format, or an image that appears twice.
    """
    path = pathlib.Path(os.path.expanduser(path))
    files = sorted(path.glob("*.json")) if os.path.isdir(path) else [path]
    if not files:
        raise BoneAgeError(f"The folder {path} (data.keypoints) contains no .json file with key points")
    found: dict[str, KeyPoints] = {}
    for file in files:
        for image, points in _read_file(file):
            if image in found:
                raise BoneAgeError(f"{points.source} has key points twice ({found[image].source}); keep one of them")
            found[image] = points
    return {image: points for image, points in found.items() if not np.isnan(points.points).all()}


def gaps(marked: Mapping[str, KeyPoints], ids: Sequence[str], path: str | pathlib.Path) -> str:
    """Says which images have no key points in the file they were read from; "" if all have."""
    unmarked = [image_id for image_id in ids if image_id not in marked]
    return f"{path} has no key points for {len(unmarked)} images: {listed(unmarked)}" if unmarked else ""


def _read_file(path: pathlib.Path) -> Iterator[tuple[str, KeyPoints]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: (str(image["file_name"]), _shape(image)) for image in content["images"]}
        marks = [(mark["image_id"], images.get(mark["image_id"]), mark["keypoints"]) for mark in content["annotations"]]
    except OSError as error:
        raise BoneAgeError(f"The key points {path} (data.keypoints) cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BoneAgeError(f"{path} contains no key points ({error!r}); expected {_FORM}") from None
    for image_id, image, values in marks:
        if image is None:
            raise BoneAgeError(f"{path} marks an image {image_id!r} that is not among its images; expected {_FORM}")
        name, shape = image
        source = f"{path}, {name}"
        yield without_suffix(pathlib.PurePosixPath(name).name), KeyPoints(source, _points(values, source), shape)


def _shape(image: dict[str, Any]) -> tuple[int, int] | None:
    if not {"height", "width"} <= image.keys():
        return None
    shape = int(image["height"]), int(image["width"])
    if min(shape) < 1:
        raise ValueError(f"the size of {image['file_name']} is {shape[1]} x {shape[0]} pixels")
    return shape


def _points(values: Any, source: str) -> np.ndarray:
    try:
        points = np.array(values, np.float64).reshape(POINTS, 3)[:, :2]
    except (ValueError, TypeError):
        points = np.full((1, 2), np.nan)
    if not np.isfinite(points).all():
        raise BoneAgeError(f"{source}: expected {POINTS} key points of three numbers (x, y, v), not {values!r:.80}")
    points[(points == 0).all(axis=1)] = np.nan
    return points
