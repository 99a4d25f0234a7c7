import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from boneage_jax import compilation
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.errors import BoneAgeError
from boneage_jax.regions import training
from boneage_jax.regions.annotations import COLUMNS, Annotation
from boneage_jax.regions.detector import FILE
from boneage_jax.regions.metrics import Boxes, compare
from boneage_jax.regions.network import RegionNet
from boneage_jax.regions.training import (
    AUGMENTATION,
    SOURCE,
    Examples,
    Recipe,
    augmented,
    batches,
    initial,
    prepare,
    train,
)
from boneage_jax.released import weights as released
from tests.predict import random_weights

SIDE = 64


def squares(count, seed=0):
    """A bright square of 12 pixels on noise, annotated as the radius; nothing else is annotated."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (count, SIDE, SIDE, 1)).astype(np.uint8)
    boxes, known = np.zeros((count, 17, 4)), np.zeros((count, 17), bool)
    for image, box in zip(images, boxes, strict=True):
        left, top = rng.integers(16, 36, 2).tolist()
        image[top : top + 12, left : left + 12] = 250
        box[14] = left, top, left + 12, top + 12
    known[:, 14] = True
    return Examples(images, boxes, known)


def test_boxes_follow_the_augmented_image():
    views = augmented(squares(6), Recipe(views=5, augmentation=AUGMENTATION))
    assert views.images.shape == (30, SIDE, SIDE, 1)
    assert len(np.unique(views.images.reshape(30, -1), axis=0)) == 30
    for image, (left, top, right, bottom), known in zip(views.images, views.boxes[:, 14], views.known, strict=True):
        level = int(image.max()) // 2 + int(np.median(image)) // 2
        rows, columns = np.nonzero(image[..., 0] > level)
        # Pixel (x, y) covers the area from x to x + 1; a rotated square extends beyond its inscribed ellipse.
        assert columns.mean() + 0.5 == pytest.approx((left + right) / 2, abs=0.8)
        assert rows.mean() + 0.5 == pytest.approx((top + bottom) / 2, abs=0.8)
        assert known.tolist() == [place == 14 for place in range(17)]


def test_a_region_outside_the_view_counts_as_not_annotated():
    examples = squares(1)
    examples.boxes[0, 14] += 3 * SIDE
    assert not augmented(examples, Recipe(views=2)).known.any()


def test_prepare_orders_boxes_by_label_and_scales_them_to_pixels():
    image = np.tile(np.arange(100, dtype=np.uint8), (200, 1))
    boxes = np.array([[50.0, 100, 100, 200], [10, 20, 30, 40], [0, 0, 10, 20]])
    one = Annotation("1", "train", "", (100.0, 200.0), np.array([5, 1, 0]), boxes)
    examples = prepare(iter([image]), [one], Preprocessing(size=SIDE))
    assert np.flatnonzero(examples.known[0]).tolist() == [0, 4, 16]
    squashed = boxes * np.tile([SIDE / 100, SIDE / 200], 2)
    np.testing.assert_allclose(examples.boxes[0, [16, 4, 0]], squashed)


def test_batches_contain_every_view_once_per_epoch():
    examples = squares(6)
    levels = [np.arange(6, dtype=np.float16).reshape(6, 1, 1, 1)]
    recipe = Recipe(epochs=2, batch_size=4)
    found = list(batches(examples, levels, recipe))
    order = np.concatenate([batch["levels"][0].ravel() for batch in found])
    assert len(found) == 3
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))
    assert order[:6].tolist() != order[6:].tolist()
    for batch in found:
        chosen = batch["levels"][0].ravel().astype(int)
        np.testing.assert_array_equal(batch["image"], examples.images[chosen])
        np.testing.assert_array_equal(batch["boxes"], examples.boxes[chosen])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(BoneAgeError, match=f"seed is {seed}, expected 0 to 4294967295"):
        Recipe(seed=seed)


@pytest.mark.parametrize(
    ("radiographs", "flags", "message"),
    [
        (239, ["--out=."], r"--out \. is a folder; expected a file to write, \.safetensors"),
        (239, ["--epochs=0"], "212 training radiographs and 0 epochs give 0 steps, expected more than the 40 of the"),
        (24, [], "21 training radiographs and 6 epochs give 39 steps"),
        (0, [], "0 training radiographs and 6 epochs give 0 steps"),
    ],
    ids=["folder", "no epochs", "few radiographs", "no radiographs"],
)
def test_an_impossible_training_is_refused_before_the_radiographs_are_read(
    radiographs, flags, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = [f"{number},train,,DIP,0,0,1,1,9,9" for number in range(radiographs)]
    pathlib.Path("boxes.csv").write_text("\n".join([",".join(COLUMNS), *rows]))
    monkeypatch.setattr(compilation, "use_cache", lambda _: None)
    monkeypatch.setattr(training, "prepare", None)
    monkeypatch.setattr(
        sys, "argv", ["training", "--data=rsna", "--boxes=boxes.csv", "--out=regions.safetensors", *flags]
    )
    with pytest.raises(BoneAgeError, match=message):
        training.main()


def test_encoder_weights_from_another_trunk_are_refused():
    with pytest.raises(BoneAgeError, match="have the trunk convmixer"):
        initial(RegionNet(), random_weights.weights(), seed=0)


def test_weights_are_written_even_if_a_label_is_never_found(tmp_path, monkeypatch):
    rows = [f"{number},train,,DIP,0,0,1,1,9,9" for number in range(239)]
    (tmp_path / "boxes.csv").write_text("\n".join([",".join(COLUMNS), *rows]))
    truth = [Boxes(np.zeros(1, int), np.array([[0.0, 0, 1, 1]]), np.ones(1))]
    nothing = [Boxes(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))]
    monkeypatch.setattr(compilation, "use_cache", lambda _: None)
    monkeypatch.setattr(training, "radiographs", lambda *_: [])
    monkeypatch.setattr(training, "prepare", lambda *_: None)
    monkeypatch.setattr(training, "initial", lambda *_: None)
    monkeypatch.setattr(training, "train", lambda *_: {"params": {"kernel": np.ones(2, np.float32)}})
    monkeypatch.setattr(training, "evaluate", lambda *_: compare(nothing, truth))
    out = tmp_path / "regions.safetensors"
    monkeypatch.setattr(sys, "argv", ["training", "--data=rsna", f"--boxes={tmp_path / 'boxes.csv'}", f"--out={out}"])
    assert training.main() == 0
    found = released.read(out).header.figures
    assert (found["DIP"]["recall"], found["DIP"]["iou"], found["PIP"]["average_precision"]) == (0.0, None, None)


@pytest.mark.slow  # compiles the decoder's training step
def test_training_learns_to_find_squares_and_is_reproducible(capsys):
    network = RegionNet(variant="tiny_lite")
    start = jax.jit(network.init)(jax.random.key(0), np.zeros((1, SIDE, SIDE, 1), np.float32))
    recipe = Recipe(views=2, epochs=12, batch_size=8, warmup=5, average=0.9)
    trained = [train(network, start, squares(32), recipe, squares(8, seed=1)) for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *trained)
    jax.tree.map(np.testing.assert_array_equal, trained[0]["params"]["trunk"], start["params"]["trunk"])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    f1, iou = (float(last.split(f"{name} ")[1].split(",")[0]) for name in ("F1", "IoU"))
    assert f1 > 0.9 / 6  # the mean over six labels, of which one is annotated
    assert iou > 0.7


def test_the_program_ends_with_a_one_line_error(tmp_path):
    flags = ["--data=missing", "--boxes=boxes.csv", "--out=regions.safetensors"]
    command = [sys.executable, "-m", "boneage_jax.regions.training", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: The region boxes boxes.csv cannot be read: ")
    assert done.stderr.count("\n") == 1


def test_the_packaged_detector_states_source_terms_and_citation():
    assert released.read_header(FILE).data.items() >= SOURCE.items()
