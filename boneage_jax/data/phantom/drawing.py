"""Renders a hand given in millimetres as a radiograph: attenuation, film, collimation, marker, noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from boneage_jax.data.phantom.anatomy import CANVASES, Hand

# Height of the image in millimetres, and the point of the hand (mm) at its centre.
_FIELD = 256.0
_MIDDLE = (9.0, 40.0)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class View:
    """The millimetre-to-pixel map of one supersampled canvas."""

    side: int
    matrix: np.ndarray
    pixels_per_mm: float

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points [N, 2] in mm as pixels (right, down)."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points [N, 2] in mm as fixed-point pixels for OpenCV."""
        return np.rint(self.place(points) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def make_view(side: int, age: float, rng: np.random.Generator) -> View:
    """Place the hand on the plate: rotation, shift, and a zoom that reveals little about the age."""
    angle = np.radians(rng.normal(0, 5.0))
    zoom = rng.uniform(0.92, 1.03) * (0.98 + 0.03 * age / 240)
    stretch = rng.uniform(1.0, 1.18)
    shift = np.clip(rng.normal(0, 0.02, size=2), -0.04, 0.04)
    scale = zoom * side / _FIELD
    cos, sin = np.cos(angle), np.sin(angle)
    # y points up on the hand and down in the image.
    linear = scale * np.array([[stretch * cos, -stretch * sin], [-sin, -cos]])
    offset = side * (0.5 + shift) - linear @ np.array(_MIDDLE)
    return View(side, np.concatenate([linear, offset[:, None]], axis=1), float(scale))


def attenuation(hand: Hand, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Soft tissue and bone, each float32 [side, side] from 0 to about 1."""
    return _soft_tissue(hand, view), _bone(hand, view)


def _soft_tissue(hand: Hand, view: View) -> np.ndarray:
    skin = np.zeros((view.side, view.side), np.uint8)
    for polygon in hand.skin:
        cv2.fillPoly(skin, [view.pixels(polygon)], 255, cv2.LINE_8, _SUBPIXEL_BITS)
    for x, y, radius in hand.skin_discs:
        centre = view.pixels(np.array([[x, y]]))[0]
        reach = round(radius * view.pixels_per_mm * (1 << _SUBPIXEL_BITS))
        cv2.circle(skin, (int(centre[0]), int(centre[1])), reach, 255, -1, cv2.LINE_8, _SUBPIXEL_BITS)
    # Blurring and thresholding rounds the webs between the fingers.
    smooth = cv2.GaussianBlur(skin, (0, 0), 1.9 * view.pixels_per_mm)
    inside = cv2.threshold(smooth, 128, 255, cv2.THRESH_BINARY)[1]
    padded = cv2.copyMakeBorder(inside, 0, 40, 0, 0, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[: view.side]
    # Fingers are round rods and the palm is a slab, so the path length rises over a rounded edge of 14 mm.
    fraction = np.minimum(depth / np.float32(14 * view.pixels_per_mm), np.float32(1))
    return cv2.GaussianBlur(np.sqrt(fraction * (2 - fraction)), (0, 0), 1.3 * view.pixels_per_mm)


def _bone(hand: Hand, view: View) -> np.ndarray:
    canvases = [np.zeros((view.side, view.side), np.uint8) for _ in range(CANVASES)]
    for shape in hand.bones:
        value = round(255 * shape.density)
        cv2.fillPoly(canvases[shape.canvas], [view.pixels(shape.points)], value, cv2.LINE_AA, _SUBPIXEL_BITS)
    densest: np.ndarray = canvases[0]
    total = canvases[0].astype(np.float32)
    for canvas in canvases[1:]:
        densest = cv2.max(densest, canvas)
        cv2.accumulate(canvas, total)
    # Bones are thin where they overlap, so their shadows only partly add up.
    shadow = cv2.addWeighted(densest.astype(np.float32), 0.6 / 255, total, 0.4 / 255, 0)
    return cv2.GaussianBlur(shadow, (0, 0), 0.45 * view.pixels_per_mm)


def plate_mask(hand: Hand, view: View, size: int) -> np.ndarray:
    """Mask of the open growth plates, bool [size, size]: pixels covered by at least a tenth."""
    mask = np.zeros((view.side, view.side), np.uint8)
    for plate in hand.plates:
        cv2.fillPoly(mask, [view.pixels(plate)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    for bridge in hand.bridges:
        cv2.fillPoly(mask, [view.pixels(bridge)], 0, cv2.LINE_AA, _SUBPIXEL_BITS)
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) >= 26


def key_points(hand: Hand, view: View, size: int, names: tuple[str, ...]) -> np.ndarray:
    """The joints of these bones, float32 [N, 2]: pixels (right, down) of the image."""
    places = view.place(np.stack([hand.joints[name] for name in names]))
    return ((places + 0.5) * (size / view.side) - 0.5).astype(np.float32)


def _shrink(image: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def expose(soft: np.ndarray, bone: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The film, uint8 [size, size]: exposed as in one of two hospitals, with collimation, marker and noise."""
    soft, bone = _shrink(soft, size), _shrink(bone, size)
    crisp = bool(rng.random() < 0.6)
    grain = rng.standard_normal((2, size, size), dtype=np.float32)
    trabeculae = cv2.GaussianBlur(grain[0], (0, 0), max(0.5, size / 380))
    rays = 0.36 * soft + 0.58 * bone * (1 + 0.10 * trabeculae)
    slope = rng.uniform(-0.10, 0.10, size=2)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    rays *= 1 + np.float32(slope[0]) * ramp[None, :] + np.float32(slope[1]) * ramp[:, None]
    if crisp:
        base, contrast, gamma = rng.uniform(0.01, 0.06), rng.uniform(0.85, 1.15), rng.uniform(1.0, 1.35)
    else:
        base, contrast, gamma = rng.uniform(0.06, 0.42), rng.uniform(0.32, 0.60), rng.uniform(0.7, 1.0)
    film = np.float32(base) + np.float32(contrast) * rays ** np.float32(gamma)
    _collimate(film, float(base), crisp, rng)
    _mark(film, float(base), float(contrast), rng)
    film += np.float32(rng.uniform(0.004, 0.014)) * grain[1]
    return np.clip(film * 255, 0, 255).astype(np.uint8)


def _collimate(film: np.ndarray, base: float, crisp: bool, rng: np.random.Generator) -> None:
    """Draw the edge of the exposed field: often a bright frame, sometimes black shutters, sometimes none."""
    size = film.shape[0]
    kind, margins = rng.random(), rng.uniform(0.005, 0.045, size=4)
    turn, glow = rng.normal(0, 0.012), rng.uniform(0.12, 0.5)
    if kind < (0.45 if crisp else 0.15):
        return
    left, top, right, bottom = margins[0], margins[1], 1 - margins[2], 1 - margins[3]
    corners = np.array([[left + turn, top], [right, top + turn], [right - turn, bottom], [left, bottom - turn]])
    points = np.rint(corners * size * 16).astype(np.int32)
    outside = np.full((size, size), 255, np.uint8)
    cv2.fillPoly(outside, [points], 0, cv2.LINE_AA, _SUBPIXEL_BITS)
    shutter = outside.astype(np.float32) / 255
    if kind > 0.9:
        film *= 1 - shutter
        return
    film += shutter * (np.float32(base + (0.02 if crisp else 0.06)) - film)
    edge = np.zeros((size, size), np.uint8)
    cv2.polylines(edge, [points], True, 255, max(1, round(size / 110)), cv2.LINE_AA, _SUBPIXEL_BITS)
    film += np.float32(glow / 255) * cv2.GaussianBlur(edge, (0, 0), max(0.5, size / 260))


def _mark(film: np.ndarray, base: float, contrast: float, rng: np.random.Generator) -> None:
    """Put the laterality marker, a lead L (often on a faint plate), into a corner that the hand leaves free."""
    size = film.shape[0]
    spots = np.array([[0.10, 0.80], [0.86, 0.82], [0.86, 0.13], [0.10, 0.14]])
    centre = (spots[rng.integers(len(spots))] + rng.uniform(-0.02, 0.02, size=2)) * size
    height, tilt = rng.uniform(0.05, 0.08) * size, rng.normal(0, 0.12)
    plate = rng.random() < 0.6
    axes = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    letter = np.array([[-0.3, -0.5], [-0.3, 0.5], [0.35, 0.5]]) * height @ axes + centre
    tag = np.array([[-0.7, -0.9], [0.7, -0.9], [0.7, 0.9], [-0.7, 0.9]]) * height @ axes + centre
    ink = np.zeros((size, size), np.uint8)
    if plate:
        cv2.fillPoly(ink, [np.rint(tag * 16).astype(np.int32)], 30, cv2.LINE_AA, _SUBPIXEL_BITS)
    stroke = max(1, round(0.18 * height))
    cv2.polylines(ink, [np.rint(letter * 16).astype(np.int32)], False, 255, stroke, cv2.LINE_AA, _SUBPIXEL_BITS)
    lead = np.float32(min(1.0, base + contrast) / 255)
    np.maximum(film, film + ink * lead * (1 - np.clip(film, 0, 1)), out=film)
