"""Measures of the phantom's bones, in millimetres of a ten-year-old's left hand.

A drawing aid: proportions judged by eye against textbook radiographs, not morphometry.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LongBone:
    """Length and widths in millimetres; `epiphysis` is the thickness of the mature epiphysis along the axis."""

    length: float
    growing_width: float
    waist: float
    far_width: float
    epiphysis: float
    density: float
    roundness: float = 0.55


def _phalanges(lengths: tuple[float, ...], scale: float) -> dict[str, LongBone]:
    proximal, middle, distal = lengths
    return {
        "proximal": LongBone(proximal, 13.0 * scale, 7.6 * scale, 9.6 * scale, 4.6 * scale, 0.62),
        "middle": LongBone(middle, 11.2 * scale, 6.6 * scale, 8.4 * scale, 4.0 * scale, 0.56),
        "distal": LongBone(distal, 9.4 * scale, 4.2 * scale, 6.0 * scale, 3.4 * scale, 0.48),
    }


def _metacarpal(length: float, scale: float = 1.0) -> LongBone:
    return LongBone(length, 12.4 * scale, 7.2 * scale, 12.6 * scale, 9.0 * scale, 0.66, roundness=0.9)


BONES: dict[str, LongBone] = {
    "radius": LongBone(120.0, 28.0, 14.5, 15.0, 8.5, 0.95, roundness=0.6),
    "ulna": LongBone(120.0, 16.0, 10.5, 12.0, 6.5, 0.85, roundness=0.6),
    "metacarpal1": LongBone(41.0, 14.0, 9.0, 12.5, 5.2, 0.68),
    "metacarpal2": _metacarpal(59.0),
    "metacarpal3": _metacarpal(57.0),
    "metacarpal4": _metacarpal(51.0, 0.9),
    "metacarpal5": _metacarpal(46.0, 0.9),
}
for _digit, _lengths, _scale in (
    (2, (35.0, 21.0, 15.5), 0.98),
    (3, (39.0, 25.0, 16.5), 1.02),
    (4, (36.5, 23.5, 16.5), 0.96),
    (5, (29.0, 16.5, 14.5), 0.86),
):
    BONES |= {f"{kind}{_digit}": bone for kind, bone in _phalanges(_lengths, _scale).items()}
BONES["proximal1"] = LongBone(28.0, 13.5, 8.5, 10.5, 5.0, 0.62)
BONES["distal1"] = LongBone(20.0, 12.0, 6.0, 8.0, 4.2, 0.54)

# Origin of each ray at the carpus (mm), direction of its metacarpal and of its finger (degrees, positive to the thumb).
RAYS = {
    1: ((22.0, 3.0), 43.0, 38.0),
    2: ((10.5, 12.0), 9.5, 10.0),
    3: ((0.5, 14.0), 1.0, 1.0),
    4: ((-8.5, 11.5), -7.5, -7.5),
    5: ((-16.0, 8.0), -16.5, -18.5),
}
RAY_BONES = {
    digit: ("metacarpal", "proximal", "distal") if digit == 1 else ("metacarpal", "proximal", "middle", "distal")
    for digit in RAYS
}

CARPAL_OUTLINES = {
    "capitate": ((-5, 12), (5, 12.5), (6, 4), (5.5, -7), (0.5, -11.5), (-4, -9), (-6, 2)),
    "hamate": ((-6, 11), (-17, 8.5), (-16.5, 2), (-10, -7), (-6.5, -9), (-7, 2)),
    "triquetrum": ((-16, 1), (-20, -4), (-18, -12), (-11, -12.5), (-10, -7)),
    "lunate": ((-9.5, -12.5), (-4, -10), (1.5, -12.5), (3, -18), (-2, -21.5), (-8.5, -20)),
    "trapezium": ((13.5, 9), (20, 8), (24, 0), (19, -4.5), (12.5, -2)),
    "trapezoid": ((6, 11), (14, 9.5), (13.5, 1), (8, -2), (6.5, 2)),
    "scaphoid": ((4.5, -11), (5.5, -4), (10, -1.5), (17, -3), (17.5, -8), (11, -18), (4.5, -20.5)),
    "pisiform": ((-13, -5), (-18, -5), (-19, -11), (-14, -13), (-11, -9)),
}
OVERLAPPING = {"trapezium", "pisiform", "hamate"}
