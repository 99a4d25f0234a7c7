"""The window of an image that the preprocessing crops."""

import cv2
import numpy as np
import pytest

from boneage_jax.data import Preprocessing, phantom


def picture(seed: int, canvas: tuple[int, int] = (500, 400)) -> tuple[np.ndarray, np.ndarray]:
    """A phantom on a larger dark film, and its joints in pixels of the film."""
    drawn = phantom.render(100, 0, size=300, seed=seed)
    film = np.full(canvas, int(np.median(drawn.image[:5])), np.uint8)
    film[150:450, 60:360] = drawn.image
    return film, drawn.key_points + np.array([60, 150])


def test_the_window_is_the_whole_image_unless_a_hand_is_cropped():
    assert Preprocessing().window(np.zeros((30, 20), np.uint8)) == (0, 0, 20, 30)
    assert Preprocessing(region="hand").window(np.zeros((30, 20), np.uint8)) == (0, 0, 20, 30)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_hand_window_is_the_area_that_prepare_crops(seed):
    film, joints = picture(seed)
    ours = Preprocessing(size=64, region="hand", clahe_clips=())
    left, top, right, bottom = ours.window(film)
    assert ((joints > [left, top]) & (joints < [right, bottom])).all()
    assert right - left == pytest.approx(bottom - top)  # the aspect ratio is kept
    left, top, right, bottom = (round(edge) + 500 for edge in (left, top, right, bottom))
    padded = np.pad(film, 500)[top:bottom, left:right]
    shown = cv2.resize(padded, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(ours.prepare(film).ravel(), shown.ravel())[0, 1] > 0.98
