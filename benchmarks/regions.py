"""Measures the detector of ossification regions on the 89 test radiographs and compares it with a second reader.

    python -m benchmarks.regions --data DIR --boxes ossification_rois.csv [--out benchmarks/results/regions.json]

DIR holds the RSNA files. The boxes are those of Koitka et al. (PLOS ONE 2018, doi 10.1371/journal.pone.0207496): an
expert and a non-expert annotated each test radiograph. Their Faster R-CNN, pretrained on COCO, reaches a mAP of 92.9
and an F1 of 91.9 against the expert. The crops are measured on all 328 annotated radiographs; the detector was trained
on 212 of them. For the time on one core, run it under `taskset -c 0`.
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from benchmarks import record, sample
from boneage_jax import cores
from boneage_jax.data import rsna
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import read
from boneage_jax.predict.items import Item
from boneage_jax.predict.prediction import Prediction
from boneage_jax.predict.predictor import Predictor, load
from boneage_jax.predict.regions import WEIGHTS
from boneage_jax.regions.annotations import EXPERT, NON_EXPERT, TEST, Annotation, radiographs, read_annotations
from boneage_jax.regions.boxes import centres
from boneage_jax.regions.detector import FILE, THRESHOLD, Detector, Regions, named
from boneage_jax.regions.fingers import FINGERS, NAMES, name_regions
from boneage_jax.regions.metrics import Agreement, Boxes, compare
from boneage_jax.released import weights as released
from boneage_jax.released.checks import WARNING, Checks

PUBLISHED = {"mean_average_precision": 0.929, "f1": 0.919}
STRAIGHT = 0.75  # cosine of the angle between a finger's bones
LIMITS = (1, 2, 3, 5, 8)
SPOILED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upper half": lambda image: image[: image.shape[0] // 2],
    "lower half": lambda image: image[image.shape[0] // 2 :],
    "left half": lambda image: image[:, : image.shape[1] // 2],
    "right half": lambda image: image[:, image.shape[1] // 2 :],
    "two hands": lambda image: np.hstack([image[:, ::-1], image]),
}


def six_fingers(image: np.ndarray, regions: Regions) -> np.ndarray:
    """The hand with a sixth finger: a copy of the little finger, rotated outwards about its knuckle."""
    place = {one.name: centres(np.array([one.box]))[0] for one in regions.found}
    knuckle, middle, tip = (place[f"little {label}"] for label in ("MCP", "PIP", "DIP"))
    (x, y), (right, down) = middle - knuckle, place["ring MCP"] - knuckle
    outwards = np.sign(x * down - y * right)
    width = 0.3 * float(np.linalg.norm(middle - knuckle))
    finger = np.zeros_like(image)
    line = np.rint([knuckle, middle, tip + 0.9 * (tip - middle)]).astype(np.int32)
    cv2.polylines(finger, [line], False, int(np.iinfo(image.dtype).max), max(2, round(2 * width)))
    turn = cv2.getRotationMatrix2D(tuple(map(float, knuckle)), float(outwards) * 22, 1.0)
    turned = cv2.warpAffine(np.where(finger > 0, image, 0).astype(image.dtype), turn, image.shape[::-1])
    return np.maximum(image, turned)


def cast(image: np.ndarray, regions: Regions) -> np.ndarray:
    """The hand in a cast up to the knuckles: bright, coarse and striped, with the bones faint behind it."""
    knuckles = [one.box[3] for one in regions.found if one.label == "MCP" and one.name != "thumb MCP"]
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.uniform(0.6, 1, (24, 24)), image.shape[::-1], interpolation=cv2.INTER_CUBIC)
    rows = np.arange(image.shape[0])[:, None]
    covered = 1 / (1 + np.exp((min(knuckles) - rows) / (0.01 * image.shape[0])))
    bright = float(np.percentile(image, 99)) * (0.75 * coarse + 0.1 * np.sin(rows * 40 / image.shape[0]))
    shown = image * (1 - 0.7 * covered) + 0.7 * covered * bright
    return np.clip(np.rint(shown), 0, np.iinfo(image.dtype).max).astype(image.dtype)


UNUSUAL: dict[str, Callable[[np.ndarray, Regions], np.ndarray]] = {"six fingers": six_fingers, "cast": cast}


def drawn(one: Annotation, image: np.ndarray) -> Boxes:
    """The boxes of a reader, in pixels of the image."""
    return Boxes(one.labels, one.boxes_in(image.shape), np.ones(len(one.labels)))


def agreements(
    detector: Detector, images: Sequence[np.ndarray], readers: dict[str, list[Annotation]]
) -> dict[str, Any]:
    """Agreement of the detector with both readers, and of the readers with each other, by label."""
    found = [detector.boxes(image) for image in images]
    expert, other = (
        [drawn(one, image) for one, image in zip(readers[reader], images, strict=True)]
        for reader in (EXPERT, NON_EXPERT)
    )
    pairs = {
        "detector and expert": compare(found, expert, THRESHOLD),
        "detector and non-expert": compare(found, other, THRESHOLD),
        "non-expert and expert": compare(other, expert),
    }
    return {pair: {name: dataclasses.asdict(one) for name, one in by_label.items()} for pair, by_label in pairs.items()}


def whole_hands(detector: Detector, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """Counts the radiographs with all 17 regions named, with missing regions and with surplus regions."""
    found = [named(detector.boxes(image), image.shape) for image in images]
    return {
        "all_named": sum([one.name for one in each.found] == list(NAMES) for each in found),
        "missing": sum(bool(each.missing) for each in found),
        "surplus": sum(bool(each.surplus) for each in found),
        "images": len(found),
    }


def straight_fingers(annotations: Sequence[Annotation]) -> dict[str, Any]:
    """Counts annotations where naming gives the thumb the lowest knuckle and each other finger joints in a line."""
    right = 0
    for one in annotations:
        place = dict(zip(name_regions(one.labels, one.boxes), centres(one.boxes), strict=True))
        if set(place) != set(NAMES):
            continue
        knuckles = np.array([place[f"{finger} MCP"] for finger in FINGERS])
        joints = np.array([[place[f"{finger} {label}"] for label in ("MCP", "PIP", "DIP")] for finger in FINGERS[1:]])
        axis = knuckles[1:].mean(axis=0) - (place["Radius"] + place["Ulna"]) / 2
        bones = np.diff(joints, axis=1)
        bones /= np.linalg.norm(bones, axis=-1, keepdims=True)
        bend = (bones[:, 0] * bones[:, 1]).sum(axis=-1)
        right += bool(np.argmin(knuckles @ axis) == 0 and (bend > STRAIGHT).all())
    return {"annotations": len(annotations), "right": right}


def crops(
    preprocessing: Preprocessing, annotations: Sequence[Annotation], images: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Counts the radiographs in which the network's crop contains all boxes entirely, and all box centres."""
    inside = {"boxes": 0, "centres": 0, "images": len(images)}
    for one, image in zip(annotations, images, strict=True):
        left, top, right, bottom = preprocessing.window(image)
        boxes = one.boxes_in(image.shape)
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside["boxes"] += bool((boxes[:, :2] >= (left, top)).all() and (boxes[:, 2:] <= (right, bottom)).all())
        inside["centres"] += bool(((middle >= (left, top)) & (middle <= (right, bottom))).all())
    return inside


