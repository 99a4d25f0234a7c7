from ml_collections import ConfigDict

from boneage_jax.data import rsna
from boneage_jax.train.experiment import load_data
from tests.data import rsna_forms
from tests.train.tiny_run import get_config


def test_only_the_official_labels_of_rsna_indicate_hospitals(tmp_path, monkeypatch):
    rsna_forms.official(tmp_path / "data")
    config = get_config()
    config.data.name, config.data.dir, config.data.options = "rsna_bone_age", str(tmp_path / "data"), ConfigDict()
    config.data.cache = str(tmp_path / "cache")

    assert {name for split in load_data(config).values() for name in split.hospital} == {""}  # of a clinic
    monkeypatch.setattr(rsna, "is_official", lambda _: True)
    assert {name for split in load_data(config).values() for name in split.hospital} == {"Stanford", "Colorado"}


def test_phantoms_have_no_hospital(cache, config):
    assert {name for split in load_data(config).values() for name in split.hospital} == {""}
