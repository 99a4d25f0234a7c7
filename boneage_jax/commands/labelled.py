"""The flags of the commands that compare readings with labels, and the labelled images that they name."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_jax.commands import paths, weights_option
from boneage_jax.errors import BoneAgeError

if TYPE_CHECKING:
    from boneage_jax.data.rsna import LabelledImage
    from boneage_jax.models import Input
    from boneage_jax.predict.items import Item

_LEAST_OLDEST = 25.0
"""Months; if the largest bone age is lower, the ages are probably in years."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags to a parser, --weights included."""
    parser.add_argument(
        "--labels",
        type=paths.path,
        required=True,
        help="csv or xlsx with the columns id, boneage (months), male or sex; or the official test labels",
    )
    parser.add_argument(
        "--images", type=paths.path, required=True, help="folder or zip archive of the images, such as <id>.png"
    )
    weights_option.add(parser)
    parser.add_argument(
        "--on-missing",
        choices=("error", "skip"),
        default="error",
        help="how to treat missing labels, missing images and unreadable files; default: error",
    )
    parser.add_argument(
        "--rsna", action="store_true", help="the ids are those of the RSNA challenge: distinguish its hospitals"
    )
    parser.add_argument("--keypoints", type=paths.path, help="file of key points, for networks with a heat-map input")


def find(arguments: argparse.Namespace, specs: "tuple[Input, ...]") -> "tuple[list[LabelledImage], list[Item]]":
    """The labelled images, and the same as the network with these further inputs reads them.

    Raises:
        BoneAgeError: no labels, no images, images without a label and the like, or missing key points.
    """
    from boneage_jax.data import rsna  # jax takes seconds to import

    images = rsna.find_labelled(arguments.labels, arguments.images, arguments.on_missing, _columns(specs))
    if (oldest := max(image.age for image in images)) < _LEAST_OLDEST:
        print(
            f"warning: the largest bone age in {arguments.labels} is {oldest:g}, but bone ages must be in months; "
            "multiply them by 12 if they are in years",
            file=sys.stderr,
        )
    return images, _items(images, specs, arguments.keypoints)


def hospitals(arguments: argparse.Namespace, images: "list[LabelledImage]") -> list[str]:
    """The hospital of each image, "" unless --rsna is given."""
    from boneage_jax.data.splits import hospital

    return [hospital(image.id) if arguments.rsna else "" for image in images]


def _columns(specs: "tuple[Input, ...]") -> dict[str, Any]:
    """The further inputs that are columns of the label table, with their categories or kind."""
    return {spec.name: spec.categories or spec.kind for spec in specs if spec.kind != "heatmap"}


def _items(images: "list[LabelledImage]", specs: "tuple[Input, ...]", keypoints: Path | None) -> "list[Item]":
    from boneage_jax.data.keypoints import gaps, read_key_points
    from boneage_jax.predict.items import Item

    heatmaps = [spec.name for spec in specs if spec.kind == "heatmap"]
    if not heatmaps:
        if keypoints is not None:
            raise BoneAgeError(f"these weights read no key points, so {keypoints} has no use; leave out --keypoints")
        return [Item(image.file, image.sex, image.inputs) for image in images]
    if keypoints is None:
        raise BoneAgeError("these weights read a heat map of key points: give the key-point file with --keypoints")
    marked = read_key_points(keypoints)
    if message := gaps(marked, [image.id for image in images], keypoints):
        raise BoneAgeError(f"{message}; add them")
    placed = {image.id: marked[image.id].with_size(image.file.original_size) for image in images}
    return [
        Item(image.file, image.sex, {**image.inputs, **dict.fromkeys(heatmaps, placed[image.id])}) for image in images
    ]
