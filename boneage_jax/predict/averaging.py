"""Makes calibrated predictions from the mean of several networks' estimates."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from boneage_jax.predict.calibrated import Estimates, calibrated, mean_of
from boneage_jax.predict.prediction import Prediction
from boneage_jax.released.calibration import Calibration


@dataclasses.dataclass(frozen=True)
class Member:
    """The estimates of one network for the B images of a batch.

    Attributes:
        estimates: its estimates; the months of images that it cannot read are NaN.
        calibration: its calibration as a single network, or None.
    """

    estimates: Estimates
    calibration: Calibration | None

    def predictions(self, sexes: Sequence[str]) -> dict[int, Prediction]:
        """The predictions of this network alone, by place in the batch; images that it cannot read are left out."""
        seen = np.flatnonzero(~np.isnan(self.estimates.months)).tolist()
        found = calibrated(self.estimates.rows(seen), [sexes[place] for place in seen], self.calibration)
        return dict(zip(seen, found, strict=True))


def averaged(members: Sequence[Member], sexes: Sequence[str], calibration: Calibration | None) -> list[Prediction]:
    """Makes a prediction for each image from the mean of the networks' months and standard deviations.

    An image that one of the networks cannot read gets the prediction of the first network alone. Readings of regions
    are those of the last network that reads regions.

    Args:
        members: the networks; the first one must have read every image.
        sexes: "F" or "M" for each of the B images, copied into its prediction.
        calibration: corrects the mean and adds the intervals; without it there are no intervals.
    """
    alone = members[0].predictions(sexes)
    regions = dict(alone)
    for member in members:
        if member.estimates.parts is not None:
            regions |= member.predictions(sexes)
    mean = mean_of([member.estimates for member in members])
    std = None if mean.std is None else np.nan_to_num(mean.std)
    together = calibrated(Estimates(np.nan_to_num(mean.months), std), sexes, calibration)
    return [
        alone[place]
        if math.isnan(months)
        else dataclasses.replace(both, regions=regions[place].regions, regions_disagree=regions[place].regions_disagree)
        for place, (months, both) in enumerate(zip(mean.months.tolist(), together, strict=True))
    ]
