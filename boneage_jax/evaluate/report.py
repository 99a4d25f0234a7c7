"""The evaluation of one split: predictions.csv, metrics.json, two plots, and the table for the terminal."""

import csv
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from boneage_jax.atomic_files import write_text, write_whole
from boneage_jax.errors import BoneAgeError, listed
from boneage_jax.evaluate import metrics, plots
from boneage_jax.sex import Sex

_RESAMPLES, _SEED = 2000, 0
_MONTHS_PER_BIN, _LAST_BIN = 24, 9  # bins of two years; the last one, from 18 years, is open


def write(
    directory: Path | str | None,
    *,
    ids: Sequence[str],
    sex: Int[np.ndarray, " n"],
    age: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    hospital: Sequence[str],
    split: str,
    loss: Float[np.ndarray, " n"] | None = None,
    std: Float[np.ndarray, " n"] | None = None,
    interval: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None = None,
) -> dict[str, Any]:
    """Writes the four files of an evaluation into `directory` and returns the contents of metrics.json.

    Args:
        directory: created if missing; files of the same names are replaced, each atomically. None writes nothing.
        ids: one per image, in the order of the arrays.
        sex: values of `Sex`.
        age: reference bone age in months.
        predicted: predicted bone age in months.
        hospital: the hospital of each image, "" if unknown.
        split: name of the split, for the plot titles and metrics.json.
        loss: the training loss of each image.
        std: standard deviation of each prediction in months, the network's own or the calibrated one.
        interval: lower and upper ends of each prediction's 90 % interval, months.

    Raises:
        BoneAgeError: no images, different lengths, an invalid sex, values that are not finite (the message names the
            images), a file that cannot be written.
    """
    low, high = interval or (None, None)
    _check(
        ids=ids,
        sex=sex,
        age=age,
        predicted=predicted,
        hospital=hospital,
        loss=loss,
        std=std,
        low=low,
        high=high,
        split=split,
    )
    covered = None if interval is None else (interval[0] <= age) & (age <= interval[1])

    def summarise(chosen: np.ndarray) -> metrics.Metrics:
        further = {name: x[chosen] for name, x in (("loss", loss), ("covered", covered)) if x is not None}
        return metrics.summarise(age[chosen], predicted[chosen], **further, resamples=_RESAMPLES, seed=_SEED)

    def grouped(groups: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
        return {name: summarise(chosen).to_dict() for name, chosen in groups.items() if chosen.any()}

    overall = summarise(np.ones(len(age), bool))
    places = np.asarray(hospital)
    result = {
        "split": split,
        "unit": "months; errors are predicted - reference age",
        "intervals": f"95 % percentile bootstrap over images, {_RESAMPLES} resamples, seed {_SEED}",
        "overall": overall.to_dict(),
        "by_sex": grouped({each.letter: sex == each for each in Sex}),
        "by_hospital": grouped({str(name): places == name for name in np.unique(places) if name}),
        "by_age_in_years": grouped(_age_bins(age)),
    }
    if directory is None:
        return result
    directory = Path(directory)
    errors = (predicted - age).tolist()
    columns = {"age": age.tolist(), "predicted": predicted.tolist(), "error": errors}
    columns |= {name: x.tolist() for name, x in (("std", std), ("low", low), ("high", high)) if x is not None}
    letters = [Sex(number).letter for number in sex.tolist()]
    write_whole(directory / "predictions.csv", lambda path: _write_csv(path, ids, letters, columns))
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    write_text(directory / "metrics.json", text)
    for name, draw in (("scatter.png", plots.scatter), ("bland_altman.png", plots.bland_altman)):
        title = split.capitalize()
        drawing = partial(draw, age=age, predicted=predicted, sex=sex, metrics=overall, title=title)
        write_whole(directory / name, drawing)
    return result


def table(result: dict[str, Any]) -> str:
    """Formats the result of `write`, or metrics.json, for the terminal: every metric, then every group."""
    overall = result["overall"]
    images = "image" if overall["count"] == 1 else "images"
    lines = [f"{result['split']}: {overall['count']:,} {images}, 95 % intervals in brackets", ""]
    for name, label, digits, scale in _ROWS:
        if name in overall:
            lines.append(f"  {label:<32}{_cell(overall[name], digits, scale)}")
    header = f"  {'group':<16}{'images':>8}   {'MAE':<24}{'bias':<24}{'RMSE':>7}{'within 12':>11}"
    lines += ["", header, "  " + "-" * (len(header) - 2)]
    sexes = {Sex.parse(letter).children: group for letter, group in result["by_sex"].items()}
    ages = {f"{name} years": group for name, group in result["by_age_in_years"].items()}
    for name, group in {"all": overall, **sexes, **result["by_hospital"], **ages}.items():
        share = f"{100 * group['within_12_months']['value']:.1f} %"
        lines.append(
            f"  {name:<16}{group['count']:>8,}   {_cell(group['mae'], 2):<24}{_cell(group['bias'], 2):<24}"
            f"{group['rmse']['value']:>7.2f}{share:>11}"
        )
    return "\n".join(lines)


# metric, label, digits, factor for display
_ROWS = (
    ("mae", "MAE (months)", 2, 1),
    ("median_absolute_error", "median absolute error (months)", 2, 1),
    ("rmse", "RMSE (months)", 2, 1),
    ("mse", "MSE (months²)", 1, 1),
    ("r2", "R²", 4, 1),
    ("concordance", "concordance (Lin)", 4, 1),
    ("bias", "bias (months)", 2, 1),
    ("lower_limit", "lower limit of agreement", 2, 1),
    ("upper_limit", "upper limit of agreement", 2, 1),
    ("within_6_months", "within 6 months (%)", 1, 100),
    ("within_12_months", "within 12 months (%)", 1, 100),
    ("within_24_months", "within 24 months (%)", 1, 100),
    ("coverage", "within its 90 % interval (%)", 1, 100),
    ("loss", "loss", 4, 1),
)


def _cell(measure: dict[str, Any], digits: int, scale: int = 1) -> str:
    """`9.01 [8.70, 9.33]`; a dash for undefined values."""
    value, low, high = (
        "-" if x is None else f"{scale * x:.{digits}f}" for x in (measure["value"], *measure["interval"])
    )
    return value if low == "-" else f"{value} [{low}, {high}]"


def _age_bins(age: np.ndarray) -> dict[str, np.ndarray]:
    bins = np.minimum(age // _MONTHS_PER_BIN, _LAST_BIN)
    names = {index: f"{2 * index}-{2 * index + 2}" for index in range(_LAST_BIN)} | {_LAST_BIN: "18+"}
    return {name: bins == index for index, name in names.items()}


def _write_csv(path: Path, ids: Sequence[str], sex: Sequence[str], columns: dict[str, list[float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "sex", *columns))
        for name, letter, *numbers in zip(ids, sex, *columns.values(), strict=True):
            writer.writerow((name, letter, *(f"{number:.4f}" for number in numbers)))


def _check(*, split: str, ids: Sequence[str], **columns: Sequence[str] | np.ndarray | None) -> None:
    """Rejects data that would make the files wrong; the message names the images."""
    for name, values in columns.items():
        if values is not None and len(values) != len(ids):
            raise BoneAgeError(
                f"evaluation of split '{split}': {len(ids)} ids but {len(values)} values of {name}; "
                "one per image was expected"
            )
    if not len(ids):
        raise BoneAgeError(f"evaluation of split '{split}': there is no image; choose a split that has some")
    sex = np.asarray(columns["sex"])
    _refuse(ids, ~np.isin(sex, list(Sex)), f"split '{split}': sex is neither {Sex.FEMALE} nor {Sex.MALE}")
    for name in ("age", "predicted", "loss", "std", "low", "high"):
        if columns[name] is not None:
            _refuse(ids, ~np.isfinite(np.asarray(columns[name])), f"split '{split}': {name} is not finite")


def _refuse(ids: Sequence[str], faulty: np.ndarray, what: str) -> None:
    count = int(faulty.sum())
    if count:
        named = listed(ids[i] for i in np.flatnonzero(faulty).tolist())
        raise BoneAgeError(
            f"evaluation of {what} for {count} of {len(ids)} images (ids {named}); "
            "nothing was written: check these images and the checkpoint"
        )
