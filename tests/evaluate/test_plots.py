"""The figures: every image is drawn once, and lines lie at the values of the metrics."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from boneage_jax.evaluate import metrics, plots
from tests import pictures


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in order."""
    figures = []
    save = Figure.savefig

    def record(self, *args, **kwargs):
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    return figures


def arguments(count=60):
    rng = np.random.default_rng(0)
    age = rng.uniform(10, 220, count).astype(np.float32)
    predicted = age + rng.normal(2, 8, count).astype(np.float32)
    sex = (np.arange(count) % 3 == 0).astype(np.int32)
    summary = metrics.summarise(age, predicted)
    return {"age": age, "predicted": predicted, "sex": sex, "metrics": summary, "title": "Test"}


def test_the_scatter_plot_shows_every_image_and_the_mae(tmp_path, drawn):
    values = arguments()
    plots.scatter(tmp_path / "scatter.png", **values)
    axes = drawn[0].axes[0]
    girls, boys = (np.asarray(cloud.get_offsets()) for cloud in axes.collections)
    assert (len(girls), len(boys)) == (40, 20)
    chosen = values["sex"] == 1
    np.testing.assert_allclose(boys, np.stack([values["age"], values["predicted"]], 1)[chosen])
    assert f"MAE {values['metrics'].mae.value:.2f} months" in axes.get_title()
    low, high = axes.get_xlim()
    assert low <= min(values["predicted"].min(), 0)
    assert high >= values["predicted"].max()
    assert axes.get_ylim() == (low, high)


def test_the_bland_altman_plot_draws_bias_and_limits_at_their_values(tmp_path, drawn):
    values = arguments()
    plots.bland_altman(tmp_path / "bland_altman.png", **values)
    axes = drawn[0].axes[0]
    summary = values["metrics"]
    levels = {round(float(line.get_ydata()[0]), 6) for line in axes.lines}
    expected = (0, summary.bias.value, summary.lower_limit.value, summary.upper_limit.value)
    assert levels == {round(level, 6) for level in expected}
    labels = [text.get_text() for text in axes.texts]
    assert f"+1.96 sd: +{summary.upper_limit.value:.1f}" in labels
    points = np.concatenate([np.asarray(cloud.get_offsets()) for cloud in axes.collections])
    np.testing.assert_allclose(points[:, 1].mean(), summary.bias.value, rtol=1e-4)


def test_a_single_image_is_drawn_without_limits(tmp_path, drawn):
    values = arguments(1)
    plots.bland_altman(tmp_path / "bland_altman.png", **values)
    assert [text.get_text().split(":")[0] for text in drawn[0].axes[0].texts] == ["bias"]


@pytest.mark.parametrize("draw", [plots.scatter, plots.bland_altman])
def test_the_file_is_an_image_even_under_a_temporary_name(tmp_path, draw):
    path = tmp_path / ".plot.png.17.part"
    draw(path, **arguments())
    image = pictures.read(path)
    assert min(image.shape[:2]) > 600


@pytest.mark.parametrize("draw", [plots.scatter, plots.bland_altman])
def test_a_network_that_has_diverged_gets_few_ticks(draw, tmp_path, drawn):
    values = arguments()
    values["predicted"][0] = 1e6
    draw(tmp_path / "plot.png", **values)
    axes = drawn[0].axes[0]
    assert max(len(axes.get_xticks()), len(axes.get_yticks())) < 50
