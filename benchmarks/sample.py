"""Chooses the items of a list that a measurement uses."""

import numpy as np


def evenly_spaced(total: int, count: int) -> list[int]:
    """Places of `count` of `total` items, evenly spaced from the first to the last; of all items if there are fewer."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
