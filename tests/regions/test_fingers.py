import itertools

import numpy as np
import pytest

from boneage_jax.regions.boxes import COUNTS, LABELS
from boneage_jax.regions.fingers import FINGERS, NAMES, name_regions

LABEL = np.repeat(np.arange(len(LABELS)), COUNTS)
# A left hand, palm down: thumb to the right, with y pointing down.
CENTRES = {
    "thumb PIP": (170, 110),
    "thumb MCP": (150, 130),
    "index DIP": (125, 30),
    "index PIP": (122, 55),
    "index MCP": (118, 95),
    "middle DIP": (102, 20),
    "middle PIP": (100, 48),
    "middle MCP": (100, 92),
    "ring DIP": (74, 28),
    "ring PIP": (78, 55),
    "ring MCP": (84, 97),
    "little DIP": (48, 55),
    "little PIP": (54, 75),
    "little MCP": (68, 106),
    "Radius": (112, 200),
    "Ulna": (82, 205),
    "Wrist": (100, 165),
}


def hand(mirrored=False, degrees=0.0):
    points = np.array([CENTRES[name] for name in NAMES], np.float64) - 100
    if mirrored:
        points[:, 0] *= -1
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = points @ np.array([[cosine, -sine], [sine, cosine]]) + 100
    return np.concatenate([points - 5, points + 5], axis=1)


def test_region_names_cover_the_hand_in_order():
    assert len(NAMES) == len(set(NAMES)) == 17
    assert NAMES[:4] == ("index DIP", "middle DIP", "ring DIP", "little DIP")
    assert NAMES[4] == "thumb PIP"
    assert NAMES[-3:] == ("Radius", "Ulna", "Wrist")
    assert FINGERS[0] == "thumb"


@pytest.mark.parametrize(("mirrored", "degrees"), [*itertools.product([False, True], [-60, -25, 0, 25, 60])])
def test_every_region_gets_its_name(mirrored, degrees):
    shuffled = np.random.default_rng(0).permutation(17)
    named = name_regions(LABEL[shuffled], hand(mirrored, degrees)[shuffled])
    assert named == [NAMES[place] for place in shuffled]


@pytest.mark.parametrize("missing", NAMES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_other_regions_keep_their_names_when_one_is_missing(missing, mirrored):
    kept = [place for place, name in enumerate(NAMES) if name != missing]
    assert name_regions(LABEL[kept], hand(mirrored)[kept]) == [NAMES[place] for place in kept]


def test_without_a_complete_row_fingers_are_not_named():
    kept = [place for place, name in enumerate(NAMES) if name not in ("ring MCP", "index PIP")]
    named = name_regions(LABEL[kept], hand()[kept])
    assert named == [LABELS[label] for label in LABEL[kept]]


def test_without_regions_there_are_no_names():
    assert name_regions(np.zeros(0, int), np.zeros((0, 4))) == []
