"""Generates unsuitable inputs for a bone-age network, with fixed seeds, to measure the input checks.

From validation radiographs, which the checks were not fitted on: inverted, turned, cut off, small, two hands, badly
exposed. Drawn: blank, noise, gradients, text, a chest, a long bone. Photographs and medical images of other kinds: the
sample pictures that come with matplotlib, scikit-image and scikit-learn.

The checks are also fitted on inverted, turned, cut, small and several hands and on noise, but those come from other
radiographs and are cut, shrunk and drawn in other ways. Every kind generated here was first tried on training
radiographs with other seeds; shapes were then added to the fitting data because the checks missed chests and long
bones. Photographs and other medical images were not tried before the reported measurement.
"""

import gzip
import pathlib
from collections.abc import Callable, Iterator

import cv2
import matplotlib
import numpy as np
import skimage
import sklearn.datasets

Make = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_SIDE = 299
_INK, _PAPER = 30, 235


def inverted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dark bones on a bright background."""
    return 255 - image


def turned_left(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The fingers point to the left."""
    return np.ascontiguousarray(np.rot90(image))


def turned_right(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The fingers point to the right."""
    return np.ascontiguousarray(np.rot90(image, -1))


def upside_down(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The fingers point down."""
    return np.ascontiguousarray(np.rot90(image, 2))


def cropped_to_half(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Only the upper, lower, left or right half."""
    half = _SIDE // 2
    return [image[:half], image[half:], image[:, :half], image[:, half:]][rng.integers(4)].copy()


def half_out_of_the_frame(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The hand shifted halfway out of the frame; the vacated area is filled with background."""
    shift = np.zeros((2, 3))
    shift[:, :2] = np.eye(2)
    shift[rng.integers(2), 2] = rng.choice([-1, 1]) * _SIDE * rng.uniform(0.48, 0.6)
    return cv2.warpAffine(image, shift, (_SIDE, _SIDE), borderValue=float(np.percentile(image, 5)))


def small_hand(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image at a quarter to a third of its size, near the middle of a dark background."""
    size = int(_SIDE * rng.uniform(0.25, 0.33))
    top, left = (_SIDE - size) // 2 + rng.integers(-40, 41, 2)
    ground = np.zeros_like(image)
    ground[top : top + size, left : left + size] = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return ground


def two_hands(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The usual image of both hands: the radiograph beside its mirror image."""
    return np.hstack([image[:, ::-1], image])


def overexposed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Everything brighter than the median intensity is white."""
    low, high = np.percentile(image, (1, 50))
    return np.clip((image.astype(np.float32) - low) * 255 / max(high - low, 1), 0, 255).astype(np.uint8)


def underexposed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Only four to eight intensity levels are left."""
    low, high = np.percentile(image, (0.5, 99.5))
    share = np.clip((image.astype(np.float32) - low) / max(high - low, 1), 0, 1)
    return np.rint(share * rng.integers(3, 8)).astype(np.uint8)


def blank(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One intensity, with some grain."""
    grain = rng.normal(0, rng.uniform(0, 1), image.shape)
    return np.clip(rng.integers(256) + grain, 0, 255).astype(np.uint8)


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise, more or less smoothed."""
    field = cv2.GaussianBlur(rng.standard_normal(image.shape), (0, 0), rng.uniform(0.3, 6))
    return cv2.normalize(field, np.empty_like(field), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def gradient(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From dark to bright along a line or around a point."""
    right, down = np.meshgrid(np.linspace(-1, 1, _SIDE), np.linspace(-1, 1, _SIDE))
    angle = rng.uniform(0, 2 * np.pi)
    line = right * np.cos(angle) + down * np.sin(angle)
    ramp = np.hypot(right - rng.uniform(-0.5, 0.5), down - rng.uniform(-0.5, 0.5)) if rng.random() < 0.5 else line
    return cv2.normalize(ramp, np.empty_like(ramp), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def text_page(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lines of words, dark on bright like paper or bright on dark like a report on a screen."""
    page = np.full(image.shape, _PAPER, np.uint8)
    scale = rng.uniform(0.3, 0.7)
    for line in range(int(30 * scale) + 12, _SIDE - 10, int(28 * scale) + 6):
        words = ("".join(chr(c) for c in rng.integers(97, 123, rng.integers(2, 10))) for _ in range(int(8 / scale)))
        cv2.putText(page, " ".join(words), (12, line), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
    return 255 - page if rng.random() < 0.5 else page


def chest(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two dark lungs with ribs, a spine, a heart."""
    right, down = np.meshgrid(np.linspace(-1, 1, _SIDE), np.linspace(-1, 1, _SIDE))
    picture = 150 - 70 * np.clip(np.abs(right) - 0.75, 0, 1) * 4
    lungs = sum(np.exp(-(((right - side * 0.38) / 0.27) ** 4) - ((down + 0.05) / 0.6) ** 4) for side in (-1, 1))
    picture -= rng.uniform(70, 110) * lungs
    bend = np.sqrt(np.clip(1.1 - right**2, 0, 2))
    picture += 25 * lungs * np.clip(np.cos((down + 0.5 * bend) * rng.uniform(22, 30)), 0, 1)
    picture += rng.uniform(25, 45) * np.exp(-((right / 0.08) ** 2))
    picture += rng.uniform(40, 70) * np.exp(-(((right - 0.16) / 0.22) ** 4) - ((down - 0.3) / 0.28) ** 4)
    return _film(picture, rng)


def long_bone(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A limb with one or two shafts: bright at the rims, wider at the ends."""
    right, down = np.meshgrid(np.linspace(-1, 1, _SIDE), np.linspace(-1, 1, _SIDE))
    angle = rng.uniform(-0.5, 0.5)
    across, along = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    flesh = np.exp(-((across / rng.uniform(0.4, 0.6)) ** 6))
    picture = 15 + 70 * flesh
    for place in ((-0.18, 0.15), (0.0,))[rng.integers(2)]:
        width = rng.uniform(0.07, 0.11) * (1 + 0.9 * np.clip(np.abs(along) - 0.45, 0, 1) ** 1.2 * 2.5)
        shaft = np.exp(-(((across - place) / width) ** 6))
        picture += 60 * shaft + 40 * np.exp(-(((np.abs(across - place) - 0.8 * width) / (0.25 * width)) ** 2))
    return _film(picture, rng)


def _film(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grain = cv2.GaussianBlur(rng.normal(0, 6, picture.shape), (0, 0), 0.8)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


MADE: dict[str, Make] = {
    make.__name__: make
    for make in (
        *(
            inverted,
            turned_left,
            turned_right,
            upside_down,
            cropped_to_half,
            half_out_of_the_frame,
            small_hand,
            two_hands,
        ),
        *(overexposed, underexposed, blank, noise, gradient, text_page, chest, long_bone),
    )
}

CODES = {
    "cropped_to_half": "cut_off",
    "half_out_of_the_frame": "cut_off",
    "two_hands": "several_hands",
    "overexposed": "saturated",
    "underexposed": "blank",
} | dict.fromkeys(("noise", "gradient", "text_page", "chest", "long_bone", "photograph", "other_medical"), "unlike")
"""The finding that best describes each kind, where it differs from the name of the kind."""

_PHOTOGRAPHS = (
    "astronaut.png camera.png chelsea.png coffee.png rocket.jpg motorcycle_left.png brick.png grass.png gravel.png"
)
_OTHER = "cell.png ihc.png microaneurysms.png retina.jpg phantom.png"


def _picture(path: pathlib.Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise SystemExit(f"{path} cannot be read; install benchmarks/requirements-inputs.txt")
    return image


def photographs() -> list[np.ndarray]:
    """Photographs with a single channel: people, animals, things, buildings, ground."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    pictures = [_picture(folder / name) for name in _PHOTOGRAPHS.split()]
    pictures += [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in sklearn.datasets.load_sample_images().images]
    hopper = pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [*pictures, _picture(hopper)]


def other_medical() -> list[np.ndarray]:
    """A magnetic resonance image of a head, a fundus, microscopy, and the Shepp-Logan head."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    pictures = [_picture(folder / name) for name in _OTHER.split()]
    with gzip.open(pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "s1045.ima.gz") as file:
        head = np.frombuffer(file.read(), np.uint16).reshape(256, 256)
    return [*pictures, head]


def parts(pictures: list[np.ndarray], count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Crops of at least half the side, randomly mirrored; each picture is used equally often."""
    for number in range(count):
        picture = pictures[number % len(pictures)]
        height, width = (int(side * rng.uniform(0.5, 1)) for side in picture.shape)
        top, left = (
            int(rng.integers(0, side - part + 1)) for side, part in zip(picture.shape, (height, width), strict=True)
        )
        part = picture[top : top + height, left : left + width]
        yield np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)
