"""Estimates of released networks before calibration, to fit a calibration to them and to measure it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from boneage_jax.errors import BoneAgeError
from boneage_jax.predict.calibrated import Estimates
from boneage_jax.predict.items import Item
from boneage_jax.predict.prediction import Prediction
from boneage_jax.predict.predictor import OnError, Predictor
from boneage_jax.regions.fingers import NAMES
from boneage_jax.released import calibration as calibrating
from boneage_jax.released.weights import Weights

BATCH = 16


def estimate(
    network: Weights, items: Sequence[Item], *, checks_of: Weights, on_error: OnError = "yield"
) -> tuple[Estimates, dict[int, BoneAgeError]]:
    """Estimates of one network, without its calibration.

    Args:
        network: one network.
        items: the images; those that the checks distrust are read too.
        checks_of: weights whose checks correct inverted and turned images.
        on_error: "raise", or "yield" to go on with the other images.

    Returns:
        The estimates of all images, NaN where the network cannot read the image, and the errors of these images by
        place.

    Raises:
        BoneAgeError: with "raise", the network cannot read an image.
    """
    header = dataclasses.replace(network.header, calibration=None, checks=checks_of.header.checks)
    predictor = Predictor(dataclasses.replace(network, header=header, checks=checks_of.checks))
    found = predictor.predict_many(items, batch_size=BATCH, on_error=on_error, accept_warnings=True)
    shown = tqdm(found, total=len(items), desc=header.name, unit=" images", disable=None)
    months, stds = np.full(len(items), np.nan, np.float32), np.full(len(items), np.nan, np.float32)
    parts = np.full((len(items), len(NAMES)), np.nan, np.float32)
    errors: dict[int, BoneAgeError] = {}
    for place, one in enumerate(shown):
        if not isinstance(one, Prediction):
            errors[place] = one
            continue
        months[place] = one.months
        stds[place] = np.nan if one.std is None else one.std
        for name, region in one.regions.items():
            parts[place, NAMES.index(name)] = region.months
    has_std = not np.isnan(stds[~np.isnan(months)]).any()
    return Estimates(months, stds if has_std else None, parts if predictor.reads_regions else None), errors


def region_figures(age: np.ndarray, parts: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    """Cross-fitted metrics of every region that a network reads, by name, over the images that show the region."""
    there = ~np.isnan(parts)
    columns = zip(NAMES, parts.T, there.T, strict=True)
    return {name: calibrating.measure(age[seen], part[seen], None, weight=weight[seen]) for name, part, seen in columns}
