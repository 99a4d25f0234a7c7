"""Measures how often the input checks refuse or correct validation radiographs and generated bad inputs.

pip install -r benchmarks/requirements-inputs.txt
python -m benchmarks.input_checks --data DIR [--limit N] [--out benchmarks/results/input-checks.json]

DIR holds the RSNA files. The checks are fitted on two thirds of the training split and their limits on the rest, which
takes some minutes; they are measured on the validation split. The bad inputs are defined in bad_inputs.py, and their
seeds in `made` below.
"""

import argparse
import pathlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import bad_inputs, record
from boneage_jax.data import rsna
from boneage_jax.data.radiograph import read
from boneage_jax.data.splits import STANFORD, hospital
from boneage_jax.export import check_fitting
from boneage_jax.regions.detector import packaged
from boneage_jax.released.checks import WARNING, Checks, Finding


def made(images: list[np.ndarray], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Bad inputs by kind: `count` of each, from different radiographs or from crops of pictures."""
    for number, (kind, make) in enumerate(bad_inputs.MADE.items()):
        rng = np.random.default_rng([2018, number])
        for place in rng.choice(len(images), min(count, len(images)), replace=False):
            yield kind, make(images[place], rng)
    for number, pictures in enumerate((bad_inputs.photographs, bad_inputs.other_medical)):
        rng = np.random.default_rng([1959, number])
        for part in bad_inputs.parts(pictures(), count, rng):
            yield pictures.__name__.rstrip("s"), part


def measure(checks: Checks, directory: pathlib.Path, count: int) -> dict[str, Any]:
    """Shares refused and corrected: validation radiographs by hospital, bad inputs by kind."""
    found = rsna.find(directory)["validation"]
    images = [read(image.file)[0] for image in found]
    start = time.perf_counter()
    alarms = [checks.inspect(image, packaged().completeness)[1] for image in images]
    seconds = (time.perf_counter() - start) / len(images)
    stanford = [hospital(image.id) == STANFORD for image in found]
    result: dict[str, Any] = {
        "images": len(images),
        "milliseconds": round(seconds * 1e3, 2),
        "false_alarms": {},
        "detections": {},
    }
    for name, chosen in (
        ("all", [True] * len(images)),
        ("Stanford", stanford),
        ("Colorado", [not s for s in stanford]),
    ):
        result["false_alarms"][name] = _shares([found for found, wanted in zip(alarms, chosen, strict=True) if wanted])
    result["false_alarm_ids"] = [image.id for image, codes in zip(found, alarms, strict=True) if codes]
    by_kind: dict[str, list[list[Finding]]] = {}
    for kind, image in made(images, count):
        by_kind.setdefault(kind, []).append(checks.inspect(image, packaged().completeness)[1])
    for kind, findings in by_kind.items():
        wanted = bad_inputs.CODES.get(kind, kind)
        named = float(np.mean([wanted in [one.code for one in finding] for finding in findings]))
        result["detections"][kind] = _shares(findings) | {"named": named}
    result["detected"] = float(np.mean([bool(finding) for findings in by_kind.values() for finding in findings]))
    return result


def _shares(findings: list[list[Finding]]) -> dict[str, Any]:
    """Shares of images refused (any warning) and corrected (findings without a warning), with finding counts."""
    refused = [any(one.severity == WARNING for one in found) for found in findings]
    corrected = [bool(found) and not no for found, no in zip(findings, refused, strict=True)]
    return {
        "images": len(findings),
        "refused": float(np.mean(refused)),
        "corrected": float(np.mean(corrected)),
        "codes": dict(Counter(one.code for found in findings for one in found)),
    }


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = ["| good radiographs | images | refused | corrected | findings |", "|---|---|---|---|---|"]
    lines += [
        f"| {k} | {v['images']} | {v['refused']:.2%} | {v['corrected']:.2%} | {v['codes'] or ''} |"
        for k, v in result["false_alarms"].items()
    ]
    lines += ["", "| bad input | images | refused | corrected | named correctly |", "|---|---|---|---|---|"]
    for kind, v in result["detections"].items():
        shares = f"{v['refused']:.1%} | {v['corrected']:.1%} | {v['named']:.1%}"
        lines.append(f"| {kind.replace('_', ' ')} | {v['images']} | {shares} |")
    lines += ["", f"{result['detected']:.1%} of the bad inputs refused or corrected."]
    lines += [f"{result['milliseconds']:.1f} ms per image."]
    return "\n".join(lines)


def main() -> None:
    """Fits and measures the checks, prints the table and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with the RSNA files")
    parser.add_argument("--limit", type=int, default=0, help="training radiographs to fit on; 0 for all")
    parser.add_argument("--count", type=int, default=100, help="images of each bad kind")
    parser.add_argument("--out", type=pathlib.Path, help="where to write the result as JSON")
    flags = parser.parse_args()
    checks = check_fitting.fit(check_fitting.training_squares(flags.data, flags.limit))
    result = {"limit": flags.limit, "settings": checks.to_parts()[0]} | measure(checks, flags.data, flags.count)
    print(table(result))
    if flags.out:
        record.write(flags.out, result)


if __name__ == "__main__":
    main()
