"""Measures whether networks look where readers look, on radiographs with annotated ossification regions.

    python -m benchmarks.attention --data DIR --boxes ossification_rois.csv [--weights NAME] [--limit N] [--card]

DIR holds the RSNA files; the boxes are those of Koitka et al. (PLOS ONE 2018, doi 10.1371/journal.pone.0207496); where
two readers drew boxes, the expert's are used. The table gives the share of the heat map inside the boxes, beside the
boxes' share of the area and of the brightness, for each region and age group. A heat map takes about two seconds on a
core. --card adds the shares to the weights file and its model card. Weights that read crops have no heat map.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import record, sample
from boneage_jax import load
from boneage_jax.data import Preprocessing
from boneage_jax.data.radiograph import read
from boneage_jax.export import card
from boneage_jax.predict.attention import Shares, shares
from boneage_jax.predict.heatmap import Maps, supported
from boneage_jax.predict.items import Item
from boneage_jax.regions.annotations import NON_EXPERT, radiographs, read_annotations
from boneage_jax.released import weights as released

AGES = {"under 8 years": (0, 96), "8 to 12 years": (96, 144), "12 years and over": (144, 1000)}
"""Bone age in months: inclusive lower and exclusive upper bound."""


def summary(found: Iterable[Shares]) -> dict[str, Any]:
    """Mean shares over radiographs, by kind and region, and the number of radiographs."""
    found = list(found)
    kinds = [field.name for field in dataclasses.fields(Shares)]
    regions = found[0].map if found else {}
    means = {
        kind: {region: float(np.mean([getattr(one, kind)[region] for one in found])) for region in regions}
        for kind in kinds
    }
    return {"radiographs": len(found), **means}


def measure(name: str, data: pathlib.Path, boxes: pathlib.Path, limit: int) -> dict[str, Any]:
    """Shares of one network, over all radiographs and by age group."""
    predictor = load(name)
    maps = Maps(predictor)
    annotations = [one for one in read_annotations(boxes) if one.reader != NON_EXPERT]
    if limit:
        annotations = [annotations[place] for place in sample.evenly_spaced(len(annotations), limit)]
    found: list[tuple[float, Shares]] = []
    pairs = zip(annotations, radiographs(data, annotations), strict=True)
    for one, image in tqdm(pairs, desc=name, total=len(annotations), disable=None):
        pixels = read(image.file)[0]
        item = Item(pixels, image.sex)
        found.append((image.age, shares(predictor, maps, item, one.labels, one.boxes_in(pixels.shape))))
    groups = {group: summary(each for age, each in found if low <= age < high) for group, (low, high) in AGES.items()}
    return {"all ages": summary(each for _, each in found), **groups}


def add_to_card(path: pathlib.Path, groups: dict[str, Any]) -> None:
    """Adds the shares of one network to its weights file and to the model card beside it."""
    weights = released.read(path)
    figures = {**weights.header.figures, "attention": groups["all ages"]}
    card.write_weights(path, dataclasses.replace(weights, header=dataclasses.replace(weights.header, figures=figures)))


def heatmapped() -> list[str]:
    """Names of the packaged weights that have heat maps."""
    headers = {name: released.read_header(released.find(name)) for name in released.names()}
    return [name for name, one in headers.items() if supported(Preprocessing.from_dict(one.preprocessing))]


def table(result: dict[str, Any]) -> str:
    """The result in Markdown: heat map / area / brightness."""
    lines = []
    for name, groups in result.items():
        regions = list(groups["all ages"]["map"])
        lines += ["", f"weights `{name}`, shares of heat map / area / brightness", ""]
        lines += ["| age | radiographs | " + " | ".join(regions) + " |", "|---|---|" + "---|" * len(regions)]
        for group, one in groups.items():
            if not one["radiographs"]:
                continue
            cells = (
                " / ".join(f"{one[kind][region]:.1%}" for kind in ("map", "area", "brightness")) for region in regions
            )
            lines.append(f"| {group} | {one['radiographs']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures the shares, prints the table and writes the requested files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with the RSNA files")
    parser.add_argument("--boxes", type=pathlib.Path, required=True, help="the table of boxes, as CSV")
    parser.add_argument("--weights", nargs="+", default=heatmapped(), help="default: all in the package")
    parser.add_argument("--limit", type=int, default=0, help="radiographs, evenly spaced; 0 for all")
    parser.add_argument("--out", type=pathlib.Path, help="where to write the result as JSON")
    parser.add_argument("--card", action="store_true", help="add the shares to the weights and their model card")
    flags = parser.parse_args()
    result = {name: measure(name, flags.data, flags.boxes, flags.limit) for name in flags.weights}
    print(table(result))
    if flags.card:
        for name, groups in result.items():
            add_to_card(released.find(name), groups)
    if flags.out:
        record.write(flags.out, {"shares": result})


if __name__ == "__main__":
    main()
