"""`boneage info`: provenance, figures and environment, as text and as JSON."""

import json
import pathlib

import jax
import pytest

from boneage_jax.commands.main import main
from boneage_jax.data import preprocess
from boneage_jax.regions import detector
from boneage_jax.released import weights
from boneage_jax.version import __version__


def test_json_has_provenance_figures_data_and_environment(capsys):
    assert main(["info", "--weights=fast", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    read = weights.read(weights.find("fast"))
    provenance = found["provenance"]
    assert provenance["weights_sha256"] == read.sha256
    assert (provenance["version"], provenance["preprocessing"]) == (__version__, preprocess.VERSION)
    assert provenance["notice"] == "Research use only. Not a medical device."
    assert found["figures"] == read.header.figures
    assert found["data"]["citation"] == read.header.data["citation"]
    assert found["environment"]["packages"]["jax"] == jax.__version__
    assert len(found["environment"]["devices"]) == jax.device_count()


def test_text_output_has_the_figures_of_the_model_card(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    header = weights.read_header(weights.find(weights.most_accurate()))
    mae = header.figures["overall"]["mae"]
    assert f"{mae['value']:.2f} [{mae['interval'][0]:.2f}, {mae['interval'][1]:.2f}]" in out
    assert "Stanford" in out
    assert "Research use only" in out


def test_weights_without_figures_still_have_provenance(tiny, capsys):
    assert main(["info", f"--weights={tiny}"]) == 0
    out = capsys.readouterr().out
    assert "weights tiny, SHA-256" in out
    assert "MAE" not in out


def test_the_region_detector_is_described_without_a_table_of_bone_ages(capsys):
    path = pathlib.Path(detector.__file__).with_name("regions.safetensors")
    assert main(["info", f"--weights={path}"]) == 0
    out = capsys.readouterr().out
    assert "weights regions, SHA-256" in out
    assert "MAE" not in out


def test_unknown_weights_are_an_error(capsys):
    assert main(["info", "--weights=fats"]) == 1
    assert "did you mean fast?" in capsys.readouterr().err
    assert main(["info", "--weights="]) == 1  # an unset variable of a script, not the default
    assert "there are no weights ''" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--json", "--weights"])
def test_the_help_names_the_flags(flag, capsys):
    with pytest.raises(SystemExit):
        main(["info", "--help"])
    assert flag in capsys.readouterr().out
