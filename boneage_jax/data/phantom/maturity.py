"""The timetable of ossification and fusion from which a phantom's bone age can be read.

Months after birth, as (girl, boy). Approximate ages in the usual order of appearance and fusion (Gilsanz &
Ratib, "Hand Bone Age", 2005; Greulich & Pyle's atlas, 1959), with girls always ahead. A drawing aid,
not a clinical reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Site:
    """One ossification centre: the ages in months at which it appears and matures (an epiphysis: fuses)."""

    appears: tuple[float, float]
    matures: tuple[float, float]

    def progress(self, age: float, sex: int) -> float:
        """Progress of the centre: below 0 not yet visible, 0 appears, 1 mature."""
        start, end = self.appears[sex], self.matures[sex]
        return (age - start) / (end - start)


_FUSION = {
    "distal": (160.0, 186.0),
    "proximal": (171.0, 196.0),
    "middle": (174.0, 199.0),
    "metacarpal": (178.0, 202.0),
    "ulna": (194.0, 216.0),
    "radius": (204.0, 224.0),
}

# The number at the end of a name is the digit: 1 is the thumb, 5 the little finger.
_EPIPHYSIS_APPEARS = {
    "radius": (11.0, 14.0),
    "ulna": (64.0, 84.0),
    "metacarpal1": (18.0, 31.0),
    "metacarpal2": (12.0, 18.0),
    "metacarpal3": (13.0, 20.0),
    "metacarpal4": (15.0, 23.0),
    "metacarpal5": (16.0, 26.0),
    "proximal1": (20.0, 32.0),
    "proximal2": (10.0, 16.0),
    "proximal3": (10.0, 16.0),
    "proximal4": (11.0, 17.0),
    "proximal5": (14.0, 22.0),
    "middle2": (16.0, 26.0),
    "middle3": (15.0, 24.0),
    "middle4": (15.0, 24.0),
    "middle5": (22.0, 41.0),
    "distal1": (12.0, 18.0),
    "distal2": (30.0, 38.0),
    "distal3": (18.0, 29.0),
    "distal4": (18.0, 29.0),
    "distal5": (30.0, 38.0),
}

EPIPHYSES = {name: Site(appears, _FUSION[name.rstrip("12345")]) for name, appears in _EPIPHYSIS_APPEARS.items()}

# Ordered by appearance; "matures" is when the adult outline is reached.
CARPALS = {
    "capitate": Site((2.0, 3.0), (150.0, 174.0)),
    "hamate": Site((3.0, 4.0), (150.0, 174.0)),
    "triquetrum": Site((21.0, 29.0), (150.0, 174.0)),
    "lunate": Site((31.0, 45.0), (150.0, 174.0)),
    "trapezium": Site((49.0, 68.0), (150.0, 174.0)),
    "trapezoid": Site((50.0, 69.0), (150.0, 174.0)),
    "scaphoid": Site((51.0, 69.0), (150.0, 174.0)),
    "pisiform": Site((104.0, 128.0), (160.0, 184.0)),
}

# A small bone beside the thumb's metacarpal head, a sign of the growth spurt.
SESAMOID = Site((124.0, 152.0), (160.0, 190.0))

SITES = (*EPIPHYSES, *CARPALS, "sesamoid")


def progress_of_sites(age: float, sex: int, variation: np.ndarray) -> dict[str, float]:
    """Progress of every centre of one child.

    Args:
        age: bone age in months.
        sex: integer value of `Sex`.
        variation: [len(SITES)] standard normal; the centres of one hand deviate with a standard deviation of half a
            month plus 2 % of the age.
    """
    timetable = {**EPIPHYSES, **CARPALS, "sesamoid": SESAMOID}
    spread = 0.02 * age + 0.5
    return {
        name: timetable[name].progress(age + spread * float(np.clip(z, -2, 2)), sex)
        for name, z in zip(SITES, variation, strict=True)
    }
