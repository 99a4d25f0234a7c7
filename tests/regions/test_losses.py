import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.regions.losses import complete_iou, detection_loss, heat_target
from boneage_jax.regions.network import STRIDE, Maps

SIDE = 16  # cells
detection_losses = jax.jit(detection_loss)


def target(known=(0,)):
    """One joint, 10 pixels wide and centred at (33, 22), in the first slot."""
    boxes = np.zeros((1, 17, 4), np.float32)
    boxes[0, 0] = [28, 17, 38, 27]
    return jnp.asarray(boxes), jnp.asarray([[place in known for place in range(17)]])


def test_heat_is_one_in_the_centre_cell_and_decays_around_it():
    boxes, known = target()
    heat = heat_target(boxes, known, (SIDE, SIDE))
    assert heat.shape == (1, SIDE, SIDE, 6)
    assert heat[0, 22 // STRIDE, 33 // STRIDE, 0] == 1
    assert heat[0, 22 // STRIDE, 33 // STRIDE + 1, 0] < 0.7
    assert float(heat[..., 1:].max()) == 0


def test_unknown_regions_have_no_heat_and_no_box_loss():
    boxes, known = target(known=())
    assert float(heat_target(boxes, known, (SIDE, SIDE)).max()) == 0
    maps = Maps(jnp.full((1, SIDE, SIDE, 6), -20.0), jnp.ones((1, SIDE, SIDE, 6, 4)).at[..., 2:].set(2))
    assert float(detection_losses(maps, boxes, known)[0]) == pytest.approx(0, abs=1e-6)


def test_correct_maps_have_almost_no_loss_and_wrong_maps_more():
    boxes, known = target()
    heat = jnp.where(heat_target(boxes, known, (SIDE, SIDE)) == 1, 12.0, -12.0)
    right = Maps(heat, jnp.broadcast_to(boxes[:, None, None, :1], (1, SIDE, SIDE, 6, 4)))
    assert float(detection_losses(right, boxes, known)[0]) < 1e-3
    shifted = Maps(heat, right.boxes + 5)
    assert float(detection_losses(shifted, boxes, known)[1]["box"]) > 0.5
    assert float(detection_losses(Maps(-heat, right.boxes), boxes, known)[1]["heat"]) > 10


def test_complete_iou_matches_a_hand_calculation():
    square = jnp.array([0.0, 0, 10, 10])
    assert float(complete_iou(square, square)) == pytest.approx(1, abs=1e-5)
    # IoU 0.5, centres 2.5 apart in a hull whose diagonal is sqrt(200), different aspect ratios.
    half = jnp.array([0.0, 0, 10, 5])
    proportions = 4 / np.pi**2 * (np.arctan(1) - np.arctan(2)) ** 2
    expected = 0.5 - 6.25 / 200 - proportions * proportions / (0.5 + proportions)
    assert float(complete_iou(square, half)) == pytest.approx(expected, abs=1e-5)


def test_the_gradient_is_finite_for_an_empty_box():
    value, gradient = jax.value_and_grad(complete_iou)(jnp.array([1.0, 1, 5, 5]), jnp.zeros(4))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    boxes, known = target()  # the boxes of the 16 unknown regions are empty
    maps = Maps(jnp.zeros((1, SIDE, SIDE, 6)), jnp.ones((1, SIDE, SIDE, 6, 4)).at[..., 2:].set(2))
    gradients = jax.grad(lambda maps: detection_losses(maps, boxes, known)[0])(maps)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert np.any(gradients.boxes[..., 0, :])
    assert not np.any(gradients.boxes[..., 1:, :])
