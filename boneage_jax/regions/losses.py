"""The loss of `RegionNet`: a focal loss on the heat maps and complete IoU on the boxes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from boneage_jax.regions.boxes import COUNTS, LABELS
from boneage_jax.regions.network import STRIDE, Maps

SPREAD = 0.2  # standard deviation of a centre's Gaussian, as a fraction of the box's side
LEAST_SPREAD = 0.8  # cells
BOX_WEIGHT = 2.0

_LABEL = np.repeat(np.arange(len(LABELS)), COUNTS)  # of each of the 17 places of a target
_AROUND = np.array([(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)])


def detection_loss(
    maps: Maps, boxes: Float[Array, "B 17 4"], known: Bool[Array, "B 17"]
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean loss over the regions of the batch.

    Args:
      maps: the prediction.
      boxes: the regions in pixels of the input, in the order of `LABELS` and `COUNTS`; any values where not known.
      known: which places hold an annotated region inside the image.

    Returns:
      The loss, and its parts "heat" and "box".
    """
    regions = jnp.maximum(known.sum(), 1)
    heat = _focal(maps.heat, heat_target(boxes, known, maps.heat.shape[1:3])).sum() / regions
    weight = known / regions
    box = (weight * _missed(maps.boxes, boxes)).sum()
    return heat + BOX_WEIGHT * box, {"heat": heat, "box": box}


def heat_target(
    boxes: Float[Array, "B 17 4"], known: Bool[Array, "B 17"], shape: tuple[int, ...]
) -> Float[Array, "B h w K"]:
    """A Gaussian around each centre, exactly 1 in the cell that contains it; the maximum over the regions per label."""
    height, width = shape
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 / STRIDE
    spread = jnp.maximum(SPREAD * (boxes[..., 2:] - boxes[..., :2]) / STRIDE, LEAST_SPREAD)
    factors, inside = [], []
    for axis, side in ((0, width), (1, height)):
        off = jnp.arange(side)[None, None] + 0.5 - centre[..., axis : axis + 1]
        factors.append(jnp.exp(-0.5 * (off / spread[..., axis : axis + 1]) ** 2))
        inside.append((off > -0.5) & (off <= 0.5))
    gaussian = factors[1][..., :, None] * factors[0][..., None, :]
    peak = inside[1][..., :, None] & inside[0][..., None, :]
    near = jnp.where(known[..., None, None], jnp.where(peak, 1.0, gaussian), 0.0)  # [B, 17, h, w]
    return jnp.stack([near[:, label == _LABEL].max(axis=1) for label in range(len(LABELS))], axis=-1)


def _missed(predicted: Float[Array, "B h w K 4"], boxes: Float[Array, "B 17 4"]) -> Float[Array, "B 17"]:
    """Mean 1 - CIoU of the nine cells around each centre, which `decode` averages; clipped to cells inside the map."""
    height, width = predicted.shape[1:3]
    cell = jnp.floor((boxes[..., :2] + boxes[..., 2:]) / 2 / STRIDE).astype(jnp.int32)
    rows = (cell[..., 1:] + _AROUND[None, None, :, 0]).clip(0, height - 1)  # [B, 17, 9]
    columns = (cell[..., :1] + _AROUND[None, None, :, 1]).clip(0, width - 1)
    image = jnp.arange(len(boxes))[:, None, None]
    near = predicted[image, rows, columns, _LABEL[None, :, None]]  # [B, 17, 9, 4]
    return (1 - complete_iou(near, jnp.broadcast_to(boxes[:, :, None], near.shape))).mean(axis=-1)


def _focal(logits: Array, target: Array) -> Array:
    """Penalty-reduced focal loss of each cell (Law and Deng, "CornerNet", ECCV 2018, equation 1)."""
    log_yes, log_no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    yes = jnp.exp(log_yes)
    return -jnp.where(target >= 1, (1 - yes) ** 2 * log_yes, (1 - target) ** 4 * yes**2 * log_no)


def complete_iou(first: Float[Array, "... 4"], second: Float[Array, "... 4"]) -> Float[Array, "..."]:
    """CIoU (Zheng et al., AAAI 2020): IoU minus penalties for centre distance and difference in aspect ratio.

    `first` has positive sides; `second` may be empty, which gives finite values and gradients.
    """
    corner, opposite = jnp.maximum(first[..., :2], second[..., :2]), jnp.minimum(first[..., 2:], second[..., 2:])
    shared = jnp.prod(jnp.maximum(opposite - corner, 0), axis=-1)
    sides = [jnp.maximum(box[..., 2:] - box[..., :2], 1e-3) for box in (first, second)]
    iou = shared / (jnp.prod(sides[0], axis=-1) + jnp.prod(sides[1], axis=-1) - shared)
    hull = jnp.maximum(first[..., 2:], second[..., 2:]) - jnp.minimum(first[..., :2], second[..., :2])
    apart = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
    distance = (apart**2).sum(axis=-1) / (hull**2).sum(axis=-1)
    angles = [jnp.arctan(side[..., 0] / side[..., 1]) for side in sides]
    proportions = 4 / jnp.pi**2 * (angles[0] - angles[1]) ** 2
    share = jax.lax.stop_gradient(proportions / (1 - iou + proportions + 1e-7))
    return iou - distance - share * proportions
