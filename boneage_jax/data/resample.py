"""Resamples a radiograph to the network's size.

Full-size originals are blurred like RSNA's copies, which are squashed to `SIDE` pixels in each direction: the released
networks were trained on these.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float, Num

Window = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the image; pixel (x, y) covers the area from x to x + 1 and y to y + 1."""
Frame = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels of the image."""

SIDE = 299  # pixels per side of RSNA's copies
SQUARE = 0.01  # an aspect ratio that deviates from 1 by up to this counts as 1; it may be rounding
FULL_SIZE = 2.0  # pixels of the image per pixel of the result; images with more are blurred
_REDUCED = 2  # pixels per pixel of the result to which full-size images are reduced before they are blurred


def cut(
    image: Num[np.ndarray, "height width"], window: Window, size: int, frame: Frame, fill: float
) -> Float[np.ndarray, "size size"]:
    """Resamples a square window, with subpixel accuracy, to float32.

    Area averaging down to twice the size, a blur, then linear interpolation.

    Args:
      image: uint8 or uint16.
      window: the square, which may extend beyond the image.
      size: pixels per side of the result.
      frame: the part of the image that a copy would show; a small hand in a large frame is less sharp in a copy.
      fill: intensity beyond the image.
    """
    left, top, right, bottom = window
    height, width = image.shape
    step = (right - left) / size  # pixels of the image per pixel of the result
    blur = copy_blur(step, frame) if step > FULL_SIZE else np.zeros(2)
    around = math.ceil(step * (1 + 4 * blur.max())) if blur.any() else 0  # pixels that are blurred into the window
    x, y = max(int(left) - around, 0), max(int(top) - around, 0)
    until = min(int(bottom) + 2 + around, height), min(int(right) + 2 + around, width)
    part: np.ndarray = image[y : until[0], x : until[1]].astype(np.float32)
    across = down = 1.0
    if blur.any():
        reduced = tuple(max(round(side * _REDUCED / step), 1) for side in part.shape[::-1])
        across, down = reduced[0] / part.shape[1], reduced[1] / part.shape[0]
        part = cv2.resize(part, reduced, interpolation=cv2.INTER_AREA)
        sigma_x, sigma_y = _REDUCED * blur
        part = cv2.GaussianBlur(part, (0, 0), sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REPLICATE)
    # Pixels are squares whose centres lie at half-integers.
    matrix = np.array(
        [
            [step * across, 0, (step / 2 + left - x) * across - 0.5],
            [0, step * down, (step / 2 + top - y) * down - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)


def copy_blur(step: float, frame: Frame) -> Float[np.ndarray, "2"]:
    """The blur, across and down, that makes a full-size image as sharp as its copy.

    The frame is squashed to a square of `SIDE` pixels with a triangle filter. Linear interpolation then restores the
    proportions, which changes the longer side only, and cuts the window. Each of these steps convolves with a triangle
    that reaches one pixel of the copy in either direction and has a variance of 1/6. What the area averaging and the
    interpolation of `cut` lack of this variance is left to a Gaussian. Against aliasing, the blur is at least that of a
    triangle that reaches one pixel of the result.

    Args:
      step: pixels of the image per pixel of the result.
      frame: the part of the image that the copy shows.

    Returns:
      Standard deviations in pixels of the result.
    """
    left, top, right, bottom = frame
    pixel = np.array([right - left, bottom - top]) / SIDE / step  # of the copy, in pixels of the result
    restored = pixel > (1 + SQUARE) * pixel.min()
    variance = (2 * pixel**2 + restored * pixel.min() ** 2) / 6
    return np.sqrt(np.maximum(variance, 1 / 6) - _OWN)


_OWN = (1 / 12 + 1 / 6) / _REDUCED**2  # variance of averaging over a pixel and of interpolating between two


def square(image: Num[np.ndarray, "height width"], size: int) -> Float[np.ndarray, "size size"]:
    """Squashes the image to float32: area averaging where an axis shrinks, linear interpolation where it grows."""
    height, width = image.shape
    shown: np.ndarray = image.astype(np.float32)
    if height > size or width > size:
        shown = cv2.resize(shown, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    if shown.shape != (size, size):
        shown = cv2.resize(shown, (size, size), interpolation=cv2.INTER_LINEAR)
    return shown
