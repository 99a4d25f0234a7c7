"""Writes the golden arrays beside it, from the original implementations: Keras' Xception, timm's ConvMixer.

Run from the repository root, with `.[parity]`, torch and timm installed:

    KERAS_BACKEND=jax python tests/models/golden/make_golden.py

The weights and the image are drawn from fixed seeds (`originals.drawn`), so only outputs are stored: of each
stage the channels that `kept` picks.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import originals  # noqa: E402

SIZE = (77, 75)
CONVMIXER = {"dim": 24, "depth": 2, "kernel_size": 5, "patch_size": 4}


def kept(stage: np.ndarray) -> np.ndarray:
    """About eight channels of a stage."""
    return stage[..., :: max(1, stage.shape[-1] // 8)]


def xception() -> originals.Stages:
    import keras
    from flax import traverse_util

    from boneage_jax.models.xception import Xception

    model = keras.applications.Xception(weights=None, include_top=False, input_shape=(*SIZE, 3))
    for path, value in traverse_util.flatten_dict(originals.filled(Xception(), originals.drawn)).items():
        weight = originals.keras_weight(model, path)
        weight.assign(value.reshape(weight.shape))
    return originals.keras_stages(model, originals.image(*SIZE))


def convmixer() -> originals.Stages:
    import torch
    from flax import traverse_util
    from timm.models.convmixer import ConvMixer as Original

    from boneage_jax.models.convmixer import ConvMixer

    model = Original(**CONVMIXER).eval()
    flat = traverse_util.flatten_dict(originals.filled(ConvMixer(**CONVMIXER), originals.drawn))
    state = {originals.torch_name(path): torch.from_numpy(originals.as_torch(value)) for path, value in flat.items()}
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("head.") or key.endswith("num_batches_tracked") for key in missing.missing_keys)
    return originals.torch_stages(model, originals.image(*SIZE))


if __name__ == "__main__":
    for make in (xception, convmixer):
        arrays = {name: kept(stage) for name, stage in make().items()}
        np.savez_compressed(HERE / f"{make.__name__}.npz", **arrays)
