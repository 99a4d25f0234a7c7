"""The model card of released weights in Markdown, generated from their header alone; it lies beside the weights."""

import os
from pathlib import Path
from typing import Any

from boneage_jax.atomic_files import write_text
from boneage_jax.errors import BoneAgeError
from boneage_jax.released import weights as released
from boneage_jax.released.weights import Header, Weights
from boneage_jax.sex import Sex

_USE = """\
To estimate the bone age from a radiograph of a child's left hand and wrist, in research and education. It is valid for
images like its training images. Sex is required; with `unknown`, it gives one reading per sex.

**Not a medical device.** It has not been tested for, and is not to be used in, the care of patients."""

_LIMITS = """\
- Labels are readings by people, who differ from each other by 5 to 8 months; the network learns their habits.
{selection}
- Errors grow where images are few (see the table by age). Predictions tend towards the mean: ages are overestimated in
  the youngest and underestimated in the oldest.
- Other populations, other hands (right, casts, malformations), photographs and other devices have not been measured.
- An interval covers nine of ten images like those that it was fitted on; far from them, it may not."""

_SELECTION = """\
- The checkpoint was selected on these images, so the figures are slightly optimistic. Intervals in brackets are 95 %
  bootstrap intervals over these images; they do not apply to other hospitals."""

_BOOTSTRAP = """\
- Intervals in brackets are 95 % bootstrap intervals over these images; they do not apply to other hospitals."""


def check_target(out: Path) -> None:
    """Raises BoneAgeError if `out` is a folder or does not end in ".safetensors"."""
    if out.suffix != ".safetensors":
        raise BoneAgeError(f"{out} does not end in .safetensors; the model card goes beside it as .md")
    if os.path.isdir(out):
        raise BoneAgeError(f"{out} is a folder, expected the name of a file; choose another")


def write_weights(out: Path, weights: Weights) -> None:
    """Writes the weights and, beside them, their card, as `.md`.

    Raises:
        BoneAgeError: as `weights.write`.
    """
    released.write(out, weights)
    write_text(out.with_suffix(".md"), text(released.read_header(out)))


