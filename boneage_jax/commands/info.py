"""Describes the weights and the program: provenance, measured accuracy, training data and environment."""

import argparse
import json
from typing import Any

from boneage_jax.commands import weights_option

NAME = "info"
HELP = "print provenance, measured accuracy and environment"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    weights_option.add(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with all figures")


def run(arguments: argparse.Namespace) -> int:
    """Reads the weights, verifies their checksum and prints their description."""
    import datetime

    from boneage_jax.predict import about  # jax takes seconds to import
    from boneage_jax.predict.prediction import Provenance
    from boneage_jax.released import weights

    read = weights.read(weights.find(weights_option.name(arguments)))
    provenance = Provenance(read.header.name, read.sha256, datetime.datetime.now(datetime.UTC))
    described = about.describe(read.header, provenance)
    print(json.dumps(described, allow_nan=False, indent=2) if arguments.json else _text(described))
    return 0


def _text(described: dict[str, Any]) -> str:
    from boneage_jax.evaluate import report

    provenance, data, environment = (described[key] for key in ("provenance", "data", "environment"))
    lines = [
        f"boneage_jax {provenance['version']}, preprocessing {provenance['preprocessing']}",
        f"weights {provenance['weights']}, SHA-256 {provenance['weights_sha256']} (verified)",
        provenance["notice"],
    ]
    if "overall" in described["figures"]:  # the region detector has figures of another kind
        lines += ["", report.table(described["figures"])]
    if "title" in data:
        lines += ["", f"trained on {data['title']}", f"terms: {data['terms']}"]
        lines += [f"cite: {data['citation']}"] if data["citation"] else []
        lines += [
            f"initialised from {one['name']}, trained on {one['title']}; terms: {one['terms']}"
            for one in data.get("initialised_from", [])
        ]
    if "calibrated_on" in data:
        lines.append(f"calibrated on {data['measured_images']:,} images of: {data['calibrated_on']}")
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"Python {environment['python']} on {environment['system']}, {environment['cores']} cores",
            packages,
            f"devices: {', '.join(environment['devices'])}; CPU kernels: {environment['cpu_kernels'] or 'none'}",
        ]
    )
