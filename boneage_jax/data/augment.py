"""Random views of a radiograph for training: an affine warp that also crops, a filter, and an intensity table.

Sampling a view (`Augmentation.sample` -> `View`) is separate from applying it (`apply`), so that views can be
sampled on the host and applied on a device.
"""

import dataclasses
import math

import cv2
import numpy as np

from boneage_jax.data.resample import BLUR
from boneage_jax.errors import BoneAgeError

MID_GREY = 127.5

# Uniform random numbers drawn for each view: three whole Philox blocks, which lets the pipeline start at any view of
# the stream.
DRAWS = 12

# Sharpness is quantised to binary fractions, so that the filter gives the same bits in any order of summation.
SHARPNESS_STEPS = 64


@dataclasses.dataclass(frozen=True)
class View:
    """One drawn view of an image: flip, rotate, zoom, shift, cut a window, change sharpness and intensities.

    Attributes:
      flip: mirror left and right.
      angle: degrees, counter-clockwise as seen by the viewer.
      scale: 2.0 shows everything twice as large.
      shift: pixels (right, down).
      crop: pixels per side of the window; 0 for the whole image.
      corner: upper left corner of the window, pixels (right, down).
      sharpness: amount of detail finer than `BLUR` to add; -1.0 leaves the blurred image.
      gain: contrast; 2.0 doubles the distance to the middle intensity (127.5).
      offset: brightness, added to intensities of 0 to 255.
      gamma: exponent of the intensities (as fractions of 255), applied before gain and offset.
    """

    flip: bool = False
    angle: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    crop: int = 0
    corner: tuple[int, int] = (0, 0)
    sharpness: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0

    def moves(self) -> bool:
        """Whether the image must be warped; if not, the window is a slice of the image."""
        return self.flip or self.angle != 0 or self.scale != 1 or self.shift != (0, 0)

    def recolours(self) -> bool:
        """Whether the intensity table changes any value."""
        return self.gain != 1 or self.offset != 0 or self.gamma != 1

    def geometry(self) -> "View":
        """The view for a heat map of the image: same geometry, values unchanged."""
        return dataclasses.replace(self, sharpness=0.0, gain=1.0, offset=0.0, gamma=1.0)

    def matrix(self, size: int) -> np.ndarray:
        """Returns the float64 [2, 3] matrix from a pixel (x, y) of the image to its place in the window.

        Pixel centres have integer coordinates, so the centre of an image of `size` pixels is (size - 1) / 2.
        """
        cosine = self.scale * math.cos(math.radians(self.angle))
        sine = self.scale * math.sin(math.radians(self.angle))
        mirror = -1.0 if self.flip else 1.0
        # y points down, hence these signs for a counter-clockwise rotation.
        linear = np.array([[mirror * cosine, sine], [-mirror * sine, cosine]])
        centre = np.full(2, (size - 1) / 2)
        return np.column_stack([linear, centre + np.array(self.shift) - linear @ centre - self.corner])

    def source(self, size: int) -> np.ndarray:
        """Returns the inverse of `matrix`: from a pixel (x, y) of the window to its place in the image."""
        return cv2.invertAffineTransform(self.matrix(size))

    def kernel(self) -> np.ndarray:
        """Returns the float32 [3, 3] filter that changes the sharpness: x + sharpness (x - BLUR * x)."""
        kernel = -self.sharpness * BLUR
        kernel[1, 1] += 1 + self.sharpness
        return kernel.astype(np.float32)

    def table(self) -> np.ndarray:
        """Returns the new intensity of each old one, uint8 [256].

        With u = 255 (v / 255)^gamma, intensity v becomes (u - 127.5) gain + 127.5 + offset.
        """
        curved = 255 * (np.arange(256) / 255) ** self.gamma
        values = (curved - MID_GREY) * self.gain + MID_GREY + self.offset
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far training images may differ from the prepared ones; the default changes nothing.

    Each amount is the limit of a range that is sampled uniformly and independently for each image.

    Attributes:
      flip: probability of mirroring left and right (0 to 1).
      rotation: largest angle in degrees, in either direction (0 to 180).
      shift: largest shift along each axis, in either direction, as a fraction of the side (0 to 1).
      zoom: scale between 1 - zoom and 1 + zoom (0 to below 1).
      brightness: largest offset, up or down, as a fraction of the full range of 255 (0 to 1).
      contrast: distance to the middle intensity times 1 - contrast to 1 + contrast (0 to below 1).
      sharpness: fine detail times 1 - sharpness (blurred) to 1 + sharpness (sharpened) (0 to 1).
      gamma: exponent between 1 / (1 + gamma) and 1 + gamma, sampled uniformly on a logarithmic scale (0 to 1).

    Raises:
      BoneAgeError: an amount is not a number, or it is out of range.
    """

    flip: float = 0.0
    rotation: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    sharpness: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        highest = {"flip": 1, "rotation": 180, "shift": 1, "brightness": 1, "sharpness": 1, "gamma": 1}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            number = not isinstance(value, bool) and isinstance(value, int | float | np.number)
            limit = highest.get(field.name)
            allowed = number and (0 <= value < 1 if limit is None else 0 <= value <= limit)
            if not allowed:
                bounds = "from 0 to below 1" if limit is None else f"from 0 to {limit}"
                raise BoneAgeError(f"augmentation.{field.name} must be a number {bounds}, not {value!r}")
            object.__setattr__(self, field.name, float(value))

    def sample_batch(self, seed: int, number: int, count: int, size: int, crop: int = 0) -> list[View]:
        """Draws the `count` views of batch `number` in the stream that `seed` determines (see `sample`).

        An image's view depends only on its position in the stream, wherever the stream is started.
        """
        # Philox generates four numbers per counter step.
        rng = np.random.Generator(np.random.Philox(key=seed, counter=number * count * DRAWS // 4))
        return [self.sample(rng, size, crop) for _ in range(count)]

    def sample(self, rng: np.random.Generator, size: int, crop: int = 0) -> View:
        """Draws the view of one image of `size` pixels per side, with the position of its window of `crop` pixels.

        Always takes `DRAWS` numbers from `rng`, so that disabling one augmentation does not change the others.

        Raises:
          BoneAgeError: the window is larger than the image.
        """
        if not 0 <= crop <= size:
            raise BoneAgeError(f"preprocess.crop is {crop} pixels, expected 0 to the image's {size}")
        places = size - crop + 1 if crop else 1  # along each axis
        draws = rng.random(DRAWS)
        angle, zoom, right, down, offset, gain = (2 * draws[1:7] - 1).tolist()
        place = int(draws[7] * places**2)
        return View(
            flip=bool(draws[0] < self.flip),
            angle=self.rotation * angle,
            scale=1 + self.zoom * zoom,
            shift=(self.shift * size * right, self.shift * size * down),
            crop=crop,
            corner=(place % places, place // places),
            sharpness=round(self.sharpness * float(2 * draws[9] - 1) * SHARPNESS_STEPS) / SHARPNESS_STEPS,
            gain=1 + self.contrast * gain,
            offset=255 * self.brightness * offset,
            gamma=(1 + self.gamma) ** (2 * float(draws[8]) - 1),
        )


def apply(image: np.ndarray, view: View) -> np.ndarray:
    """Applies `view` to `image`, uint8 [S, S, C]; the result has the same shape, or that of the window.

    Interpolation is bilinear. Areas beyond the edge of the image are filled with black (0), like the unexposed rim of
    most radiographs; reflecting the edge would add bones that are not there, and replicating it would add streaks
    of skin. Sharpness and intensities change after the warp, so that this rim matches the image's own background.
    If neither the warp nor the filter nor the table applies, the result is the image or a slice of it, not a copy.
    """
    size = image.shape[0]
    side = view.crop or size
    if view.moves():
        image = _warped(image, view.matrix(size), side)
    elif view.crop:
        left, top = view.corner
        image = image[top : top + side, left : left + side]
    if view.sharpness:
        sharp = cv2.filter2D(image, -1, view.kernel(), borderType=cv2.BORDER_REPLICATE)
        image = sharp.reshape(image.shape)
    if view.recolours():
        image = cv2.LUT(image, view.table()).reshape(image.shape)
    return image


def _warped(image: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Warps four channels at a time: with more, cv2 rounds positions to 1/32 of a pixel."""
    parts = [
        cv2.warpAffine(image[..., start : start + 4], matrix, (side, side), flags=cv2.INTER_LINEAR)
        for start in range(0, image.shape[-1], 4)
    ]
    parts = [part.reshape(side, side, -1) for part in parts]  # cv2 drops a single channel's axis
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
