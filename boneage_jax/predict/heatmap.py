"""Which regions of a radiograph moved its reading: integrated gradients from its blurred copy to itself.

The blurred copy shows the hand without its details. Integrated along the straight path from the copy to the picture,
the gradient of the bone age gives the months that each pixel's detail adds. Summed over all pixels, these are the
months by which the details as a whole moved the reading (Sundararajan et al., "Axiomatic Attribution for Deep
Networks", ICML 2017). The method needs no particular layer, so it works with every trunk and head, at the resolution of
the image.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from boneage_jax.atomic_files import write_bytes
from boneage_jax.data import Preprocessing
from boneage_jax.errors import BoneAgeError
from boneage_jax.inference import Batch, make_estimate
from boneage_jax.models import Network
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import Predictor

STEPS = 16  # nodes of the Gauss-Legendre quadrature along the path from the blurred copy
BLUR = 0.05  # standard deviation of the Gaussian that removes detail, as a fraction of the image side
SMOOTH = 0.02  # standard deviation of the Gaussian that merges pixels into regions, as a fraction of the image side
LARGEST = 1024  # pixels per side of the pictures
_STRONG = 99.5  # percentile of the map that is shown in the strongest colour


def make_moved(network: Network, preprocessing: Preprocessing, views: str) -> Callable[[Any, Batch], Array]:
    """Makes the function to compile: `(variables, {"image", "sex", "inputs"}) -> [B, S, S]`, months added per pixel.

    Args:
        network: from `Description.network`.
        preprocessing: its preprocessing; the function expects images that it has prepared.
        views: the views to average the estimate over, see `Preprocessing.views`.
    """
    estimate = make_estimate(network, preprocessing, views)

    def moved(variables: Any, batch: Batch) -> Array:
        image = jnp.asarray(batch["image"], jnp.float32)  # [B, S, S, C]
        blurred = _blurred(image, BLUR * image.shape[1])

        def gradient(share: Array) -> Array:
            def months(image: Array) -> Array:
                return estimate(variables, {**batch, "image": image}).months.sum()

            return jax.grad(months)(blurred + share * (image - blurred))

        nodes, weights = np.polynomial.legendre.leggauss(STEPS)
        gradients = jax.lax.map(gradient, jnp.asarray((nodes + 1) / 2, jnp.float32))
        mean = jnp.tensordot(jnp.asarray(weights / 2, jnp.float32), gradients, axes=1)
        return ((image - blurred) * mean).sum(axis=-1)

    return moved


def supported(preprocessing: Preprocessing) -> bool:
    """Whether networks with this preprocessing have heat maps: all except those that read crops around the joints."""
    return preprocessing.region != "joints"


class Maps:
    """The heat maps of a predictor's readings.

    Raises:
        BoneAgeError: its weights have no heat maps, see `supported`.
    """

    def __init__(self, predictor: Predictor):
        if not supported(predictor.preprocessing):
            raise BoneAgeError(
                f"the weights {predictor.header.name!r} read crops around the joints, for which there is no heat map; "
                "use weights that read the hand as a whole"
            )
        self._predictor = predictor
        self._moved = jax.jit(make_moved(predictor.network, predictor.preprocessing, predictor.header.views))

    def find(self, item: Item) -> Float[np.ndarray, "size size"]:
        """Finds the regions that moved the reading; if the sex is unknown, sums the maps for a girl and for a boy.

        Returns:
            Values from 0 to 1 over the window that the network sees (`Preprocessing.window`): absolute months around
            each pixel, scaled so that the strongest are 1.

        Raises:
            BoneAgeError: as `Predictor.predict` with `accept_warnings=True`.
        """
        prepared = self._predictor.prepare(item, accept_warnings=True)
        further = {name: np.asarray(value)[None] for name, value in prepared.inputs.items()}
        total = np.zeros(prepared.image.shape[:2], np.float32)
        for sex in prepared.sexes:
            batch = {"image": prepared.image[None], "sex": np.array([sex], np.int32), "inputs": further}
            total += regions(np.asarray(self._moved(self._predictor.variables, batch))[0])
        strongest = float(np.percentile(total, _STRONG))
        return np.clip(total / strongest, 0, 1) if strongest > 0 else total

    def overlay(self, item: Item) -> UInt8[np.ndarray, "h w 3"]:
        """The picture as it was read and, beside it, the same picture with the heat map as a colour overlay."""
        picture = self._predictor.look(item.image)
        found = self.find(item._replace(image=picture))
        return side_by_side(picture.pixels, found, self._predictor.preprocessing.window(picture.pixels))


def find_maps(predictor: Predictor) -> Maps | None:
    """The heat maps of a predictor; None if its weights have none."""
    return Maps(predictor) if supported(predictor.preprocessing) else None


def illustrate(predictor: Predictor, maps: Maps | None, item: Item) -> UInt8[np.ndarray, "h w 3"]:
    """The picture that accompanies a result: `Maps.overlay`, or without maps the radiograph alone, as it was read."""
    if maps is not None:
        return maps.overlay(item)
    grey = np.rint(displayed(predictor.look(item.image).pixels)).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def regions(moved: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
    """Absolute months by which the neighbourhood of each pixel moved the reading: a Gaussian blur of `abs(moved)`."""
    return cv2.GaussianBlur(np.abs(moved), (0, 0), SMOOTH * len(moved))


def side_by_side(
    pixels: np.ndarray, found: Float[np.ndarray, "size size"], window: tuple[float, float, float, float]
) -> UInt8[np.ndarray, "h w 3"]:
    """The radiograph [H, W], scaled to at most `LARGEST` pixels a side, and beside it a copy under the heat map.

    The channels are blue, green and red, as OpenCV writes them. Pixels outside the window keep their intensity.
    """
    height, width = pixels.shape
    grey = displayed(pixels)[..., None]
    size = (grey.shape[1], grey.shape[0])
    left, top, right, bottom = window
    across, down = (right - left) / len(found) * size[0] / width, (bottom - top) / len(found) * size[1] / height
    # Pixels are squares, with their centres at half-integer coordinates.
    shift = (left * size[0] / width + across / 2 - 0.5, top * size[1] / height + down / 2 - 0.5)
    matrix = np.array([[across, 0, shift[0]], [0, down, shift[1]]])
    shown = cv2.warpAffine(found, matrix, size, flags=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.rint(255 * shown).astype(np.uint8), cv2.COLORMAP_INFERNO).astype(np.float32)
    share = 0.6 * shown[..., None]  # where the map is 0, the radiograph is unchanged
    plain = np.broadcast_to(grey, colours.shape)
    return np.rint(np.concatenate([plain, plain * (1 - share) + colours * share], axis=1)).astype(np.uint8)


def displayed(pixels: np.ndarray) -> Float[np.ndarray, "h w"]:
    """A radiograph [H, W], scaled to at most `LARGEST` pixels a side and windowed to intensities from 0 to 255."""
    height, width = pixels.shape
    scale = min(1.0, LARGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = np.percentile(grey, (0.5, 99.5))
    return np.clip((grey - low) * (255 / max(high - low, 1)), 0, 255).astype(np.float32)


def write(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes a picture as PNG, atomically."""
    write_bytes(path, cv2.imencode(".png", picture)[1].tobytes())


def _blurred(images: Float[Array, "B S S C"], sigma: float) -> Float[Array, "B S S C"]:
    """Gaussian blur with edge padding."""
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    side = images.shape[1]
    images = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    images = sum(w * images[:, i : i + side] for i, w in enumerate(weights))
    return sum(w * images[:, :, i : i + side] for i, w in enumerate(weights))
