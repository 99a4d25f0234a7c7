"""Resamples a radiograph to the network's size.

Larger images are blurred like the copies on which a network was trained: RSNA's are squashed to 299 pixels in each
direction.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float, Num

BLUR = np.outer([1, 2, 1], [1, 2, 1]) / 16  # the smallest Gaussian, with a standard deviation of 0.7 pixels
Window = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the image; pixel (x, y) covers the area from x to x + 1 and y to y + 1."""
Frame = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels of the image."""

LARGER = 1.2  # images with a shorter side of at least this multiple of a copy's are made as sharp as a copy
SQUARE = 0.01  # an aspect ratio that deviates from 1 by up to this counts as 1; it may be rounding
_MOST = 2.0  # pixels per pixel of the result, per axis, from which the result is interpolated


def cut(
    image: Num[np.ndarray, "height width"], window: Window, size: int, frame: Frame, fill: float, copy_side: int
) -> Float[np.ndarray, "size size"]:
    """Resamples a square window, with subpixel accuracy, to float32.

    Area averaging down to twice the size, followed by `BLUR`; the blur of a copy; then linear interpolation.

    Args:
      image: uint8 or uint16.
      window: the square, which may extend beyond the image.
      size: pixels per side of the result.
      frame: the part of the image that a copy would show; a small hand in a large frame is less sharp in a copy.
      fill: intensity beyond the image.
      copy_side: pixels per side of a copy, see `copy_blur`.
    """
    left, top, right, bottom = window
    height, width = image.shape
    step = (right - left) / size  # pixels of the image per pixel of the result
    blur = copy_blur(step, frame, copy_side)
    reach = (2 if step > _MOST else 0) + 4 * max(blur)
    around = math.ceil(step * reach)  # pixels beyond the window that are blurred into it
    x, y = max(int(left) - around, 0), max(int(top) - around, 0)
    until = min(int(bottom) + 2 + around, height), min(int(right) + 2 + around, width)
    part: np.ndarray = image[y : until[0], x : until[1]].astype(np.float32)
    across = down = 1.0
    if step > _MOST:
        reduced = tuple(max(round(side * _MOST / step), 1) for side in part.shape[::-1])
        across, down = reduced[0] / part.shape[1], reduced[1] / part.shape[0]
        part = cv2.resize(part, reduced, interpolation=cv2.INTER_AREA)
        part = cv2.filter2D(part, -1, BLUR.astype(np.float32), borderType=cv2.BORDER_REPLICATE)
    if any(blur):
        sigma_x, sigma_y = (min(step, _MOST) * max(sigma, _LEAST) for sigma in blur)
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


_LEAST = 1e-3  # cv2.GaussianBlur takes 0 for "as in the other direction"


def copy_blur(step: float, frame: Frame, copy_side: int) -> tuple[float, float]:
    """The blur, across and down, that makes a larger image as sharp as its copy.

    A copy is the frame, squashed to a square with a triangle filter. Linear interpolation then restores the
    proportions, which changes the longer side only, and cuts the window. Each of these steps convolves with a triangle
    that reaches one pixel of the copy in either direction and has a variance of 1/6. What the averaging, `BLUR` and the
    interpolation of `cut` lack of this variance is left to a Gaussian.

    Args:
      step: pixels of the image per pixel of the result.
      frame: the part of the image that the copy shows.
      copy_side: pixels per side of the copy; 0 for no blur.

    Returns:
      Standard deviations in pixels of the result; 0 for images that are hardly larger than a copy.
    """
    left, top, right, bottom = frame
    sides = right - left, bottom - top
    if copy_side == 0 or min(sides) < LARGER * copy_side:
        return 0.0, 0.0
    across, down = (side / copy_side / step for side in sides)  # pixels of the result per pixel of the copy
    # In pixels of the image that is interpolated: a box of one pixel, `BLUR`, and a triangle.
    present = (1 / 12 + 1 / 2 + 1 / 6) / _MOST**2 if step > _MOST else 1 / 6 / step**2
    lacking = []
    for pixel, other in ((across, down), (down, across)):
        restored = pixel > (1 + SQUARE) * other
        lacking.append((2 * pixel**2 + restored * other**2) / 6 - present)
    return math.sqrt(max(lacking[0], 0)), math.sqrt(max(lacking[1], 0))


def square(image: Num[np.ndarray, "height width"], size: int) -> Float[np.ndarray, "size size"]:
    """Squashes the image to float32: area averaging where an axis shrinks, linear interpolation where it grows."""
    height, width = image.shape
    shown: np.ndarray = image.astype(np.float32)
    if height > size or width > size:
        shown = cv2.resize(shown, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    if shown.shape != (size, size):
        shown = cv2.resize(shown, (size, size), interpolation=cv2.INTER_LINEAR)
    return shown
