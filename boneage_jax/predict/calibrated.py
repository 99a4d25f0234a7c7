"""Makes calibrated predictions, for the hand and for its regions, from the estimates of a network."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from boneage_jax.predict.prediction import Prediction, RegionReading
from boneage_jax.regions.fingers import NAMES
from boneage_jax.released.calibration import Calibration, disagreement

_FIGURES = ("months", "low", "high")  # the calibrated values of a region


@dataclasses.dataclass(frozen=True)
class Estimates:
    """The outputs of the network before calibration: months and, if it predicts one, their standard deviation."""

    months: np.ndarray
    std: np.ndarray | None
    parts: np.ndarray | None = None  # months of the regions in `NAMES`, [B, R]; NaN for a region that was not found

    def rows(self, places: Sequence[int]) -> "Estimates":
        """The estimates of the images at these places."""
        return self._each(lambda values: values[places])

    def scattered(self, places: Sequence[int], count: int) -> "Estimates":
        """Puts the first rows at these places of `count` rows; the others are NaN."""

        def scattered(values: np.ndarray) -> np.ndarray:
            found = np.full((count, *values.shape[1:]), np.nan, values.dtype)
            found[places] = values[: len(places)]
            return found

        return self._each(scattered)

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Estimates":
        std, parts = (None if values is None else change(values) for values in (self.std, self.parts))
        return Estimates(change(self.months), std, parts)


def mean_of(estimates: Sequence[Estimates]) -> Estimates:
    """The mean of several networks' estimates of the same images, without regions.

    Months are NaN where one of the networks cannot read the image. Standard deviations are the mean of those networks
    that predict one, None if none does.
    """
    stds = [one.std for one in estimates if one.std is not None]
    months = np.mean([one.months for one in estimates], axis=0)
    return Estimates(months, np.mean(stds, axis=0) if stds else None)


def calibrated(raw: Estimates, sexes: Sequence[str], calibration: Calibration | None) -> list[Prediction]:
    """Makes a prediction from each estimate.

    Args:
        raw: the estimates of B images.
        sexes: "F" or "M" for each image, copied into its prediction.
        calibration: corrects the months and adds the intervals; without it there are no intervals.
    """
    months, std = raw.months, raw.std
    if calibration is None:
        stds = [None] * len(months) if std is None else std.tolist()
        found = [Prediction(m, s, None, x) for m, s, x in zip(months.tolist(), stds, sexes, strict=True)]
    else:
        published = calibration.apply(months, std)
        columns = (published.months, published.std, published.low, published.high)
        rows = zip(*(column.tolist() for column in columns), sexes, strict=True)
        found = [Prediction(m, s, (low, high), x) for m, s, low, high, x in rows]
    return found if raw.parts is None else _with_regions(found, raw.parts, calibration)


def _with_regions(found: Sequence[Prediction], parts: np.ndarray, calibration: Calibration | None) -> list[Prediction]:
    """Adds the readings of the regions to the predictions."""
    if calibration is None:
        return [
            dataclasses.replace(
                one, regions={name: RegionReading(months, None) for name, months in _there(row.tolist())}
            )
            for one, row in zip(found, parts, strict=True)
        ]
    each = calibration.apply_to_parts(parts)
    apart = disagreement(np.array([one.months for one in found]), each)
    limit = math.inf if calibration.apart is None else calibration.apart
    answers = []
    for place, one in enumerate(found):
        months, low, high = (dict(_there(getattr(part, key)[place] for part in each)) for key in _FIGURES)
        regions = {name: RegionReading(months[name], (low[name], high[name])) for name in months}
        answers.append(dataclasses.replace(one, regions=regions, regions_disagree=bool(apart[place] > limit)))
    return answers


def _there(values: Iterable[float]) -> list[tuple[str, float]]:
    """The name and value of each region that has a value."""
    return [(name, float(value)) for name, value in zip(NAMES, values, strict=True) if not math.isnan(value)]
