"""Names that `boneage_jax` exports are imported at their first use."""

import subprocess
import sys

import pytest

import boneage_jax
from boneage_jax.errors import BoneAgeError
from boneage_jax.predict.heatmap import Maps
from boneage_jax.predict.items import Item
from boneage_jax.predict.prediction import Prediction, RefusedImageError
from boneage_jax.predict.predictor import Predictor


def test_exported_names_are_those_of_the_modules():
    exported = (boneage_jax.BoneAgeError, boneage_jax.Item, boneage_jax.Maps, boneage_jax.Prediction)
    assert exported == (BoneAgeError, Item, Maps, Prediction)
    assert (boneage_jax.Predictor, boneage_jax.RefusedImageError) == (Predictor, RefusedImageError)
    assert set(boneage_jax.__all__) <= set(dir(boneage_jax))


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'boneage_jax' has no attribute 'Predicter'"):
        _ = boneage_jax.Predicter


def test_importing_the_package_does_not_import_jax():
    program = "import sys, boneage_jax; boneage_jax.BoneAgeError; print('jax' in sys.modules or 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
