"""Documentation taken from the code is up to date, and links in the files at the root resolve."""

import re
from pathlib import Path

import pytest

import boneage_jax
from boneage_jax import config as configuration
from boneage_jax.commands.main import COMMANDS
from boneage_jax.data import phantom
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


def test_the_command_line_page_lists_every_command():
    page = load("generate").command_line()
    for command in COMMANDS:
        assert f"## boneage {command.NAME}\n" in page
    assert "--accept-warnings" in page


def test_the_layer_diagram_matches_the_import_contract():
    diagram = load("make_layers_diagram")
    rows = diagram.layers((ROOT / "pyproject.toml").read_text())
    assert (DOCS / "layers.svg").read_text() == diagram.svg(rows), "run python docs/make_layers_diagram.py"


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


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_to_repository_files_resolve(name):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / name).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_citation_names_the_current_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
