"""Images kept on the device: the jitted step selects and augments them as `data.augment.apply` does.

Instead of "image" (and the maps among "inputs"), a batch of such images has:
  "resident": {"image": uint8 [N, S, S, C], "inputs": {name: uint8 [N, S, S, 1]}}, the whole split;
  "index" [b] into it, and "mask" [b]: false for padding (black images);
  in training "source" [b, 2, 3], "kernel" [b, 3, 3] and "table" [b, 256], sampled by `data.views.train_batches`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

Batch = Mapping[str, Any]


def view(batch: Batch, side: int) -> Batch:
    """The batch with its images: those it already holds, or those selected on the device, with sampled augmentations.

    Args:
        batch: from the pipeline, or as described at the top of this module.
        side: pixels per side of the window that training crops.
    """
    if "resident" not in batch:
        return batch
    resident = batch["resident"]

    def seen(images: jax.Array) -> jax.Array:
        images = _picked(images, batch["index"], batch["mask"])
        return warp(images, batch["source"], side) if "source" in batch else images

    image = seen(resident["image"])
    if "kernel" in batch:
        image = recolour(sharpen(image, batch["kernel"]), batch["table"])
    return {**batch, "image": image, "inputs": {**batch["inputs"], **jax.tree.map(seen, resident["inputs"])}}


def _picked(images: jax.Array, index: jax.Array, mask: jax.Array) -> jax.Array:
    # Gather whole images first: offsets within one image fit in 32 bits, offsets within a data set may not.
    return jnp.where(mask[:, None, None, None], images.at[index].get(mode="clip"), jnp.uint8(0))


@partial(jax.vmap, in_axes=(0, 0, None))
def warp(image: UInt8[Array, "S S C"], source: Float[Array, "2 3"], side: int) -> UInt8[Array, "s s C"]:
    """Bilinear warp, black outside the image, rounded to uint8, like `cv2.warpAffine` (mapped over a batch).

    With 1, 3 or 4 channels, cv2 computes in the same way, and one pixel in some thousands differs by one
    intensity level, from rounding. With 2, cv2 rounds coordinates to 1/32 of a pixel, which is not reproduced here.

    Args:
        image: [B, S, S, C].
        source: [B, 2, 3], affine map from a pixel (x, y) of the window to its position in the image.
        side: pixels of the window.

    Returns:
        [B, side, side, C].
    """
    size, _, channels = image.shape
    pixels = jnp.arange(side, dtype=jnp.float32)
    x, y = pixels[None, :], pixels[:, None]
    right = source[0, 0] * x + (source[0, 1] * y + source[0, 2])  # [side, side]
    down = source[1, 0] * x + (source[1, 1] * y + source[1, 2])
    left, top = jnp.floor(right), jnp.floor(down)
    flat = image.reshape(size * size, channels)

    def tap(columns: int, rows: int) -> jax.Array:
        column, row = left.astype(jnp.int32) + columns, top.astype(jnp.int32) + rows
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        values = flat.at[jnp.where(inside, row * size + column, 0)].get(mode="promise_in_bounds")
        return jnp.where(inside[..., None], values.astype(jnp.float32), 0.0)  # [side, side, C]

    across, along = (right - left)[..., None], (down - top)[..., None]
    upper, lower = tap(0, 0), tap(0, 1)
    upper += across * (tap(1, 0) - upper)
    lower += across * (tap(1, 1) - lower)
    return jnp.rint(upper + along * (lower - upper)).astype(jnp.uint8)


@jax.vmap
def sharpen(image: UInt8[Array, "S S C"], kernel: Float[Array, "3 3"]) -> UInt8[Array, "S S C"]:
    """Filters with replicated edges, rounded to uint8, like `cv2.filter2D` (mapped over [B, S, S, C] and [B, 3, 3])."""
    size = image.shape[0]
    wide = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge").astype(jnp.float32)
    taps = [kernel[i, j] * wide[i : i + size, j : j + size] for i in range(3) for j in range(3)]
    return jnp.clip(jnp.rint(sum(taps[1:], taps[0])), 0, 255).astype(jnp.uint8)


@jax.vmap
def recolour(image: UInt8[Array, "S S C"], table: UInt8[Array, "256"]) -> UInt8[Array, "S S C"]:
    """Maps intensities through a lookup table, like `cv2.LUT` (mapped over a batch: [B, S, S, C] and [B, 256])."""
    return table.at[image.astype(jnp.int32)].get(mode="promise_in_bounds")
