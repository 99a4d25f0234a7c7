"""Corruptions of a square radiograph, from which the checks of input images learn to recognise defects."""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

Spoil = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _negative(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - image


def _turned(quarters: int) -> Spoil:
    """Rotates by `quarters` quarter turns anticlockwise, plus up to 10 degrees either way."""

    def spoil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        side = image.shape[0]
        middle = (side - 1) / 2
        turn = cv2.getRotationMatrix2D((middle, middle), rng.uniform(-10, 10), 1.0)
        turned = cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(np.rot90(turned, quarters))

    return spoil


def cut(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keeps 40 to 55 % of the image along one axis."""
    image = np.rot90(image, turns := int(rng.integers(4)))
    return np.ascontiguousarray(np.rot90(image[: int(len(image) * rng.uniform(0.4, 0.55))], -turns))


def small(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shrinks the image to 20 to 40 % of the side, on a dark, grainy background (a flat one would be a border)."""
    side = image.shape[0]
    size = int(side * rng.uniform(0.2, 0.4))
    top, left = rng.integers(0, side - size, 2)
    grain = rng.normal(np.percentile(image, 5), rng.uniform(2, 5), image.shape)
    ground = np.clip(np.rint(grain), 0, 255).astype(np.uint8)
    ground[top : top + size, left : left + size] = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return ground


def several(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two copies of the hand side by side, each randomly mirrored."""
    hands = [image[:, ::-1] if rng.random() < 0.5 else image for _ in range(2)]
    return np.hstack(hands)


def something_else(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Radiograph-like intensities without a whole hand: a detail, shuffled pieces, a noise cloud, or shapes."""
    side = image.shape[0]
    choice = rng.integers(6)
    if choice == 0:
        size = int(side * rng.uniform(0.15, 0.35))
        top, left = rng.integers(side // 5, side - size - side // 5 + 1, 2)
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    if choice == 1:
        count = int(rng.integers(2, 6))
        pieces = [
            piece for row in np.array_split(image[: side - side % count], count) for piece in _columns(row, count)
        ]
        pieces = [pieces[place] for place in rng.permutation(len(pieces))]
        return np.vstack([np.hstack(pieces[start : start + count]) for start in range(0, len(pieces), count)])
    return cloud(side, rng) if choice == 2 else shapes(side, rng)


def cloud(side: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with power that decreases with frequency, as in natural images; uint8 `[side, side]`."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.standard_normal((side, side))) / frequency ** rng.uniform(0, 2)
    field = np.fft.ifft2(spectrum).real
    return cv2.normalize(field, np.empty_like(field), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def shapes(side: int, rng: np.random.Generator) -> np.ndarray:
    """A few overlapping bright and dark ellipses and bars, often symmetric or striped, like organs and limbs."""
    right, down = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    picture = rng.uniform(-40, 40) * right + rng.uniform(-40, 40) * down
    for _ in range(rng.integers(1, 9)):
        angle = rng.normal(0, 0.4) + rng.integers(2) * np.pi / 2
        x, y = right - rng.uniform(-0.8, 0.8), down - rng.uniform(-0.8, 0.8)
        wide, long = np.exp(rng.uniform(np.log(0.06), np.log(1.5), 2))
        across, along = (x * np.cos(angle) + y * np.sin(angle)) / wide, (y * np.cos(angle) - x * np.sin(angle)) / long
        power = rng.choice([2, 4, 8])
        shape = np.exp(-np.minimum(np.abs(across) ** power + np.abs(along) ** power, 50))
        if rng.random() < 0.3:
            shape = shape * (0.6 + 0.4 * np.cos(along * rng.uniform(4, 25)))
        picture = picture + rng.choice([-1, 1]) * rng.uniform(20, 120) * shape
    if rng.random() < 0.5:
        picture = picture + picture[:, ::-1]
    picture = picture + rng.uniform(0, 8) * rng.standard_normal((side, side))
    return cv2.normalize(picture, np.empty_like(picture), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def _columns(row: np.ndarray, count: int) -> list[np.ndarray]:
    return np.array_split(row[:, : row.shape[1] - row.shape[1] % count], count, axis=1)


SPOILED: Mapping[str, Spoil] = {
    "inverted": _negative,
    "turned_left": _turned(1),
    "turned_right": _turned(3),
    "upside_down": _turned(2),
    "cut_off": cut,
    "small_hand": small,
    "several_hands": several,
    "unlike": something_else,
}
"""Corruptions by the code of the finding that they should produce."""
