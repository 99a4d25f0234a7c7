"""Trains the detector of ossification regions on the radiographs that Koitka et al. annotated for training.

    python -m boneage_jax.regions.training --data DIR --boxes ossification_rois.csv --trunk FILE --out FILE

DIR holds the RSNA files, --trunk names released weights of an EfficientNet-Lite0 for bone age. Its first stages are
frozen, so their feature maps of the augmented radiographs are computed once; the decoder is trained on these maps.
Every ninth radiograph of the training set, by id, is held out to monitor the training; the 89 radiographs of the test
set are never read. All randomness comes from `Recipe.seed`.
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, UInt8

from boneage_jax import compilation, program
from boneage_jax.data.augment import Augmentation, apply
from boneage_jax.data.files import make_folder
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import read
from boneage_jax.errors import BoneAgeError
from boneage_jax.regions import metrics
from boneage_jax.regions.annotations import TRAIN, Annotation, radiographs, read_annotations
from boneage_jax.regions.boxes import COUNTS, LABELS, REGIONS, centres, moved, rescaled, whole
from boneage_jax.regions.decoding import decode
from boneage_jax.regions.losses import detection_loss
from boneage_jax.regions.network import Decoder, Maps, RegionNet
from boneage_jax.released import weights as released

HELD_OUT = 9  # every ninth radiograph
PREPROCESSING = Preprocessing(size=208, region="hand", margin=0.15, clahe_clips=())
AUGMENTATION = Augmentation(flip=0.5, rotation=25.0, shift=0.06, zoom=0.18, brightness=0.12, contrast=0.3, gamma=0.4)

SOURCE = {
    "title": "RSNA Pediatric Bone Age Machine Learning Challenge 2017, with boxes by Koitka et al.",
    "terms": "radiographs: academic research, education and other non-commercial use; annotations: MIT licence",
    "citation": "Halabi SS et al., Radiology 2019; 290(2):498-503. Koitka S et al., PLOS ONE 2018; 13(11):e0207496",
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the detector is trained.

    Attributes:
      views: augmented views of each radiograph.
      epochs: passes over all views.
      batch_size: views per step; the remainder of an epoch is added to the next one.
      learning_rate: peak value, after a linear warm-up of `warmup` steps; then a half cosine down to 0.
      warmup: steps.
      weight_decay: of kernels (AdamW).
      average: decay of the exponential moving average of parameters and statistics; the average is what is saved.
      augmentation: of the training radiographs.
      seed: of parameters, order and augmentation; 0 to 2^32 - 1.

    Raises:
      BoneAgeError: the seed is out of range.
    """

    views: int = 5
    epochs: int = 6
    batch_size: int = 16
    learning_rate: float = 3e-3
    warmup: int = 40
    weight_decay: float = 1e-3
    average: float = 0.98
    augmentation: Augmentation = AUGMENTATION
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise BoneAgeError(f"seed is {self.seed}, expected 0 to {2**32 - 1}")

    def steps(self, radiographs: int) -> int:
        """Steps of the training on this number of radiographs.

        Raises:
          BoneAgeError: no more than `warmup`.
        """
        steps = self.epochs * self.views * radiographs // self.batch_size
        if steps <= self.warmup:
            raise BoneAgeError(
                f"{radiographs} training radiographs and {self.epochs} epochs give {max(steps, 0)} steps, expected "
                f"more than the {self.warmup} of the warm-up; give more annotated radiographs or epochs"
            )
        return steps


@dataclasses.dataclass(frozen=True)
class Examples:
    """Prepared radiographs with their boxes.

    Attributes:
      images: as `Preprocessing.prepare` makes them.
      boxes: in pixels of these images, in the order of `LABELS` and `COUNTS`; 0 where not annotated.
      known: which of the places are annotated.
    """

    images: UInt8[np.ndarray, "N S S 1"]
    boxes: Float[np.ndarray, "N 17 4"]
    known: Bool[np.ndarray, "N 17"]


@dataclasses.dataclass(frozen=True)
class State:
    """Training state: the decoder's variables, the optimiser's state, and the moving average of the variables."""

    variables: Any
    optimizer: Any
    average: Any


jax.tree_util.register_dataclass(State, data_fields=["variables", "optimizer", "average"], meta_fields=[])