def alarms(detector: Detector, checks: Checks, validation: Sequence[rsna.LabelledImage], count: int) -> dict[str, Any]:
    """Shares of good and spoiled radiographs with missing or surplus regions, and shares refused by the input checks.

    Uses `count` good radiographs, evenly spaced in the validation split, and `count` others, spoiled in each way.
    """
    spaced = sample.evenly_spaced(len(validation), 2 * count)
    images = [read(validation[place].file)[0] for place in spaced]
    kinds = {"good": images[::2]}
    kinds |= {kind: [np.ascontiguousarray(spoil(image)) for image in images[1::2]] for kind, spoil in SPOILED.items()}
    # `UNUSUAL` changes need all regions, so radiographs with missing regions are left out.
    whole = [(image, hand) for image in images[1::2] if not (hand := detector.find(image)).missing]
    kinds |= {kind: [change(*pair) for pair in whole] for kind, change in UNUSUAL.items()}
    rates = {}
    for kind, inputs in kinds.items():
        found = [named(detector.boxes(image), image.shape) for image in inputs]
        missing = np.array([sum(one.missing.values()) for one in found])
        surplus = np.array([sum(one.surplus.values()) for one in found])
        refused = [
            any(one.severity == WARNING for one in checks.inspect(image, detector.completeness)[1]) for image in inputs
        ]
        rates[kind] = {
            "images": len(found),
            "missing_at_least": {str(limit): float((missing >= limit).mean()) for limit in LIMITS},
            "surplus_at_least": {str(limit): float((surplus >= limit).mean()) for limit in LIMITS},
            "refused_by_checks": float(np.mean(refused)),
        }
    return rates


