"""The phantom's bones and skin as polygons, in millimetres of a ten-year-old's left hand.

Origin: centre of the capitate; x towards the thumb (right in the picture), y towards the fingertips.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from boneage_jax.data.phantom.bones import BONES, CARPAL_OUTLINES, OVERLAPPING, RAY_BONES, RAYS, LongBone
from boneage_jax.data.phantom.maturity import CARPALS, SITES, progress_of_sites

# Overlapping bones on one canvas replace each other; those on different canvases add up, as attenuation does.
LONG, CARPAL, OVERLAPPING_CARPAL = 0, 1, 2
CANVASES = 3


@dataclass(frozen=True)
class Shape:
    """A filled outline: points [N, 2] in millimetres, density 0..1, and the canvas it is drawn on."""

    points: np.ndarray
    density: float
    canvas: int = LONG


@dataclass
class Hand:
    """One child's hand, ready to be drawn: bone shapes in painting order, growth plates, skin.

    `joints` maps each bone to the joint at its origin.
    """

    bones: list[Shape] = field(default_factory=list)
    plates: list[np.ndarray] = field(default_factory=list)
    bridges: list[np.ndarray] = field(default_factory=list)
    skin: list[np.ndarray] = field(default_factory=list)
    skin_discs: list[tuple[float, float, float]] = field(default_factory=list)
    joints: dict[str, np.ndarray] = field(default_factory=dict)


_ANGLES = np.linspace(0, 2 * np.pi, 32, endpoint=False)
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)
_ALONG = np.concatenate([np.linspace(0, 0.12, 6), np.linspace(0.2, 0.8, 9), np.linspace(0.86, 1, 8)])


def _ramp(value: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, smooth between."""
    x = min(max((value - start) / (end - start), 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _mix(start: float, end: float, fraction: float) -> float:
    return start + (end - start) * fraction


def _superellipse(half_width: float, half_height: float, power: float) -> tuple[np.ndarray, np.ndarray]:
    return (
        half_width * np.sign(_COS) * np.abs(_COS) ** power,
        half_height * np.sign(_SIN) * np.abs(_SIN) ** power,
    )


@dataclass(frozen=True)
class _Frame:
    """A bone's own axes: `origin` at the joint beside the growth plate, `axis` pointing along the shaft."""

    origin: np.ndarray
    axis: np.ndarray

    def place(self, across: np.ndarray, along: np.ndarray) -> np.ndarray:
        side = np.array([-self.axis[1], self.axis[0]])
        return self.origin + across[:, None] * side + along[:, None] * self.axis


def _shaft(frame: _Frame, bone: LongBone, start: float, end: float, cortex: float) -> np.ndarray:
    """Outline of the waisted shaft from `start` to `end` mm on the axis, `cortex` mm inside the surface."""
    start, end = start + 0.8 * min(cortex, 1.0), end - 0.8 * min(cortex, 1.0)
    flare = np.clip(1 - _ALONG / 0.42, 0, 1) ** 1.7
    far_flare = np.clip((_ALONG - 0.62) / 0.38, 0, 1) ** 1.5
    width = bone.waist + (0.96 * bone.growing_width - bone.waist) * flare + (bone.far_width - bone.waist) * far_flare
    along = start + (end - start) * _ALONG
    near_corner = np.clip((along - start) / (0.10 * bone.growing_width), 0, 1)
    far_corner = np.clip((end - along) / (0.38 * bone.far_width), 0, 1)
    corner = np.sqrt(1 - 0.15 * (1 - near_corner) ** 2) * np.sqrt(1 - 0.85 * (1 - far_corner) ** 2)
    # The cortex is thick in the middle of the shaft and thin where it flares.
    wall = cortex * (0.4 + 0.6 * (1 - np.maximum(flare, far_flare)))
    half = np.maximum(0.5 * width * corner - wall, 0.2)
    return frame.place(np.concatenate([half, -half[::-1]]), np.concatenate([along, along[::-1]]))


def _epiphysis(
    frame: _Frame, half_width: float, near: float, far: float, bone: LongBone, cap: float, rim: float
) -> np.ndarray:
    """Outline of the epiphysis between `near` and `far` mm; `cap` bends its edges over the metaphysis."""
    across, along = _superellipse(half_width - rim, 0.5 * (far - near) - rim, bone.roundness)
    bent = along + cap * (across / half_width) ** 4
    if bone.roundness > 0.8:
        # A metacarpal's head is a knuckle: narrower at the joint than at the plate.
        across = across * (1 + 0.15 * along / (far - near))
    return frame.place(across, 0.5 * (near + far) + bent)


@dataclass(frozen=True)
class _Growth:
    """Growth parameters shared by all bones of a child.

    Attributes:
        youth: 1 at birth, 0 in the adult.
        width: scale factor for bone widths.
        cortex: cortical thickness in millimetres of a shaft that is 8 mm wide.
    """

    youth: float
    width: float
    cortex: float

    @classmethod
    def at(cls, age: float, variation: float) -> _Growth:
        """The growth at this age in months; widths are multiplied by 1 + `variation`."""
        youth = 1 - _ramp(age, -40.0, 190.0)
        # After the growth spurt bones no longer lengthen, but their cortex thickens into adulthood.
        cortex = _mix(1.9, 1.1, youth) + 0.7 * max(age - 150.0, 0.0) / 90.0
        return cls(youth, _mix(1.04, 0.88, youth) * (1 + variation), cortex)


def _add_long_bone(hand: Hand, frame: _Frame, bone: LongBone, progress: float, growth: _Growth) -> None:
    """Add the shaft, the epiphysis, and the growth plate or its scar, of one bone."""
    thick, width = bone.epiphysis, bone.growing_width
    fused = _ramp(progress, 0.86, 1.0)
    grown = _ramp(progress, -0.05, 0.62) if progress > 0 else 0.0
    gap = thick * _mix(0.40, 0.13, _ramp(progress, 0.0, 0.75))
    plate_far = thick * _mix(1.45, 1.12, _ramp(progress, 0.0, 0.8))
    plate_near = plate_far - gap
    end = bone.length - _mix(0.4, 2.0, growth.youth)
    cortex = growth.cortex * (bone.waist / 8) ** 0.5
    hand.bones.append(Shape(_shaft(frame, bone, plate_far, end, 0.0), bone.density))
    hand.bones.append(Shape(_shaft(frame, bone, plate_far, end, cortex), 0.66 * bone.density))
    band = np.array([-0.5, 0.5, 0.5, -0.5]) * width * 0.96
    levels = np.array([plate_near, plate_near, plate_far, plate_far])
    if progress > 0:
        half_width = 0.5 * width * _mix(0.24, 1.0, grown) * (1 + 0.03 * _ramp(progress, 0.6, 0.85))
        height = thick * _mix(0.26, 1.0, grown)
        cap = 0.22 * gap * _ramp(progress, 0.55, 0.85) + 0.10 * thick * _ramp(progress, 0.6, 0.85)
        near = plate_near - height
        rim = min(0.7, 0.2 * height)
        for inset, density in ((0.0, 1.0), (rim, 0.72)):
            points = _epiphysis(frame, half_width, near, plate_near, bone, cap, inset)
            hand.bones.append(Shape(points, density * bone.density))
    if fused > 0:
        # Bone bridges the plate from the middle outwards and leaves a dense line, the scar, which fades over years.
        overlap = np.array([-0.6, -0.6, 0.6, 0.6])
        bridge = frame.place(band * fused, levels + overlap)
        scar = _mix(1.0, 0.7, min(max(progress - 1, 0.0) / 0.5, 1.0))
        hand.bones.append(Shape(bridge, bone.density * scar))
        hand.bridges.append(bridge)
    if fused < 1:
        hand.plates.append(frame.place(band, levels))


def _direction(degrees: float) -> np.ndarray:
    return np.array([np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])


def _scaled(bone: LongBone, length: float, width: float) -> LongBone:
    return LongBone(
        bone.length * length,
        bone.growing_width * width,
        bone.waist * width,
        bone.far_width * width,
        bone.epiphysis * width,
        bone.density,
        bone.roundness,
    )


def _add_finger(hand: Hand, digit: int, progress: dict[str, float], growth: _Growth, rng: np.random.Generator) -> None:
    """Add one ray: metacarpal, phalanges and the skin around them."""
    (x, y), ray, finger = RAYS[digit]
    spread, curl = rng.normal(0, 2.2), rng.normal(0, 1.5, size=4)
    point = np.array([x, y]) + rng.normal(0, 0.4, size=2)
    plump = 1 + 0.28 * growth.youth
    radii = {"proximal": 10.0, "middle": 8.4, "distal": 7.0} if digit > 1 else {"proximal": 10.5, "distal": 9.0}
    centres: list[tuple[np.ndarray, float]] = []
    for kind, bend in zip(RAY_BONES[digit], curl, strict=False):
        bone = _scaled(BONES[f"{kind}{digit}"], 1 + rng.normal(0, 0.015), growth.width)
        metacarpal = kind == "metacarpal"
        axis = _direction(ray + 0.3 * spread if metacarpal else finger + spread + bend)
        tip = point + bone.length * axis
        # All bones but metacarpals 2 to 5 have their growth plate at the end nearer the wrist.
        at_tip = metacarpal and digit > 1
        frame = _Frame(tip, -axis) if at_tip else _Frame(point, axis)
        hand.joints[f"{kind}{digit}"] = frame.origin
        _add_long_bone(hand, frame, bone, progress[f"{kind}{digit}"], growth)
        if not metacarpal:
            slim = 0.86 if digit == 5 else 1.0
            centres.append((point, radii[kind] * plump * slim))
        point = tip + 1.2 * axis
        last = axis
    fingertip_radius = (7.4 if digit == 1 else 6.2 * (0.88 if digit == 5 else 1)) * plump
    centres.append((point - 2.8 * last, fingertip_radius))
    _add_skin_tube(hand, centres)


def _add_skin_tube(hand: Hand, centres: list[tuple[np.ndarray, float]]) -> None:
    for (a, radius_a), (b, radius_b) in pairwise(centres):
        axis = (b - a) / np.linalg.norm(b - a)
        side = np.array([-axis[1], axis[0]])
        hand.skin.append(np.stack([a + radius_a * side, b + radius_b * side, b - radius_b * side, a - radius_a * side]))
    hand.skin_discs += [(float(c[0]), float(c[1]), r) for c, r in centres]


def _add_carpals(hand: Hand, progress: dict[str, float], rng: np.random.Generator) -> None:
    for name in CARPALS:
        outline = np.array(CARPAL_OUTLINES[name], np.float64)
        wobble, shift = rng.normal(0, 0.03, size=3), rng.normal(0, 0.5, size=2)
        if progress[name] <= 0:
            continue
        grown = _ramp(progress[name], -0.25, 1.0)
        centre = outline.mean(axis=0)
        size = 1.10 * _mix(0.10, 1.0, grown) ** 0.7
        reach = _rounded(outline - centre)
        mean_reach = float(np.sqrt((reach**2).sum(axis=1)).mean())
        # A young ossification centre is a round dot; facets develop with age.
        angle = np.arctan2(-reach[:, 1], reach[:, 0])
        circle = mean_reach * np.stack([np.cos(angle), -np.sin(angle)], axis=1)
        points = size * (grown * reach + (1 - grown) * circle)
        points *= 1 + wobble[0] + wobble[1] * np.cos(2 * angle + 20 * wobble[2])[:, None]
        canvas = OVERLAPPING_CARPAL if name in OVERLAPPING else CARPAL
        density = 0.3 if name == "pisiform" else 0.78
        inset = max(0.6, 1 - 0.9 / (mean_reach * size))
        for scale, value in ((1.0, 1.0), (inset, 0.78)):
            hand.bones.append(Shape(centre + shift + scale * points, density * value, canvas))


def _rounded(polygon: np.ndarray) -> np.ndarray:
    """Smooths a closed polygon by cutting its corners twice (Chaikin)."""
    for _ in range(2):
        following = np.roll(polygon, -1, axis=0)
        polygon = np.stack([0.78 * polygon + 0.22 * following, 0.22 * polygon + 0.78 * following], 1).reshape(-1, 2)
    return polygon


def _add_palm_and_forearm(hand: Hand, youth: float) -> None:
    extra = 6.0 * youth
    hand.skin.append(
        np.array([[28, 62], [25, 76], [10, 82], [-8, 79], [-26, 70], [-37 - extra, 58], [-35 - extra, 40],
                  [-27 - extra, 0], [-27 - extra, -26], [-32 - extra, -160], [34 + extra, -160],
                  [28 + extra, -30], [29 + extra, -8], [46, 18], [52, 34], [36, 38], [30, 48]], np.float64)
    )  # fmt: skip


def build_hand(age: float, sex: int, rng: np.random.Generator) -> Hand:
    """Build the hand of one child; the same generator state gives the same child at any age."""
    progress = progress_of_sites(age, sex, rng.standard_normal(len(SITES)))
    growth = _Growth.at(age, rng.normal(0, 0.02))
    hand = Hand()
    _add_palm_and_forearm(hand, growth.youth)
    for name, joint, lean in (("radius", (8.5, -22.0), 182.5), ("ulna", (-15.5, -25.0), 179.0)):
        origin = np.array(joint) + rng.normal(0, 0.5, size=2)
        axis = _direction(lean + rng.normal(0, 0.8))
        hand.joints[name] = origin
        _add_long_bone(hand, _Frame(origin, axis), _scaled(BONES[name], 1.0, growth.width), progress[name], growth)
    _add_carpals(hand, progress, rng)
    for digit in RAYS:
        _add_finger(hand, digit, progress, growth, rng)
    if progress["sesamoid"] > 0:
        angle = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
        reach = _mix(0.9, 2.6, _ramp(progress["sesamoid"], 0.0, 1.0))
        hand.bones.append(Shape(np.array([41.0, 37.0]) + reach * angle, 0.5, OVERLAPPING_CARPAL))
    return hand