def prepare(images: Iterable[np.ndarray], annotations: Sequence[Annotation], preprocessing: Preprocessing) -> Examples:
    """Prepares radiographs `[H, W]` and converts their boxes to pixels of the prepared images."""
    size = preprocessing.size
    prepared = np.zeros((len(annotations), size, size, 1), np.uint8)
    boxes, known = np.zeros((len(annotations), REGIONS, 4)), np.zeros((len(annotations), REGIONS), bool)
    starts = np.cumsum([0, *COUNTS])
    for i, (image, one) in enumerate(zip(images, annotations, strict=True)):
        prepared[i] = preprocessing.prepare(image)
        shown = rescaled(one.boxes_in(image.shape), preprocessing.window(image), whole(size, size))
        for label in range(len(LABELS)):
            of_label = shown[one.labels == label][: COUNTS[label]]
            places = slice(starts[label], starts[label] + len(of_label))
            boxes[i, places], known[i, places] = of_label, True
    return Examples(prepared, boxes, known)


def augmented(examples: Examples, recipe: Recipe) -> Examples:
    """`recipe.views` views of every radiograph; a region whose centre leaves the image counts as not annotated."""
    count, size = len(examples.images), examples.images.shape[1]
    places = np.tile(np.arange(count), recipe.views)
    views = recipe.augmentation.sample_batch(recipe.seed, 0, len(places), size)
    # A view's matrix has its origin at the centre of the first pixel, boxes have it at the pixel's corner.
    corners = np.stack([moved(examples.boxes[i] - 0.5, v.matrix(size)) for i, v in zip(places, views, strict=True)])
    boxes = corners + 0.5
    inside = ((centres(boxes) > 0) & (centres(boxes) < size)).all(axis=-1)
    images = np.stack([apply(examples.images[i], view) for i, view in zip(places, views, strict=True)])
    return Examples(images, boxes, examples.known[places] & inside)


def encode(network: RegionNet, variables: Any, images: UInt8[np.ndarray, "N S S 1"], batch: int) -> list[np.ndarray]:
    """The encoder's maps of prepared images, one array of float16 for each level."""
    encoder = jax.jit(partial(network.apply, method=network.encode))
    parts = []
    for start in range(0, len(images), batch):
        filled = images[np.arange(start, start + batch) % len(images)]
        parts.append([np.asarray(level, np.float16) for level in encoder(variables, PREPROCESSING.scale(filled))])
    return [np.concatenate(level)[: len(images)] for level in zip(*parts, strict=True)]


