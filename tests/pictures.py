"""Pictures that the package has written, read back."""

import os
from pathlib import Path

import cv2
import numpy as np


def decode(data: bytes, kind: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """The pixels: in colour blue, green and red `[H, W, 3]`, or of another kind that OpenCV knows."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
    assert image is not None, "no picture"
    return image


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """The pixels of a file, in colour."""
    return decode(Path(path).read_bytes())
