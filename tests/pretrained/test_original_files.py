"""Files written by Keras, timm and torchvision, loaded into our trunks: `pytest -m parity`."""

import importlib
import os
import pkgutil

import jax
import numpy as np
import pytest

from boneage_jax.models.efficientnet import EfficientNet
from boneage_jax.models.heads.regression import Regression
from boneage_jax.models.network import TRUNKS, Network
from boneage_jax.models.xception import Xception
from boneage_jax.pretrained import imagenet, names, start_from
from boneage_jax.pretrained.assign import assign
from boneage_jax.pretrained.formats import read
from tests.parity import comparison, originals
from tests.trees import structure

os.environ["KERAS_BACKEND"] = "jax"
pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
FORMATS = {"keras": (".weights.h5", ".h5", ".keras"), "torch": (".safetensors", ".pth")}


def cases() -> list[comparison.Case]:
    found = []
    for module in pkgutil.iter_modules(originals.__path__):
        found += cases_of(module.name)
    return found


def cases_of(family: str) -> list[comparison.Case]:
    return importlib.import_module(f"tests.parity.originals.{family}").CASES


def files(source: str, model, folder):
    """Saves the model in every format of its framework."""
    for suffix in FORMATS[source]:
        path = folder / f"weights{suffix}"
        if suffix == ".weights.h5":
            model.save_weights(path)
        elif source == "keras":
            model.save(path)
        elif suffix == ".safetensors":
            importlib.import_module("safetensors.torch").save_file(model.state_dict(), path)
        else:
            importlib.import_module("torch").save(model.state_dict(), path)
        yield path


def started(trunk, path, channels=3, name="trunk"):
    """The trunk's variables loaded from a file, in place of zeros."""
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), names.shapes(trunk, channels=channels))
    variables = start_from(
        path, name, Network(trunk, Regression()), {kind: {"trunk": tree} for kind, tree in shapes.items()}
    )
    return {kind: tree["trunk"] for kind, tree in variables.items()}


def without_classifier(case, model):
    """The trunk's variables with the weights of a PyTorch classifier, by the names of the parity comparison."""
    table = case.names(case.trunk())
    arrays = {key: value for key, value in comparison.torch_arrays(model).items() if key in {*table.values()}}
    return assign(arrays, table, names.shapes(case.trunk()), case.source)


def assert_same(found, expected):
    assert structure(found) == structure(expected)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_format_gives_the_weights_of_the_parity_comparison(case, tmp_path):
    size = case.sizes[1]
    model = case.original(size, size)
    comparison.shake_normalisation(case, model)
    expected = comparison.ours(case, model)
    for path in files(case.source, model, tmp_path):
        assert_same(started(case.trunk(), path), expected)


@pytest.mark.parametrize("name", ["xception", "convmixer"])
def test_outputs_after_loading_match_the_original(name, tmp_path):
    case = cases_of(name)[0]
    size = case.sizes[1]
    model = case.original(size, size)
    comparison.shake_normalisation(case, model)
    pixels = comparison.image(size, size)
    expected = case.stages(model, pixels)["whole"]
    infer = jax.jit(lambda variables, pixels: case.trunk().apply(variables, pixels, train=False))
    for path in files(case.source, model, tmp_path):
        error = comparison.relative_error(infer(started(case.trunk(), path), pixels), expected)
        print(f"{case!s:24} {path.suffix:12} whole {error:.1e}")
        assert error <= 1e-4, path


def test_a_compiled_keras_classifier_is_loaded_without_its_top(tmp_path):
    import keras

    keras.backend.clear_session()
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()  # so that its layers are numbered from 1
    whole = keras.applications.Xception(weights=None, classes=3, input_shape=(71, 71, 3))
    whole.compile(optimizer="adam", loss="mse")
    found = []
    for path in files("keras", whole, tmp_path):
        assert "predictions/kernel" in read(path)[1]
        found.append(started(Xception(), path))
        assert_same(found[-1], found[0])
    weights = {f"{layer.name}/{w.name}": np.asarray(w.value) for layer in whole.layers for w in layer.weights}
    assert "conv2d_1/kernel" in weights
    assert "conv2d_4/kernel" in weights
    np.testing.assert_array_equal(found[0]["params"]["block13"]["shortcut"]["kernel"], weights["conv2d_4/kernel"])


