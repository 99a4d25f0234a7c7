"""Draws docs/preprocessing.png, the preprocessing stages of a drawn hand: python docs/make_preprocessing_figure.py."""

from pathlib import Path

import cv2
import numpy as np

from boneage_jax.data import hand, phantom, resample
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.sex import Sex

SIDE = 240  # pixels of each picture
BAND = 28  # above it, for its title


def film() -> np.ndarray:
    """A dim drawn hand with flat borders of different widths, uint8."""
    drawn = phantom.render(108, Sex.FEMALE, size=720, seed=7).image
    dim = (40 + 0.45 * drawn.astype(np.float32)).astype(np.uint8)
    return cv2.copyMakeBorder(dim, 40, 140, 150, 30, cv2.BORDER_CONSTANT, value=40)


def stages(image: np.ndarray) -> dict[str, np.ndarray]:
    """The image after each stage of `Preprocessing.prepare`, by title."""
    preprocessing = Preprocessing(size=SIDE, region="hand", clahe_clips=())
    segmented, found = hand.segment(image), hand.find_hand(image)
    assert segmented is not None
    assert found is not None
    left, top, right, bottom = segmented.content
    cut = resample.cut(image, preprocessing.window(image), SIDE, found.content, found.black, preprocessing.copy_side)
    clahe = Preprocessing(size=SIDE, region="hand", clahe_clips=(2.0,))
    return {
        "1 file": image,
        "2 borders trimmed": image[top:bottom, left:right],
        "3 relief": segmented.relief,
        "4 mask": 255 * segmented.mask.astype(np.uint8),
        "5 cut": cut.astype(np.uint8),
        "6 exposed": preprocessing.prepare(image)[..., 0],
        "7 CLAHE": clahe.prepare(image)[..., 0],
    }


def cell(title: str, picture: np.ndarray) -> np.ndarray:
    """The picture in a square, below its title."""
    scale = SIDE / max(picture.shape)
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    square = np.full((SIDE + BAND, SIDE), 255, np.uint8)
    y, x = BAND + (SIDE - small.shape[0]) // 2, (SIDE - small.shape[1]) // 2
    square[y : y + small.shape[0], x : x + small.shape[1]] = small
    cv2.putText(square, title, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0, 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(square, 2, 2, 4, 4, cv2.BORDER_CONSTANT, value=255)


if __name__ == "__main__":
    cells = [cell(title, picture) for title, picture in stages(film()).items()]
    blank = np.full_like(cells[0], 255)
    sheet = np.vstack([np.hstack(cells[:4]), np.hstack([*cells[4:], blank])])
    target = Path(__file__).with_name("preprocessing.png")
    # Fewer intensity levels compress better and look the same.
    cv2.imwrite(str(target), sheet // 6 * 6, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"wrote {target} ({target.stat().st_size / 1024:.0f} kB)")
