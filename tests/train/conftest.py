"""One cache of prepared phantoms for the whole session."""

import pytest
from ml_collections import ConfigDict

from boneage_jax.train.experiment import load_data
from tests.train.tiny_run import get_config


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The folder with the prepared phantoms."""
    folder = tmp_path_factory.mktemp("cache")
    config = get_config()
    config.data.cache = str(folder)
    load_data(config)
    return folder


@pytest.fixture
def config(cache) -> ConfigDict:
    """A tiny run's configuration; tests may change it."""
    config = get_config()
    config.data.cache = str(cache)
    return config