def batches(examples: Examples, levels: Sequence[np.ndarray], recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Shuffled batches of all epochs."""
    count = len(examples.images)
    rng = np.random.default_rng(recipe.seed)
    order = np.concatenate([rng.permutation(count) for _ in range(recipe.epochs)])
    for step in range(len(order) // recipe.batch_size):
        chosen = order[step * recipe.batch_size :][: recipe.batch_size]
        yield {
            "image": examples.images[chosen],
            "levels": tuple(level[chosen] for level in levels),
            "boxes": examples.boxes[chosen].astype(np.float32),
            "known": examples.known[chosen],
        }


def train(network: RegionNet, variables: Any, examples: Examples, recipe: Recipe, held_out: Examples) -> Any:
    """Trains the decoder; prints the loss and, on the held-out radiographs, mAP and F1.

    Returns:
      The network's variables, with the moving average of the decoder's.
    """
    started = time.perf_counter()
    views = augmented(examples, recipe)
    levels = encode(network, variables, views.images, recipe.batch_size)
    print(f"{len(views.images)} views encoded in {time.perf_counter() - started:.0f} s", flush=True)
    total = recipe.steps(len(examples.images))
    schedule = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, recipe.warmup, total)
    decays = partial(jax.tree_util.tree_map_with_path, lambda path, _: path[-1].key == "kernel")
    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=decays)
    )
    mine = {name: tree["decoder"] for name, tree in variables.items()}
    state = State(jax.tree.map(jnp.array, mine), optimizer.init(mine["params"]), jax.tree.map(jnp.array, mine))
    step = jax.jit(partial(_step, optimizer, recipe.average), donate_argnums=0)
    apply_network = jax.jit(network.apply)
    for number, batch in enumerate(batches(views, levels, recipe), start=1):
        state, parts = step(state, batch)
        if number % max(total // 5, 1) == 0 or number == total:
            variables = {name: {**tree, "decoder": state.average[name]} for name, tree in variables.items()}
            agreement = evaluate(apply_network, variables, held_out)["mean"]
            print(
                f"step {number}/{total}, {time.perf_counter() - started:.0f} s: heat {float(parts['heat']):.3f}, box "
                f"{float(parts['box']):.3f}; held out: mAP {agreement.average_precision:.4f}, F1 {agreement.f1:.4f}, "
                f"IoU {agreement.iou:.3f}",
                flush=True,
            )
    return jax.tree.map(np.asarray, variables)


def _step(
    optimizer: optax.GradientTransformation, average: float, state: State, batch: dict[str, Any]
) -> tuple[State, dict[str, Any]]:
    image = PREPROCESSING.scale(batch["image"])
    levels = jax.tree.map(lambda level: level.astype(jnp.float32), batch["levels"])

    def loss(params: Any) -> tuple[Any, Any]:
        variables = {**state.variables, "params": params}
        maps, changed = Decoder().apply(variables, image, levels, train=True, mutable=["batch_stats"])
        value, parts = detection_loss(maps, batch["boxes"], batch["known"])
        return value, (parts, changed)

    gradients, (parts, changed) = jax.grad(loss, has_aux=True)(state.variables["params"])
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.variables["params"])
    variables = {"params": optax.apply_updates(state.variables["params"], updates), **changed}
    return State(variables, optimizer_state, optax.incremental_update(variables, state.average, 1 - average)), parts


def evaluate(
    apply_network: Callable[[Any, Any], Maps], variables: Any, examples: Examples
) -> dict[str, metrics.Agreement]:
    """Agreement of a network (compiled, from variables and scaled images to maps) with the annotations."""
    labels = np.repeat(np.arange(len(LABELS)), COUNTS)
    found, truth = [], []
    for image, boxes, known in zip(examples.images, examples.boxes, examples.known, strict=True):
        maps = apply_network(variables, PREPROCESSING.scale(image[None]))
        found.append(metrics.Boxes(*decode(np.asarray(jax.nn.sigmoid(maps.heat[0])), np.asarray(maps.boxes[0]))))
        truth.append(metrics.Boxes(labels[known], boxes[known], np.ones(np.count_nonzero(known))))
    return metrics.compare(found, truth)


def figures(agreement: metrics.Agreement) -> dict[str, float | None]:
    """The fields as JSON types: None for NaN, such as the mean IoU of a label of which no region was matched."""
    return {name: None if np.isnan(value) else value for name, value in dataclasses.asdict(agreement).items()}


def initial(network: RegionNet, trunk: released.Weights, seed: int) -> Any:
    """Initial variables of `network`, with the encoder of a bone-age network.

    Raises:
      BoneAgeError: the weights are not those of an EfficientNet-Lite0.
    """
    if trunk.header.model.get("name") != "efficientnet_lite0":
        raise BoneAgeError(
            f"the weights {trunk.header.name!r} have the trunk {trunk.header.model.get('name')}; the detector needs "
            "an efficientnet_lite0"
        )
    size = PREPROCESSING.size
    variables = network.init(jax.random.key(seed), jnp.zeros((1, size, size, 1)))

    def taken(name: str, layers: Any) -> Any:
        return {layer: trunk.variables[name]["trunk"][layer] for layer in layers}

    return {name: {**tree, "trunk": taken(name, tree["trunk"])} for name, tree in variables.items()}


def main() -> int:
    """Reads the data, trains the detector and writes its weights; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with the RSNA files")
    parser.add_argument("--boxes", type=pathlib.Path, required=True, help="the table of boxes, as CSV")
    parser.add_argument("--trunk", default="fast", help="name or file of bone-age weights; default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the weights to write, .safetensors")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="default: %(default)s")
    flags = parser.parse_args()
    recipe = Recipe(epochs=flags.epochs, seed=flags.seed)
    make_folder(flags.out.parent, "--out")
    if flags.out.is_dir():
        raise BoneAgeError(f"--out {flags.out} is a folder; expected a file to write, .safetensors")
    compilation.use_cache(compilation.cache_folder(""))
    annotations = [one for one in read_annotations(flags.boxes) if one.set == TRAIN]
    chosen = {
        "train": [one for i, one in enumerate(annotations) if i % HELD_OUT],
        "held_out": [one for i, one in enumerate(annotations) if not i % HELD_OUT],
    }
    recipe.steps(len(chosen["train"]))  # refuses too few before the radiographs are read
    examples = {}
    for name, part in chosen.items():
        images = (read(image.file)[0] for image in radiographs(flags.data, part))
        examples[name] = prepare(images, part, PREPROCESSING)
    network, trunk = RegionNet(), released.read(released.find(flags.trunk))
    variables = train(network, initial(network, trunk, recipe.seed), examples["train"], recipe, examples["held_out"])
    agreement = evaluate(jax.jit(network.apply), variables, examples["held_out"])
    header = released.Header(
        name="regions",
        model={"name": "region_net"},
        preprocessing=PREPROCESSING.to_dict(),
        views="centre",
        data={**SOURCE, "train_images": len(chosen["train"]), "measured_images": len(chosen["held_out"])},
        figures={name: figures(one) for name, one in agreement.items()},
        config={**dataclasses.asdict(recipe), "trunk": trunk.header.name, "trunk_sha256": trunk.sha256},
        storage="float16",
    )
    released.write(flags.out, released.Weights(header, variables))
    return 0


if __name__ == "__main__":
    program.leave(lambda: program.run(main))
