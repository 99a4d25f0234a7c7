"""Describes a radiograph by 1,456 numbers: position and direction of its edges, and its coarse brightness.

Histograms of oriented gradients after Dalal and Triggs (2005), with the sign of the gradient (bones are brighter than
their surroundings) and a weaker normalisation, because the grain of an empty dark film is not an edge.
"""

import cv2
import numpy as np

_SIDE, _CELL, _BINS, _COARSE = 80, 8, 12, 16
_GRID = _SIDE // _CELL
_CELLS = (np.arange(_SIDE)[:, None] // _CELL * _GRID + np.arange(_SIDE) // _CELL) * _BINS  # [80, 80], first bin
_DIFFERENCE = np.array([[-0.5, 0.0, 0.5]], np.float32)
_FLOOR = 0.25  # Of the mean energy of a cell: much fainter edges stay faint.

LENGTH = _GRID * _GRID * _BINS + _COARSE * _COARSE


def describe(image: np.ndarray) -> np.ndarray:
    """The descriptor float32 `[LENGTH]` of a greyscale image `[H, W]`, which is resized to a square first.

    It is nearly invariant to brightness and contrast: intensities are scaled between the first and last percentile.
    """
    square = squashed(image).astype(np.float32)
    low, high = np.percentile(square, (1, 99))
    square = np.clip((square - low) / max(high - low, 1e-6), 0, 1)
    coarse = cv2.resize(square, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    return np.concatenate([_edges(square).ravel(), coarse.ravel()]).astype(np.float32)


def squashed(image: np.ndarray) -> np.ndarray:
    """Resizes a greyscale image `[H, W]` to the square that `describe` uses."""
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _edges(square: np.ndarray) -> np.ndarray:
    """Edge energy by cell and direction, [grid, grid, bins]."""
    right, down = (cv2.filter2D(square, -1, kernel) for kernel in (_DIFFERENCE, _DIFFERENCE.T))
    strength = np.hypot(right, down)
    direction = np.arctan2(down, right) * (_BINS / (2 * np.pi)) % _BINS
    first = np.floor(direction).astype(np.int64)
    share = direction - first
    energy = np.zeros(_GRID * _GRID * _BINS)
    for bins, weights in ((first, strength * (1 - share)), (first + 1, strength * share)):
        energy += np.bincount((_CELLS + bins % _BINS).ravel(), weights.ravel(), energy.size)
    cells = energy.reshape(_GRID, _GRID, _BINS).astype(np.float32)
    norm = np.sqrt((cells**2).sum(axis=-1))
    return np.sqrt(cells / (cv2.blur(norm, (3, 3)) + _FLOOR * norm.mean() + 1e-6)[..., None])