def test_a_model_nested_in_a_keras_model_is_found(tmp_path):
    import keras

    keras.backend.clear_session()
    inner = keras.applications.Xception(weights=None, include_top=False, input_shape=(71, 71, 3))
    outer = keras.Sequential([keras.Input((71, 71, 3)), inner, keras.layers.GlobalAveragePooling2D()])
    for path in files("keras", outer, tmp_path):
        kernel = started(Xception(), path)["params"]["block1_conv1"]["kernel"]
        np.testing.assert_array_equal(kernel, np.asarray(inner.get_layer("block1_conv1").kernel.value))


def test_the_input_normalisation_of_kerass_efficientnet_is_ignored(tmp_path):
    import keras

    keras.backend.clear_session()
    model = keras.applications.EfficientNetB0(weights=None, classes=3, input_shape=(32, 32, 3))
    for path in files("keras", model, tmp_path):
        assert "normalization/mean" in read(path)[1]
        kernel = started(EfficientNet(variant="b0"), path, channels=1)["params"]["stem_conv"]["kernel"]
        full = np.asarray(model.get_layer("stem_conv").kernel.value)
        np.testing.assert_array_equal(kernel, full.sum(axis=2, keepdims=True))


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("convmixer", "convmixer_768_32"),
        ("convnextv2", "convnextv2_atto"),
        ("efficientnet", "efficientnet_b0"),
        ("efficientnet", "tf_efficientnet_lite0"),
        ("inception_v3", "inception_v3"),
        ("resnet", "resnet50"),
    ],
)
def test_timms_classifiers_are_loaded_without_their_heads(family, name, tmp_path):
    model = comparison.timm().create_model(name)
    case = next(c for c in cases_of(family) if c.source == "torch" and c.name in (family, name))
    comparison.shake_normalisation(case, model)
    expected = without_classifier(case, model)
    for path in files(case.source, model, tmp_path):
        assert len(jax.tree.leaves(expected)) < len(read(path)[1])
        assert_same(started(case.trunk(), path), expected)


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "efficientnet_b0"])
def test_torchvisions_classifiers_are_loaded(name, tmp_path):
    models = pytest.importorskip("torchvision").models
    model = models.inception_v3(init_weights=False) if name == "inception_v3" else getattr(models, name)()
    family = {"resnet50": "resnet", "efficientnet_b0": "efficientnet"}.get(name, name)
    known = {case.name: case for case in cases_of(family) if case.source == "torch"}
    case = known.get(f"torchvision_{name}", known[name])
    comparison.shake_normalisation(case, model)
    expected = without_classifier(case, model)
    for path in files(case.source, model, tmp_path):
        assert_same(started(case.trunk(), path), expected)


@pytest.mark.parametrize("name", imagenet.PACKAGES)
def test_imagenet_weights_give_the_outputs_of_their_package(name):
    package, torch = pytest.importorskip("efficientnet_lite_pytorch"), pytest.importorskip("torch")
    model = package.EfficientNet.from_name(name.replace("_", "-"), image_size=(97, 97))
    model.load_state_dict(torch.load(imagenet.find(name), weights_only=True))
    pixels = comparison.image(97, 97)
    with torch.no_grad():
        expected = model.eval().extract_features(torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
    trunk = TRUNKS[name]()
    infer = jax.jit(lambda variables, pixels: trunk.apply(variables, pixels, train=False))
    found = infer(started(trunk, "imagenet", name=name), pixels)
    assert comparison.relative_error(found, expected.numpy().transpose(0, 2, 3, 1)) <= 1e-4


def test_a_grey_image_gives_the_output_of_its_rgb_copy(tmp_path):
    case = cases_of("convmixer")[1]
    model = case.original(61, 61)
    path = next(files(case.source, model, tmp_path))
    grey = comparison.image(61, 61)[..., :1]
    expected = case.stages(model, np.repeat(grey, 3, axis=-1))["whole"]
    trunk = case.trunk()
    infer = jax.jit(lambda variables, pixels: trunk.apply(variables, pixels, train=False))
    found = infer(started(trunk, path, channels=1), grey)
    assert comparison.relative_error(found, expected) <= 1e-4
