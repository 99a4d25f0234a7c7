"""Finds the hand in a radiograph: the crop around it, and the intensities that its exposure is adjusted to.

Collimation borders, laterality markers and a bright background differ between hospitals and carry no information about
bone age. Flat borders are trimmed first, so that padding does not change the result. A white top-hat (Serra 1982: the
image minus its opening) then keeps structures that are brighter than their surroundings and narrower than the
structuring element: fingers, wrist and forearm, but neither borders nor background.
"""

import dataclasses

import cv2
import numpy as np

SIDE = 128  # longer side, in pixels, of the thumbnail in which the hand is located
ELEMENT = 45  # diameter of the structuring element: wider than a palm
EDGE = 8  # rim of the thumbnail whose intensities are not used
TONE = (75, 0.45)  # a percentile of the thumbnail and the intensity it is mapped to, which undoes a gamma curve
TONES = (0.15, 0.95)  # range of that percentile within which it is mapped exactly
THRESHOLD = 0.55  # fraction of Otsu's threshold, which alone would lose faint fingers
GAP = 5  # pieces of a finger closer than this are joined
PART = 0.12  # fraction of the hand's area; smaller pieces are markers
SPREAD = (0.31, 0.375)  # typical distance of a hand's centre from the image's, as a fraction of width and height
BESIDE = 1.1  # a piece this many horizontal spreads or more off centre is not part of the hand
FOUND = 0.04  # fraction of the image; a smaller area is not a hand
FLAT = 0.02  # fraction of the intensity range within which a border row or column counts as flat


@dataclasses.dataclass(frozen=True)
class Hand:
    """The location and exposure of a hand.

    Attributes:
      box: left, top, right, bottom in pixels of the image.
      content: the part of the image inside the flat borders, likewise.
      black: intensity of the background beside the hand (median).
      middle: median intensity of the hand.
      white: intensity of the brightest bone (99th percentile of the hand).
    """

    box: tuple[float, float, float, float]
    content: tuple[int, int, int, int]
    black: float
    middle: float
    white: float


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """The intermediate images from which `find_hand` derives a `Hand`.

    Attributes:
      content: the part inside the flat borders: left, top, right, bottom in pixels of the image.
      thumbnail: that part reduced to `SIDE` pixels on its longer side, float32 `[h, w]`, intensities as in the image.
      relief: the top-hat of the thumbnail, uint8 `[h, w]`.
      mask: the pixels of the hand, bool `[h, w]`.
    """

    content: tuple[int, int, int, int]
    thumbnail: np.ndarray
    relief: np.ndarray
    mask: np.ndarray


def find_hand(image: np.ndarray) -> Hand | None:
    """Finds the hand in an image `[H, W]` of uint8 or uint16 with square pixels; returns None if there is none."""
    found = segment(image)
    if found is None or found.mask.mean() < FOUND:
        return None
    left, top, right, bottom = found.content
    mask = found.mask
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    across, down = (right - left) / mask.shape[1], (bottom - top) / mask.shape[0]
    box = (
        left + edges[0] * across,
        top + edges[1] * down,
        left + edges[2] * across,
        top + edges[3] * down,
    )
    return Hand(box, found.content, *_levels(found.thumbnail, mask, edges))


def segment(image: np.ndarray) -> Segmentation | None:
    """Segments the hand in an image `[H, W]` of uint8 or uint16; returns None if it is blank or too narrow."""
    left, top, right, bottom = content(image)
    image = image[top:bottom, left:right].astype(np.float32)
    if image.min() == image.max():
        return None
    height, width = image.shape
    scale = SIDE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    thumbnail = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(thumbnail, (1, 99))
    if high <= low or min(size) <= 2 * EDGE:
        return None
    relief = _relief(np.clip((thumbnail - low) / (high - low), 0, 1))
    return Segmentation((left, top, right, bottom), thumbnail, relief, _mask(relief))


def content(image: np.ndarray) -> tuple[int, int, int, int]:
    """The part of an image `[H, W]` inside its flat borders: left, top, right, bottom; never empty."""
    tolerance = FLAT * (float(image.max()) - float(image.min()))

    def inside(part: np.ndarray, axis: int) -> tuple[int, int]:
        least, most = (cv2.reduce(part, axis, kind).astype(np.float32).ravel() for kind in _EXTREMES)
        varied = np.flatnonzero(most - least > tolerance)
        return (int(varied[0]), int(varied[-1]) + 1) if varied.size else (0, least.size)

    left, right = 0, image.shape[1]
    # Trimming the columns may leave more rows flat.
    for _ in range(2):
        top, bottom = inside(image[:, left:right], axis=1)
        left, right = inside(image[top:bottom], axis=0)
    return left, top, right, bottom


_EXTREMES = (cv2.REDUCE_MIN, cv2.REDUCE_MAX)


def _mask(relief: np.ndarray) -> np.ndarray:
    """The hand's pixels, bool `[h, w]`, by the relief of a thumbnail."""
    threshold, _ = cv2.threshold(relief, 0, 255, cv2.THRESH_OTSU)
    bright = (relief > THRESHOLD * threshold).astype(np.uint8)
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4, 4)))
    joined = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (GAP, GAP)))
    return _largest_near_the_middle(joined) & (opened > 0)


def _relief(thumbnail: np.ndarray) -> np.ndarray:
    """The top-hat, uint8, of a float thumbnail of 0 to 1; a bright hand reaches 200 at any exposure, markers more."""
    percentile, target = TONE
    level = np.clip(np.percentile(thumbnail, percentile), *TONES)
    image = cv2.GaussianBlur(255 * thumbnail ** (np.log(target) / np.log(level)), (3, 3), 0)
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (ELEMENT, ELEMENT))
    border = ELEMENT // 2 + 2
    image = cv2.copyMakeBorder(image.astype(np.uint8), border, border, border, border, cv2.BORDER_REPLICATE)
    relief = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, element)[border:-border, border:-border]
    bright = np.percentile(relief[EDGE:-EDGE, EDGE:-EDGE], 95)
    return np.clip(relief.astype(np.float32) * (200 / max(bright, 8)), 0, 255).astype(np.uint8)


def _largest_near_the_middle(bright: np.ndarray) -> np.ndarray:
    """The connected component that is most likely the hand, with parts of the hand that are separate from it."""
    count, labels, statistics, centres = cv2.connectedComponentsWithStats(bright)
    if count < 2:
        return np.zeros_like(labels, bool)
    height, width = bright.shape
    area = statistics[:, cv2.CC_STAT_AREA].astype(float)
    off = [(centres[:, axis] / side - 0.5) / SPREAD[axis] for axis, side in enumerate((width, height))]
    score = area * np.exp(-(off[0] ** 2 + off[1] ** 2) / 2)
    score[0] = 0  # the background
    hand = int(np.argmax(score))
    near = np.abs(off[0]) < BESIDE
    parts = [i for i in range(1, count) if i == hand or (area[i] > PART * area[hand] and near[i])]
    return np.isin(labels, parts)


def _levels(thumbnail: np.ndarray, mask: np.ndarray, edges: tuple[int, int, int, int]) -> tuple[float, float, float]:
    """The intensities `black`, `middle` and `white` of `Hand`, in strictly rising order."""
    left, top, right, bottom = edges
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    beside = thumbnail[top:bottom, left:right][~grown[top:bottom, left:right]]
    middle, white = (float(value) for value in np.percentile(thumbnail[mask], (50, 99)))
    black = float(np.median(beside)) if beside.size else 0.0
    if not black < middle < white:
        black, white = float(thumbnail.min()), float(thumbnail.max())
        middle = (black + white) / 2
    return black, middle, white
