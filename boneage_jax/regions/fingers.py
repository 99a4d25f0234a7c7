"""Names the 17 regions of a hand: assigns each joint to a finger, by geometry alone.

Seen from the wrist, the directions of the fingers turn from the thumb, on the side of the radius, to the little finger,
on the side of the ulna. A row of five joints is therefore named by the order of its directions, and joints farther out
are assigned to the finger with the closest direction.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from boneage_jax.regions.boxes import COUNTS, LABELS, centres

FINGERS = ("thumb", "index", "middle", "ring", "little")
_DIP, _PIP, _MCP, _RADIUS, _ULNA, _WRIST = range(len(LABELS))
_FIRST = {_DIP: 1, _PIP: 0, _MCP: 0}  # the thumb has no distal interphalangeal joint

NAMES = tuple(f"{finger} {LABELS[label]}" for label in _FIRST for finger in FINGERS[_FIRST[label] :]) + LABELS[_RADIUS:]
"""The 17 regions of a hand, in the order of `LABELS` and `COUNTS`: "index DIP", ..., "Radius", "Ulna", "Wrist"."""


def name_regions(labels: Int[np.ndarray, "N"], boxes: Float[np.ndarray, "N 4"]) -> list[str]:
    """Names regions; there must be no more of each label than a hand has.

    Args:
      labels: index into `LABELS`.
      boxes: in square pixels, of a hand with fingers up.

    Returns:
      One of `NAMES` for each region; only the label for joints that cannot be assigned to a finger, because neither the
      metacarpophalangeal nor the proximal interphalangeal joints are complete.
    """
    names = [LABELS[label] for label in labels]
    direction = _directions(labels, centres(boxes))
    base = next((label for label in (_MCP, _PIP) if np.count_nonzero(labels == label) == COUNTS[label]), None)
    if base is None or direction is None:
        return names
    named = np.sort(direction[labels == base])
    for label, first in _FIRST.items():
        places = np.flatnonzero(labels == label)
        if label == _DIP and np.count_nonzero(labels == _PIP) == COUNTS[_PIP]:
            named = np.sort(direction[labels == _PIP])  # nearer than the metacarpophalangeal joints
        elif label != _DIP:
            named = np.sort(direction[labels == base])
        apart = np.abs(direction[places][:, None] - named[None, first:])
        for place, finger in zip(*linear_sum_assignment(apart), strict=True):
            names[places[place]] = f"{FINGERS[first + finger]} {LABELS[label]}"
    return names


def _directions(labels: Int[np.ndarray, "N"], points: Float[np.ndarray, "N 2"]) -> np.ndarray | None:
    """Angles seen from the wrist, increasing from thumb to little finger; None if the thumb's side is unknown."""
    joints = (labels == _MCP) | (labels == _PIP)
    if not joints.any():
        return None
    wrist = _origin(labels, points)
    axis = points[joints].mean(axis=0) - wrist
    away = points - wrist
    along, across = away @ axis, away @ np.array([-axis[1], axis[0]])
    angles = np.arctan2(across, along)
    side = _thumb_side(labels, along, across)
    return None if side == 0 else -side * angles


def _origin(labels: Int[np.ndarray, "N"], points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "2"]:
    """The centre of the wrist; if missing, that of the forearm's epiphyses; otherwise a point below the joints."""
    for wanted in ((_WRIST,), (_RADIUS, _ULNA)):
        chosen = np.isin(labels, wanted)
        if chosen.any():
            return points[chosen].mean(axis=0)
    lowest, highest = points.min(axis=0), points.max(axis=0)
    return np.array([(lowest[0] + highest[0]) / 2, highest[1] + (highest[1] - lowest[1]) / 2])


def _thumb_side(labels: Int[np.ndarray, "N"], along: np.ndarray, across: np.ndarray) -> int:
    """1 where the thumb has the larger angles, -1 where it has the smaller ones, 0 if neither is clear.

    The radius lies on the thumb's side of the ulna. If either is missing, the thumb is at the end of a row of
    metacarpophalangeal or proximal interphalangeal joints that is nearer to the wrist.
    """
    if (labels == _RADIUS).any() and (labels == _ULNA).any():
        return int(np.sign(across[labels == _RADIUS][0] - across[labels == _ULNA][0]))
    for label in (_MCP, _PIP):
        places = np.flatnonzero(labels == label)
        if len(places) == COUNTS[label]:
            order = places[np.argsort(np.arctan2(across[places], along[places]))]
            return int(np.sign(along[order[0]] - along[order[-1]]))
    return 0
