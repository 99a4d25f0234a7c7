"""Reads back images that the package has written."""

import os
from pathlib import Path

import cv2
import numpy as np


def decode(data: bytes, kind: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """The pixels: BGR `[H, W, 3]`, or as in another read mode of OpenCV."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
    assert image is not None, "no picture"
    return image


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """The pixels of a file as BGR."""
    return decode(Path(path).read_bytes())