def readings(detector: Detector, validation: Sequence[rsna.LabelledImage], count: int) -> dict[str, Any]:
    """MAE from regions, whole hands and the mean of both, and how often the regions are reported to disagree.

    Uses `count` evenly spaced validation radiographs: unchanged, with the other sex, and with each `UNUSUAL` change.
    """
    together = load(WEIGHTS)
    whole, regions = (Predictor(member) for member in together.weights.members)
    chosen = [validation[place] for place in sample.evenly_spaced(len(validation), count)]
    images = [read(one.file)[0] for one in chosen]
    found = [detector.find(image) for image in images]
    kinds = {
        "good": [Item(image, one.sex) for image, one in zip(images, chosen, strict=True)],
        "other sex": [Item(image, 1 - one.sex) for image, one in zip(images, chosen, strict=True)],
    }
    for kind, change in UNUSUAL.items():
        each = zip(images, found, chosen, strict=True)
        kinds[kind] = [Item(change(image, all_), one.sex) for image, all_, one in each if not all_.missing]
    result: dict[str, Any] = {"images": len(chosen), "warned": {}}
    for kind, items in kinds.items():
        read_ = list(regions.predict_many(items, on_error="yield", accept_warnings=True))
        answered = [one for one in read_ if isinstance(one, Prediction)]
        doubted = [one.regions_disagree for one in answered]
        result["warned"][kind] = {
            "images": len(items),
            "not_read": len(items) - len(answered),
            "disagreeing": float(np.mean(doubted)),
        }
        if kind == "good":
            others = {
                name: list(predictor.predict_many(items, accept_warnings=True))
                for name, predictor in (("whole hand", whole), ("together", together))
            }
            kept = [place for place, one in enumerate(read_) if isinstance(one, Prediction)]
            age = np.array([chosen[place].age for place in kept])
            errors = {
                "regions": np.array([one.months for one in answered]) - age,
                **{name: np.array([found_[place].months for place in kept]) - age for name, found_ in others.items()},
            }
            result["mae"] = {
                "read_by_both": len(kept),
                **{name: float(np.abs(error).mean()) for name, error in errors.items()},
                "correlation_of_errors": float(np.corrcoef(errors["whole hand"], errors["regions"])[0, 1]),
            }
    return result


