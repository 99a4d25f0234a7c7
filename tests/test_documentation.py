"""Documentation taken from the code is up to date, and links in the pages of the repository resolve."""

import argparse
import datetime
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import boneage_jax
from boneage_jax import config as configuration
from boneage_jax.commands.main import COMMANDS
from boneage_jax.data import hand, phantom
from boneage_jax.models import network
from boneage_jax.predict import writers
from boneage_jax.predict.prediction import Provenance
from boneage_jax.predict.results import Result
from boneage_jax.released import weights
from boneage_jax.sex import Sex
from boneage_jax.version import __version__
from tests import modules

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def load(name):
    return modules.load(DOCS / f"{name}.py")


def test_every_key_of_the_configuration_is_listed_with_its_default():
    found = {key: default for key, default, _ in load("generate").keys((ROOT / "boneage_jax/config.py").read_text())}
    assert found["train.batch_size"] == "16"
    assert found["preprocess.exposure"] == "(1.0, 99.0)"
    assert set(configuration.keys(configuration.base())) <= set(found)


def test_comments_above_and_beside_a_key_become_its_description():
    source = (
        "def base():\n    config.data = ConfigDict()\n    # Above it,\n    # in two lines.\n"
        "    config.data.name = 1  # behind it\n    config.seed = 0\n    return config\n"
    )
    assert list(load("generate").keys(source)) == [
        ("data.name", "1", "Above it, in two lines. behind it"),
        ("seed", "0", ""),
    ]


def test_the_command_line_page_lists_every_command_and_flag():
    page = load("generate").command_line()
    assert "--accept-warnings" in page
    for command in COMMANDS:
        _, heading, rest = page.partition(f"\n## boneage {command.NAME}\n")
        assert heading
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        flags = {flag for action in parser._actions for flag in action.option_strings}
        assert flags <= set(re.findall(r"--?[a-z][a-z-]*", rest.partition("\n## ")[0])), command.NAME


def test_the_layer_diagram_matches_the_import_contract():
    diagram = load("make_layers_diagram")
    rows = diagram.layers((ROOT / "pyproject.toml").read_text())
    assert (DOCS / "layers.svg").read_text() == diagram.svg(rows), "run python docs/make_layers_diagram.py"


def test_the_figure_of_phantoms_is_up_to_date():
    drawn = load("make_phantom_figure").contact_sheet()
    stored = cv2.imread(str(DOCS / "phantom.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert stored.shape == drawn.shape
    differs = np.abs(stored.astype(int) - drawn) > 6  # the file has every sixth intensity
    assert differs.mean() < 1e-4, "run python docs/make_phantom_figure.py"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/first-reading.md", "docs/explanations/uncertainty.md"])
def test_quoted_readings_match_the_default_weights(page):
    drawn = phantom.render(96, Sex.MALE, size=512, seed=7).image
    answer = boneage_jax.load(weights.most_accurate()).predict(drawn, sex="M")
    text = (ROOT / page).read_text()
    quoted = re.search(r"hand.png  M +([\d.]+) \(.*\) +([\d.]+) +([\d.]+) to ([\d.]+) ", text) or re.search(
        r"for example ([\d.]+) months, SD ([\d.]+), ([\d.]+)\s+to\s+([\d.]+)\.", text
    )
    assert quoted is not None
    assert answer.interval is not None
    low, high = answer.interval
    assert list(map(float, quoted.groups())) == pytest.approx([answer.months, answer.std, low, high], abs=0.06)


def test_the_citation_names_the_current_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def prose(path):
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,3} (.*)", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES = sorted({ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")}) + sorted(
    path for path in DOCS.rglob("*.md") if not path.is_relative_to(DOCS / "generated")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_of_the_repository_and_to_headings(page):
    links = re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)", prose(page))
    targets = [((page.parent / name).resolve() if name else page, anchor) for name, anchor in links]
    generated = [str(path) for path, _ in targets if path.is_relative_to(DOCS / "generated")]
    assert generated == [], "these pages exist only on the built site"
    assert [str(path) for path, _ in targets if not path.exists()] == []
    assert [f"{path}#{anchor}" for path, anchor in targets if anchor and anchor not in anchors(path)] == []


def test_the_page_on_results_lists_every_key_and_the_csv_columns_in_order():
    page = (DOCS / "reference" / "results.md").read_text()
    provenance = Provenance("accurate", None, datetime.datetime.now(datetime.UTC)).to_dict()
    described = set(re.findall(r"`(\w+)`", page))
    assert {*Result("hand.png").to_dict(), *provenance} <= described
    assert ", ".join(writers.CSV_COLUMNS) in page.replace("\n", " ")


def test_every_network_in_the_table_of_the_zoo_has_a_configuration():
    table = load("make_zoo_table")
    names = table.listed()
    assert {"xception", "efficientnet:b4"} <= set(names)
    assert [table.read(name).name for name in names] == [name.replace(":", "_") for name in names]


def test_the_zoo_script_prints_columns_of_the_table():
    header = next(line for line in (DOCS / "zoo.md").read_text().splitlines() if line.startswith("| config |"))
    assert set(load("make_zoo_table").COLUMNS) <= set(header.strip("| ").split(" | "))


def test_every_key_of_the_configuration_has_a_meaning():
    keys = load("generate").keys((ROOT / "boneage_jax/config.py").read_text())
    assert [key for key, _, comment in keys if not comment] == []


def test_the_command_line_page_lists_the_flags_of_launch():
    _, heading, section = load("generate").command_line().partition("\n## launch.py\n")
    assert heading
    for flag in ("--config", "--mode: <train|evaluate|benchmark>", "--workdir"):
        assert flag in section


def test_every_trunk_and_every_exported_name_is_in_the_api_pages():
    pages = load("generate").API
    described = {module for modules in pages.values() for module in modules}
    trunks = {getattr(trunk, "func", trunk).__module__ for trunk in network.TRUNKS.values()}
    assert trunks <= set(pages["models"])
    exported = [getattr(boneage_jax, name) for name in boneage_jax.__all__ if name != "__version__"]
    assert {each.__module__ for each in exported} <= described


def test_the_preprocessing_figure_shows_the_stages_of_prepare():
    figure = load("make_preprocessing_figure")
    film = figure.film()
    stages = figure.stages(film)
    found = hand.segment(film)
    assert found is not None
    assert [title.partition(" ")[0] for title in stages] == ["1", "2", "3", "4", "5", "6", "7"]
    np.testing.assert_array_equal(stages["3 relief"], found.relief)
    np.testing.assert_array_equal(stages["4 mask"] > 0, found.mask)
