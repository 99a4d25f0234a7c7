"""Draw docs/phantom.png, the phantom at six ages of girls and boys: `python docs/make_phantom_figure.py`."""

from pathlib import Path

import cv2
import numpy as np

from boneage_jax.data.phantom import render
from boneage_jax.sex import Sex

YEARS = (2, 5, 8, 11, 14, 17)
SIZE = 256
BAND = 26


def contact_sheet() -> np.ndarray:
    """The labelled sheet, uint8: a row per sex, a column per age; each column shows one pose twice."""
    rows = []
    for name, sex in (("girl", Sex.FEMALE), ("boy", Sex.MALE)):
        cells = []
        for column, years in enumerate(YEARS):
            picture = render(12.0 * years, sex, size=SIZE, seed=11 + column).image
            label = np.zeros((BAND, SIZE), np.uint8)
            cv2.putText(label, f"{name}, {years} years", (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
            cells.append(cv2.copyMakeBorder(np.vstack([label, picture]), 0, 0, 1, 1, cv2.BORDER_CONSTANT, value=0))
        rows.append(np.hstack(cells))
    return np.vstack(rows)


if __name__ == "__main__":
    target = Path(__file__).with_name("phantom.png")
    sheet = contact_sheet()
    # Fewer intensities compress better and look the same.
    cv2.imwrite(str(target), sheet // 6 * 6, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"wrote {target} ({target.stat().st_size / 1024:.0f} kB)")