def milliseconds(detector: Detector, images: Sequence[np.ndarray]) -> dict[str, float]:
    """Median time per radiograph, including preprocessing, after a first call that compiles."""
    detector.boxes(images[0])
    seconds = []
    for image in images:
        start = time.perf_counter()
        detector.boxes(image)
        seconds.append(time.perf_counter() - start)
    return {"median": round(1e3 * float(np.median(seconds)), 1), "cores": cores.usable()}


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = []
    for pair, by_label in result["agreement"].items():
        lines += ["", f"{pair}:", "", "| region | AP | F1 | precision | recall | IoU | distance of centres |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, fields in by_label.items():
            one = Agreement(**fields)
            precise = f"{one.average_precision:.1%}" if pair.startswith("detector") else "-"
            lines.append(
                f"| {name} | {precise} | {one.f1:.1%} | {one.precision:.1%} | {one.recall:.1%} | {one.iou:.3f} | "
                f"{one.distance:.2%} |"
            )
    for name, inside in result["crops"].items():
        lines += ["", f"crop of {name}: all boxes in {inside['boxes']}, all centres in {inside['centres']} "]
        lines[-1] += f"of {inside['images']} radiographs"
    names = result["names_of_annotations"]
    lines += ["", f"fingers of the readers' boxes named consistently in {names['right']} of {names['annotations']}"]
    hands = result["whole_hands"]
    lines += ["", f"all 17 named in {hands['all_named']} of {hands['images']}, missing in {hands['missing']}, "]
    lines[-1] += f"surplus in {hands['surplus']}"
    lines += ["", "| radiographs | images | refused by the checks | regions missing, at least "]
    lines[-1] += ", ".join(map(str, LIMITS)) + " | too many, at least " + ", ".join(map(str, LIMITS)) + " |"
    lines += ["|---|---|---|---|---|"]
    for kind, one in result["alarms"].items():
        shares = (" / ".join(f"{v:.0%}" for v in one[key].values()) for key in ("missing_at_least", "surplus_at_least"))
        lines.append(f"| {kind} | {one['images']} | {one['refused_by_checks']:.0%} | {' | '.join(shares)} |")
    maes = dict(result["readings"]["mae"])
    lines += ["", f"MAE in months of {maes.pop('read_by_both')} radiographs: "]
    lines[-1] += ", ".join(f"{name} {value:.2f}" for name, value in maes.items())
    lines += ["", "| radiographs | images | not read | regions disagree |", "|---|---|---|---|"]
    for kind, one in result["readings"]["warned"].items():
        lines.append(f"| {kind} | {one['images']} | {one['not_read']} | {one['disagreeing']:.1%} |")
    time_ = result["milliseconds"]
    return "\n".join([*lines, "", f"{time_['median']:.0f} ms per radiograph on {time_['cores']} cores"])


def main() -> None:
    """Runs all measurements, prints the tables and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with the RSNA files")
    parser.add_argument("--boxes", type=pathlib.Path, required=True, help="the table of boxes, as CSV")
    parser.add_argument("--detector", type=pathlib.Path, default=FILE, help="default: that of the package")
    parser.add_argument("--count", type=int, default=60, help="good radiographs, and spoiled ones of each kind")
    parser.add_argument("--readings", type=int, default=200, help="validation radiographs whose regions are read")
    parser.add_argument("--out", type=pathlib.Path, help="where to write the result as JSON")
    flags = parser.parse_args()
    detector = Detector(flags.detector)
    annotations = read_annotations(flags.boxes)
    readers = {name: [one for one in annotations if one.reader == name] for name in (EXPERT, NON_EXPERT)}
    single = [one for one in annotations if one.reader != NON_EXPERT]
    images = [read(image.file)[0] for image in radiographs(flags.data, single)]
    tested = [image for image, one in zip(images, single, strict=True) if one.set == TEST]
    shipped = released.read(released.find(released.most_accurate()))
    validation = rsna.find(flags.data)["validation"]
    checks = Checks.from_parts(shipped.header.checks, shipped.checks)
    result = {
        "images": len(tested),
        "published": PUBLISHED,
        "agreement": agreements(detector, tested, readers),
        "whole_hands": whole_hands(detector, tested),
        "names_of_annotations": straight_fingers(annotations),
        "crops": {
            f"the weights {shipped.header.name!r}": crops(
                Preprocessing.from_dict(shipped.header.preprocessing), single, images
            ),
            "the detector": crops(detector.preprocessing, single, images),
        },
        "alarms": alarms(detector, checks, validation, flags.count),
        "readings": readings(detector, validation, flags.readings),
        "milliseconds": milliseconds(detector, tested[:30]),
    }
    print(table(result))
    if flags.out:
        record.write(flags.out, result)


if __name__ == "__main__":
    main()
