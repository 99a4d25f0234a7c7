"""Facts that tests need about each family of trunks: one module per file of `boneage_jax/models`."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn


@dataclass(frozen=True)
class Family:
    """Facts that the tests of all models use.

    Attributes:
        sizes: by registered name, the trained parameters and the running statistics of the trunk for images of three
            channels; the module names the source.
        small: by registered name, options that leave fewer blocks or channels, so that tests compile in seconds. One
            entry per family is enough, one more for each variant that computes differently.
        golden: by file name in `golden/`, the trunk whose outputs match the original's.
        own: this project's own network, for which there is neither an original nor third-party weights.
        padded: padding keeps at least one pixel of any image.
        identity_at_start: the last scale of a block starts at zero, so the rest of it has no gradient at first.
        large: there is no small variant, and smaller images do not fit.
    """

    sizes: Mapping[str, tuple[int, int]]
    small: Mapping[str, Mapping[str, Any]]
    golden: Mapping[str, Callable[[], nn.Module]] = field(default_factory=dict)
    own: bool = False
    padded: bool = False
    identity_at_start: bool = False
    large: bool = False


# After the class, which the modules import from here.
FAMILIES: dict[str, Family] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").FAMILY
    for module in pkgutil.iter_modules(__path__)
}
OWN = {name for family in FAMILIES.values() if family.own for name in family.sizes}
