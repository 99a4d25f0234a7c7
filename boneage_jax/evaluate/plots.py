"""The two standard figures of bone-age papers: predicted against reference age, and Bland-Altman."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, MaxNLocator, MultipleLocator

from boneage_jax.evaluate.metrics import Metrics
from boneage_jax.sex import Sex

# Okabe and Ito's palette (2008), distinguishable for colour-blind readers; markers differ for greyscale print.
_LOOKS = {Sex.FEMALE: ("#D55E00", "o"), Sex.MALE: ("#0072B2", "^")}
_INK = "#333333"
_LONGEST_AXIS = 600  # months with a tick every two years


def scatter(
    path: Path,
    *,
    age: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    sex: Int[np.ndarray, " n"],
    metrics: Metrics,
    title: str,
) -> None:
    """Writes a PNG of predicted against reference age (months) by sex, with the line of identity."""
    figure, axes = _figure((5.6, 5.6))
    top = 12 * np.ceil((max(float(age.max()), float(predicted.max())) + 6) / 12)
    bottom = min(0.0, 12 * np.floor(float(predicted.min()) / 12))
    axes.plot([bottom, top], [bottom, top], color=_INK, linewidth=1, zorder=1, label="identity")
    _points(axes, age, predicted, sex)
    axes.set(xlim=(bottom, top), ylim=(bottom, top), aspect="equal")
    axes.set(xlabel="Reference bone age (months)", ylabel="Predicted bone age (months)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(_locator(top - bottom))
    axes.set_title(f"{title}: MAE {metrics.mae.value:.2f} months, n = {metrics.count:,}", fontsize=11)
    axes.legend(loc="upper left", frameon=False)
    _save(figure, path)


def _locator(span: float) -> Locator:
    """Ticks every two years; fewer if a network that has diverged makes the axis long."""
    return MultipleLocator(24) if span <= _LONGEST_AXIS else MaxNLocator()


def bland_altman(
    path: Path,
    *,
    age: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    sex: Int[np.ndarray, " n"],
    metrics: Metrics,
    title: str,
) -> None:
    """Writes a PNG of the error against the mean of both ages (months), with bias and limits of agreement.

    Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of clinical
    measurement. Lancet 1986; 327:307-310.
    """
    figure, axes = _figure((7.2, 4.6))
    error, middle = predicted - age, (predicted + age) / 2
    _points(axes, middle, error, sex)
    axes.set(xlim=(min(0.0, float(middle.min())) - 6, float(middle.max()) + 6))
    axes.axhline(0, color=_INK, linewidth=0.8, zorder=1)
    limits = (metrics.lower_limit.value, metrics.upper_limit.value)
    largest = max(float(np.abs(error).max()), *(abs(level) for level in limits if np.isfinite(level)), 6.0)
    axes.set(ylim=(-1.12 * largest, 1.12 * largest))
    _level(axes, metrics.bias.value, "bias", "-", (-np.inf, np.inf))
    if np.isfinite(limits).all():
        # If the limits are closer together than a line of text, their labels are shifted outwards.
        gap = 0.11 * largest
        _level(axes, limits[0], "\N{MINUS SIGN}1.96 sd", "--", (-np.inf, metrics.bias.value - gap))
        _level(axes, limits[1], "+1.96 sd", "--", (metrics.bias.value + gap, np.inf))
    axes.xaxis.set_major_locator(_locator(float(np.ptp(middle))))
    axes.set(
        xlabel="Mean of predicted and reference age (months)",
        ylabel="Predicted \N{MINUS SIGN} reference (months)",
    )
    axes.set_title(f"{title}: Bland-Altman, n = {metrics.count:,}", fontsize=11, loc="left")
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        ncols=2,
        borderpad=0,
        handletextpad=0,
        columnspacing=0.8,
    )
    _save(figure, path)


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure without pyplot: no global state, no display, no figure left open."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _level(axes: Axes, level: float, name: str, style: str, label_range: tuple[float, float]) -> None:
    """A horizontal line at `level` months, with its name and value in the right margin."""
    axes.axhline(level, color=_INK, linewidth=1.4, linestyle=style, zorder=3)
    text = f"{name}: {level:+.1f}".replace("-", "\N{MINUS SIGN}")
    place = (1.015, float(np.clip(level, *label_range)))
    axes.annotate(text, place, xycoords=axes.get_yaxis_transform(), va="center", fontsize=9)


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, sex: np.ndarray) -> None:
    """One cloud per sex; the more images, the smaller and fainter, so that dense regions stay readable."""
    crowd = min(1.0, len(x) / 1500)
    for each, (colour, marker) in _LOOKS.items():
        chosen = sex == each
        if chosen.any():
            axes.scatter(
                x[chosen],
                y[chosen],
                s=26 - 16 * crowd,
                color=colour,
                marker=marker,
                alpha=0.75 - 0.3 * crowd,
                linewidths=0,
                zorder=2,
                label=f"{each.children} ({chosen.sum():,})",
            )


def _save(figure: Figure, path: Path) -> None:
    # The file omits matplotlib's version, so that the same predictions give the same bytes.
    figure.savefig(path, format="png", dpi=160, metadata={"Software": None})
