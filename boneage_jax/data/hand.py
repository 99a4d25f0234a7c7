"""Finds the hand in a radiograph: what to crop to, and whose greys to expose for.

Collimation borders, laterality markers and a grey background differ from hospital to hospital and say nothing about
the child's age. A white top-hat (Serra 1982: the image minus its opening) keeps what is brighter than its
surroundings and narrower than the structuring element: fingers, wrist and forearm, but no border and no background.
"""

import dataclasses

import cv2
import numpy as np

SIDE = 128  # pixels at which the hand is looked for
ELEMENT = 45  # diameter of the structuring element: wider than a palm
EDGE = 16  # rim whose greys are not trusted
THRESHOLD = 0.55  # of Otsu's, which alone would lose faint fingers
PART = 0.12  # of the hand's area: smaller pieces are markers
TYPICAL = ((64.0, 40.0), (64.0, 48.0))  # centre and spread of hands, right and down
FOUND = 0.04  # of the picture; less is no hand


@dataclasses.dataclass(frozen=True)
class Hand:
    """Where the hand is.

    Attributes:
      box: left, top, right, bottom as fractions of width and height.
      mask: bool [128, 128] over the whole picture, squashed to a square.
    """

    box: tuple[float, float, float, float]
    mask: np.ndarray


def find_hand(image: np.ndarray) -> Hand | None:
    """Finds the hand in a grey image [H, W], uint8 or uint16, squashed or not; None if there is none to be seen."""
    image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = np.percentile(image, (1, 99))
    if high <= low:
        return None
    image = np.clip((image - low) * (255 / (high - low)), 0, 255)
    relief = _relief(cv2.GaussianBlur(image, (3, 3), 0))
    threshold, _ = cv2.threshold(relief, 0, 255, cv2.THRESH_OTSU)
    bright = (relief > THRESHOLD * threshold).astype(np.uint8)
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4, 4))
    mask = _largest_near_the_middle(cv2.morphologyEx(bright, cv2.MORPH_OPEN, element))
    if mask.mean() < FOUND:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    left, top, right, bottom = (float(edge) / SIDE for edge in edges)
    return Hand((left, top, right, bottom), mask)


def _relief(image: np.ndarray) -> np.ndarray:
    """The top-hat as uint8; a bright hand reaches 200 whatever the exposure, markers more."""
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (ELEMENT, ELEMENT))
    border = ELEMENT // 2 + 2
    image = cv2.copyMakeBorder(image.astype(np.uint8), border, border, border, border, cv2.BORDER_REPLICATE)
    relief = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, element)[border:-border, border:-border]
    bright = np.percentile(relief[EDGE:-EDGE, EDGE:-EDGE], 95)
    return np.clip(relief.astype(np.float32) * (200 / max(bright, 8)), 0, 255).astype(np.uint8)


def _largest_near_the_middle(bright: np.ndarray) -> np.ndarray:
    """The connected piece that is most likely the hand, with pieces of it that have come off."""
    count, labels, statistics, centres = cv2.connectedComponentsWithStats(bright)
    if count < 2:
        return np.zeros_like(labels, bool)
    area = statistics[:, cv2.CC_STAT_AREA].astype(float)
    off = [(centres[:, axis] - middle) / spread for axis, (middle, spread) in enumerate(TYPICAL)]
    score = area * np.exp(-(off[0] ** 2 + off[1] ** 2) / 2)
    score[0] = 0  # the background
    hand = int(np.argmax(score))
    near = np.abs(off[0]) < 1.1
    parts = [i for i in range(1, count) if i == hand or (area[i] > PART * area[hand] and near[i])]
    return np.isin(labels, parts)
