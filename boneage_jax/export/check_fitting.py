"""Fits the checks of input images on radiographs assumed to be good and on corrupted copies of them."""

import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from boneage_jax.data import rsna
from boneage_jax.data.radiograph import read
from boneage_jax.errors import BoneAgeError
from boneage_jax.export.spoiled import SPOILED
from boneage_jax.released.checks import GOOD, Checks, Settings, distance, inside_borders
from boneage_jax.released.descriptor import describe

FALSE_ALARMS = 0.003
"""Share of the tuning radiographs that each of the two limits, classifier and distance, may reject."""

_SIDE = 128  # Pixels per side of the squares that are corrupted and described.
_SPOILED_SHARE = 0.3  # Corrupted images of each kind per good radiograph.
_CLASSIFIER_AXES, _DISTANCE_AXES = 320, 96
_RIDGE = 1e-4
_STEPS = 150
LEAST_IMAGES = 100


def training_squares(
    directory: str | pathlib.Path, limit: int = 0, on_missing: str = "error", seed: int = 0
) -> list[np.ndarray]:
    """The training split of a data folder, or `limit` random images of it (0 for all), as `fit` expects them.

    Args:
        directory: the folder, in any layout that `rsna.find` knows.
        limit: most images to read; 0 for all.
        on_missing: see `rsna.find`.
        seed: of the choice.

    Raises:
        BoneAgeError: as `rsna.find`; an image cannot be read.
    """
    found = rsna.find(directory, on_missing)["train"]
    order = np.random.default_rng(seed).permutation(len(found))[: limit or None]
    return [square(read(found[place].file)[0]) for place in order]


def square(image: np.ndarray) -> np.ndarray:
    """Removes flat borders from a greyscale image `[H, W]` and resizes it to uint8 `[128, 128]`, as `fit` expects."""
    image = cv2.resize(inside_borders(image), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if image.dtype == np.uint8:
        return image
    return (image.astype(np.float32) * (255 / max(int(image.max()), 1))).astype(np.uint8)


def fit(squares: Sequence[np.ndarray], seed: int = 0) -> Checks:
    """Fits classifier and distance on two thirds of the radiographs, and their limits on the others.

    Args:
      squares: good radiographs, uint8 `[128, 128]`, in any order; none on which false alarms are to be measured.
      seed: of the corruptions, and of the choice of the third used for tuning.

    Raises:
      BoneAgeError: fewer than 100 radiographs.
    """
    if len(squares) < LEAST_IMAGES:
        raise BoneAgeError(
            f"the checks cannot be fitted on {len(squares)} radiographs; at least {LEAST_IMAGES} are needed"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(squares))
    tuning, fitting = np.split(order, [len(squares) // 3])
    good = _described(squares, fitting)
    # Networks are trained on mirror images too: both classifier and distance treat a mirrored hand as good.
    good = np.concatenate([good, _described([np.ascontiguousarray(squares[place][:, ::-1]) for place in fitting])])
    spoiled = []
    for spoil in SPOILED.values():
        chosen = rng.permutation(fitting)[: max(int(len(fitting) * _SPOILED_SHARE), 1)]
        spoiled.append(_described([spoil(squares[place], rng) for place in chosen]))
    kinds = np.repeat(np.arange(len(SPOILED) + 1), [len(described) for described in (good, *spoiled)])
    arrays = _classifier(np.concatenate([good, *spoiled]), kinds) | _gaussian(good)
    held = _described(squares, tuning)
    score = log_softmax(held @ arrays["weights"] + arrays["bias"], axis=-1)[:, 0]
    settings = Settings(
        kinds=(GOOD, *SPOILED),
        least_good=float(np.quantile(score, FALSE_ALARMS)),
        largest_distance=float(np.quantile(distance(held, arrays), 1 - FALSE_ALARMS)),
    )
    return Checks(settings, arrays)


def _described(squares: Sequence[np.ndarray], places: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    return np.stack(
        [describe(inside_borders(squares[place])) for place in (range(len(squares)) if places is None else places)]
    )


def _axes(described: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean `[D]`, principal axes `[D, count]` and all variances `[D]`, largest first."""
    mean = described.mean(axis=0)
    centred = described - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
    return mean, axes[:, : min(count, len(described) - 1)], variances


def _gaussian(good: np.ndarray) -> dict[str, np.ndarray]:
    mean, axes, variances = _axes(good, _DISTANCE_AXES)
    count = axes.shape[1]
    rest = max(float(variances[count:].mean()), 1e-12)
    spread = np.sqrt(np.append(np.maximum(variances[:count], rest), rest))
    return {"mean": mean, "axes": np.ascontiguousarray(axes), "spread": spread.astype(np.float32)}


def _classifier(described: np.ndarray, kinds: np.ndarray) -> dict[str, np.ndarray]:
    """Ridge-penalised softmax regression on the whitened principal axes, folded into one linear map."""
    mean, axes, variances = _axes(described, _CLASSIFIER_AXES)
    scaled = axes / np.sqrt(variances[: axes.shape[1]] + 1e-3)
    inputs = np.column_stack([(described - mean) @ scaled, np.ones(len(described), np.float32)])
    targets = np.eye(kinds.max() + 1, dtype=np.float32)[kinds]
    # Weighted as if half of all images were good and all kinds of corrupted images equally frequent.
    share = np.array([0.5, *[0.5 / (targets.shape[1] - 1)] * (targets.shape[1] - 1)])
    balance = (share / np.bincount(kinds))[kinds][:, None].astype(np.float32)
    penalised = np.ones((inputs.shape[1], 1), np.float32)
    penalised[-1] = 0

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(inputs.shape[1], -1).astype(np.float32)
        logs = log_softmax(inputs @ weights, axis=-1)
        value = -(balance * targets * logs).sum() + _RIDGE * (penalised * weights**2).sum()
        slope = inputs.T @ (balance * (np.exp(logs) - targets)) + 2 * _RIDGE * penalised * weights
        return float(value), slope.ravel().astype(np.float64)

    start = np.zeros(inputs.shape[1] * targets.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    found = found.reshape(inputs.shape[1], -1)
    weights = scaled @ found[:-1]
    bias = found[-1] - mean @ weights
    return {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