def text(header: Header) -> str:
    """The card; information that the header lacks is omitted or given as unknown."""
    parts = [
        f"# {header.name}",
        _summary(header),
        "## Intended use",
        _USE,
        "## How to use it",
        _how_to_use(header),
        "## Data and terms",
        _data(header.data),
        "## Results",
        *_results(header),
        "## Calibration",
        _calibration(header),
        "## Limits",
        _limits(header.data),
        "## How it was made",
        _making(header),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(header: Header) -> str:
    size = header.preprocessing["size"]
    text = f"Bone age in months from a hand radiograph ({size} x {size} pixels) and the child's sex"
    further = ", ".join(spec["name"] for spec in header.model["inputs"])
    text += f", with the further inputs {further}" if further else ""
    if "overall" not in header.figures:
        return f"{text}. Nothing has been measured."
    overall, data = header.figures["overall"], header.data
    of = data.get("calibrated_on") or f"the {data.get('measured_split', 'measured')} split"
    return f"{text}. Mean absolute error {_cell(overall['mae'])} months on {overall['count']:,} images of {of}."


def _how_to_use(header: Header) -> str:
    inputs = "".join(f", {spec['name']}=..." for spec in header.model["inputs"])
    further = f", inputs=dict({inputs[2:]})" if inputs else ""
    return (
        "```python\nimport boneage_jax\n\npredictor = boneage_jax.load(FILE)  # the name or the path of the weights\n"
        f'prediction = predictor.predict("hand.png", sex="F"{further})\n'
        "prediction.months, prediction.std, prediction.interval\n```"
    )


def _data(data: dict[str, Any]) -> str:
    if "title" not in data:
        return "Unknown."
    lines = [
        f"- Trained on {data['train_images']:,} images of: {data['title']}{', ' + data['url'] if data['url'] else ''}",
        _measured(data),
        f"- Terms (data and weights): {data['terms']}",
    ]
    if data["citation"]:
        lines.append(f"- Cite: {data['citation']}")
    for one in data.get("initialised_from", []):
        known = one["title"] == data["title"]
        lines.append(f"- Initialised from `{one['name']}`, trained on {'the same data' if known else _origin(one)}")
    return "\n".join(lines)


def _measured(data: dict[str, Any]) -> str:
    if "calibrated_on" in data:
        return f"- Calibrated and measured on {data['measured_images']:,} images of: {data['calibrated_on']}"
    return f"- Measured on {data['measured_images']:,} images of its {data['measured_split']} split"


def _origin(data: dict[str, str]) -> str:
    cite = f"; cite: {data['citation']}" if data["citation"] else ""
    return f"{data['title']}; terms: {data['terms']}{cite}"


def _results(header: Header) -> list[str]:
    figures = header.figures
    if "overall" not in figures:
        return ["Nothing has been measured."]
    by_sex = {Sex.parse(letter).children: group for letter, group in figures["by_sex"].items()}
    tables = [
        _table("group", {"all": figures["overall"], **by_sex}),
        _table("age, years", figures["by_age_in_years"]),
    ]
    if figures["by_hospital"]:
        tables.append(_table("hospital", figures["by_hospital"]))
    if "attention" in figures:
        tables.append(_attention(figures["attention"]))
    if "regions" in figures:
        tables.append(_regions(figures["regions"]))
    return [f"Months; errors are predicted minus reference age. {figures['intervals']}.", *tables]


def _table(title: str, groups: dict[str, Any]) -> str:
    covered = all("coverage" in group for group in groups.values())
    lines = [
        f"| {title} | images | MAE | bias | RMSE | within 12 months |{' in its 90 % interval |' if covered else ''}",
        f"|---|---|---|---|---|---|{'---|' if covered else ''}",
    ]
    for name, group in groups.items():
        row = (
            f"| {name} | {group['count']:,} | {_cell(group['mae'])} | {_cell(group['bias'])} | {_cell(group['rmse'])} "
        )
        row += f"| {_share(group['within_12_months'])} |"
        lines.append(f"{row} {_share(group['coverage'])} |" if covered else row)
    return "\n".join(lines)


def _attention(figures: dict[str, Any]) -> str:
    lines = [
        f"Share of the heat map in annotated regions ({figures['radiographs']:,} radiographs), and their share of the "
        "area and of the brightness.",
        "",
        "| region | heat map | area | brightness |",
        "|---|---|---|---|",
    ]
    for region, share in figures["map"].items():
        rest = (figures[kind][region] for kind in ("area", "brightness"))
        lines.append(f"| {region} | " + " | ".join(f"{100 * value:.1f} %" for value in (share, *rest)) + " |")
    return "\n".join(lines)


def _regions(figures: dict[str, Any]) -> str:
    lines = ["| region, read alone | images | MAE, cross-fitted | in its 90 % interval |", "|---|---|---|---|"]
    for name, one in figures.items():
        lines.append(f"| {name} | {one['images']:,} | {one['mae']:.2f} | {100 * one['coverage']:.1f} % |")
    return "\n".join(lines)


def _calibration(header: Header) -> str:
    fitted, measured = header.calibration, header.figures.get("calibration")
    if fitted is None or measured is None:
        return "None: no intervals are given, and a standard deviation is the network's own."
    if fitted["slope"] == 1 and fitted["intercept"] == 0:
        bias = "No correction of bias: a linear one did not help on held-out halves."
    else:
        bias = f"Bias: months = {fitted['slope']:.4f} x estimate {fitted['intercept']:+.2f}."
    own = "the standard deviation that the head predicts"
    spread = own if fitted["spread"] is None else "the usual error at that age"
    return (
        f"{bias} 90 % intervals: split conformal on {fitted['images']:,} images, in proportion to {spread}.\n\n"
        f"Cross-fitted ({measured['how']}): MAE {measured['mae']:.2f} months ({measured['mae_uncorrected']:.2f} "
        f"without the correction); {100 * measured['coverage']:.1f} % of the reference ages within their interval, "
        f"whose mean width is {measured['width']:.1f} months; root mean square error {measured['rmse']:.2f}, root mean "
        f"square of the reported standard deviations {measured['std']:.2f}. The tables above are of the reported "
        "months, which are calibrated on the same images."
    )


def _limits(data: dict[str, Any]) -> str:
    selected = "calibrated_on" not in data and data.get("measured_split") in (None, "validation")
    return _LIMITS.format(selection=_SELECTION if selected else _BOOTSTRAP)


def _making(header: Header) -> str:
    model = header.model
    options = ", ".join(f"{key}={value}" for key, value in sorted(model["options"].items()))
    members = [
        f"- Member {number}: `{one['name']}` (`{one['model']['name']}`), {_alone(one)}"
        for number, one in enumerate(header.members, start=1)
    ]
    which = "Network of member 1" if members else "Network"
    lines = [
        *members,
        f"- {which}: `{model['name']}`{f' ({options})' if options else ''}, head `{model['head']}`, computed in "
        f"{model['dtype']}, stored in {header.storage}",
        f"- Views averaged: {header.views}",
        f"- Input checks: {_checks(header)}",
        f"- Written by boneage_jax {header.version}; trained by the code of commit {header.commit or 'unknown'}",
        "- The whole configuration, the preprocessing and all figures are in the header of the file, under the key "
        "`boneage_jax`",
    ]
    return "\n".join(lines)


def _alone(member: dict[str, Any]) -> str:
    mae, data = f"{member['figures']['overall']['mae']['value']:.2f} months", member["data"]
    if "calibrated_on" in data:
        return f"MAE alone {mae} on images of {data['calibrated_on']}"
    return f"{data.get('measured_split', 'measured')} MAE alone {mae}"


def _checks(header: Header) -> str:
    if not header.checks:
        return "none; images are read unchecked"
    if "checks_images" not in header.data:  # written by an earlier version
        return "fitted on training images"
    return f"fitted on {header.data['checks_images']:,} of the training images"


def _cell(measure: dict[str, Any]) -> str:
    value, (low, high) = measure["value"], measure["interval"]
    if value is None:
        return "-"
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _share(measure: dict[str, Any]) -> str:
    return f"{100 * measure['value']:.1f} %"
