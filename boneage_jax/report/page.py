"""The page as a single self-contained HTML file, and the same page as PDF."""

import base64
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from boneage_jax.errors import BoneAgeError
from boneage_jax.predict import reference
from boneage_jax.predict.results import Result, years_months
from boneage_jax.released.weights import Header
from boneage_jax.report import chart
from boneage_jax.report.visits import Visit
from boneage_jax.terminal import printable

_NONE = "\N{EN DASH}"
_SOURCES = {"--sex": "as given", "--age": "as given", "--labels": "from the table", "header": "from the file's header"}
_QUALITY = 92  # of JPEG pictures, which make the page a fifth as large as PNG
_LIMITS = (
    "The network learned from readings by people, who differ from each other by 5 to 8 months. Children unlike "
    "those of its data, other populations and right hands have not been measured.",
    "The interval contains the reference age of nine in ten radiographs like those of its calibration. For "
    "malformations, casts, photographs and unusual devices it may not.",
    f"Delayed and advanced mean that the whole interval lies more than {reference.BORDER:.0f} standard deviations from "
    "the chronological age. The table of deviations comes from a secondary source and from children of the 1930s.",
    "Adult height is not predicted.",
)
_HEATMAP_LIMIT = "The heat map shows what influenced the network. It does not show disease."
_NO_HEATMAP = "There is no heat map: these weights read crops around the joints."


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of a page.

    Attributes:
        visits: the visits of one child, in chronological order; the last one is shown in full.
        picture: radiograph of the last visit with the heat map beside it, from `heatmap.illustrate`.
        errors: reasons why further files were not read, in sentences.
        accuracy: the measured accuracy of the weights in a sentence, or "".
        has_heatmap: whether the picture has a heat map; without one, it is the radiograph alone, and a note says why.
    """

    visits: Sequence[Visit]
    picture: UInt8[np.ndarray, "h w 3"]
    errors: Sequence[str] = ()
    accuracy: str = ""
    has_heatmap: bool = True


def html(report: Report) -> str:
    """Renders the page as one HTML file in UTF-8 with embedded style, chart and pictures, and without scripts."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("boneage_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
    )
    shown = report.visits[-1]
    provenance = shown.result.provenance
    assert provenance is not None  # every result with a reading has one
    pictures = np.split(report.picture, 2 if report.has_heatmap else 1, axis=1)
    return environment.get_template("report.html.j2").render(
        shown=_full(shown),
        visits=[_row(visit) for visit in report.visits],
        chart=Markup(chart.svg([_point(visit) for visit in report.visits], shown.sex)),
        radiograph=_data_url(cv2.cvtColor(pictures[0], cv2.COLOR_BGR2GRAY)),
        heatmap=_data_url(pictures[1]) if report.has_heatmap else None,
        remarks=_remarks(report),
        limits=_limits(report),
        provenance=provenance.to_dict(),
        table=reference.TABLE,
    )


def pdf(page: str) -> bytes:
    """Prints a page from `html` on A4; external resources are refused.

    Raises:
        BoneAgeError: as `check_pdf`.
    """
    check_pdf()
    import weasyprint
    from weasyprint.urls import URLFetcher

    inside = URLFetcher(allowed_protocols=("data",), fail_on_errors=True)
    printed = weasyprint.HTML(string=page, url_fetcher=inside).write_pdf()
    assert printed is not None  # weasyprint returns None only if a target is given
    return printed


def check_pdf() -> None:
    """Checks that `pdf` can be used.

    Raises:
        BoneAgeError: weasyprint does not find Pango, a system library.
    """
    try:
        import weasyprint  # noqa: F401
    except OSError as error:
        raise BoneAgeError(
            f"weasyprint, which writes the PDF, does not find a library of the system ({error}); install Pango "
            "(Debian: libpangoft2-1.0-0), or write HTML"
        ) from error


def accuracy(header: Header) -> str:
    """The measured accuracy of the weights in a sentence; "" if their header has no figures."""
    if "overall" not in header.figures:
        return ""
    overall = header.figures["overall"]
    sentence = (
        f"Mean absolute error of the weights: {overall['mae']['value']:.1f} months on {overall['count']:,} radiographs "
        f"({header.measured_on()})"
    )
    if "coverage" in overall:
        sentence += f"; {100 * overall['coverage']['value']:.0f} % of the reference ages lay in their interval"
    return f"{sentence}."


def _row(visit: Visit) -> dict[str, str]:
    """A row of the table of visits; all ages are in months, without the unit."""
    result, reading = visit.result, visit.reading
    return {
        "file": visit.name,
        "date": _NONE if visit.date is None else visit.date.isoformat(),
        "age": _number(result.age),
        "bone_age": _number(reading.months),
        "interval": _NONE if reading.interval is None else _range(*reading.interval, _number),
        "difference": _number(reading.difference, "+.1f"),
        "sd_score": _number(reading.sd_score, "+.2f"),
        "conclusion": _NONE if reading.conclusion is None else reading.conclusion,
    }


def _full(visit: Visit) -> dict[str, str]:
    """The entries beside the chart, with units and, where it helps, also in years and months."""
    result, reading, row = visit.result, visit.reading, _row(visit)
    low_high = reading.interval
    return {
        **{key: row[key] for key in ("file", "bone_age", "sd_score")},
        "bone_age_words": years_months(reading.months),
        "date": "" if visit.date is None else row["date"],
        "interval": "not given by these weights" if low_high is None else f"{row['interval']} months",
        "interval_words": "" if low_high is None else _range(*low_high, years_months),
        "std": "not given by these weights" if reading.std is None else f"{_number(reading.std)} months",
        "sex": visit.sex.word,
        "sex_from": _SOURCES.get(result.sex_from or "", ""),
        "age": "unknown" if result.age is None else f"{row['age']} months",
        "age_words": _age_words(result),
        "difference": _NONE if reading.difference is None else f"{row['difference']} months",
        "conclusion": reading.conclusion or "not compared: the chronological age is unknown",
        "reason": reading.reason,
    }


def _remarks(report: Report) -> list[tuple[str, str]]:
    """Pairs of kind and sentence: errors first, then the remarks on each visit, with its name if there are several."""
    found = [("warning", f"Not read: {error}") for error in report.errors]
    for visit in report.visits:
        name = f"{visit.name}: " if len(report.visits) > 1 else ""
        found += [("warning", name + sentence) for sentence in visit.result.warnings]
        found += [("note", name + sentence) for sentence in visit.result.notes]
    return found if report.has_heatmap else [*found, ("note", _NO_HEATMAP)]


def _limits(report: Report) -> list[str]:
    *limits, last = _LIMITS
    accuracy = [report.accuracy] if report.accuracy else []
    return [*accuracy, *limits, f"{_HEATMAP_LIMIT} {last}" if report.has_heatmap else last]


def _age_words(result: Result) -> str:
    return "" if result.age is None else f"{years_months(result.age)}, {_SOURCES.get(result.age_from or '', '')}"


def _point(visit: Visit) -> chart.Point:
    return chart.Point(visit.result.age, visit.reading.months, visit.reading.interval)


def _number(value: float | None, form: str = ".1f") -> str:
    return _NONE if value is None else format(value, form).replace("-", "\N{MINUS SIGN}")


def _range(low: float, high: float, form: Callable[[float], str]) -> str:
    return f"{form(low)} to {form(high)}"


def _data_url(picture: np.ndarray) -> str:
    """A picture as a data URL with JPEG content, to be embedded in the page."""
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode()}"


def _shown(value: Any) -> Any:
    """Escapes characters that hide, move or reverse other text; leaves the markup of this program unchanged."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
