"""The optimiser: AdamW with linear warm-up and gradient clipping, and the plateau rule that scales its updates.

For fine-tuning, the learning rate can decrease with a trunk layer's distance from the head, and layers can be frozen.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from boneage_jax.errors import BoneAgeError


def create(
    config: ConfigDict, *, steps_per_epoch: int, epochs: int, trunk_layers: Sequence[str] = ()
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) after clipping the gradient's global norm.

    Weight decay applies to kernels only: biases and normalisation scales are not a source of overfitting.
    Frozen parameters are excluded from the gradient's norm and take no optimiser memory.

    Args:
        config: the section `optimizer`.
        steps_per_epoch: steps of one pass over the training split.
        epochs: of the whole training; the cosine ends with the last one.
        trunk_layers: names of the trunk's layers in order from the image to the head, needed for `layer_decay`.

    Raises:
        BoneAgeError: an invalid value; on `init`, a frozen parameter that does not exist.
    """
    transforms = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    schedule = learning_rate(config, steps_per_epoch=steps_per_epoch, epochs=epochs)
    transforms.append(optax.adamw(schedule, weight_decay=config.weight_decay, mask=_kernels))
    if config.layer_decay != 1:
        transforms.append(_slower_by_layer(config.layer_decay, trunk_layers))
    whole = optax.chain(*transforms)
    if not config.freeze:
        return whole
    return optax.partition({"train": whole, "freeze": optax.set_to_zero()}, partial(_labels, config.freeze))


def learning_rate(config: ConfigDict, *, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 over the warm-up, then constant or a half cosine down to 0."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    total = epochs * steps_per_epoch
    if config.schedule == "constant":
        after = optax.constant_schedule(config.learning_rate)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.learning_rate, max(total - warmup, 1))
    else:
        raise BoneAgeError(f'optimizer.schedule is {config.schedule!r}, expected "constant" or "cosine"')
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup), after], [warmup])


def _kernels(params: Any) -> Any:
    """True for every kernel of a convolution or dense layer, False for the other parameters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] == "kernel", params)


def _slower_by_layer(decay: float, trunk_layers: Sequence[str]) -> optax.GradientTransformation:
    """Multiplies updates by decay^depth: depth 0 for the head, 1 for the trunk's last layer and so on to the image.

    A normalisation (`<layer>_bn`, `<layer>_norm`) has the depth of its layer (`<layer>`, `<layer>_conv`).
    """
    if not 0 < decay <= 1:
        raise BoneAgeError(f"optimizer.layer_decay is {decay}, expected above 0 to 1")
    layers = list(dict.fromkeys(map(_layer, trunk_layers)))
    factors = {layer: decay ** (len(layers) - i) for i, layer in enumerate(layers)}

    def scaled(path: Any, update: jax.Array) -> jax.Array:
        part, layer = _names(path)[:2]
        return update * factors[_layer(layer)] if part == "trunk" else update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))


def _layer(name: str) -> str:
    """The layer that a module of the trunk belongs to."""
    return name.removesuffix("_bn").removesuffix("_norm").removesuffix("_conv")


def _labels(frozen: Sequence[str], params: Any) -> Any:
    """Labels parameters under a path in `frozen`, such as "trunk/block1", with "freeze" and the others with "train"."""
    under = {path: tuple(path.split("/")) for path in frozen}
    paths = list(traverse_util.flatten_dict(params))
    for path, parts in under.items():
        if not any(names[: len(parts)] == parts for names in paths):
            known = sorted({"/".join(names[:count]) for names in paths for count in (1, 2)})
            raise BoneAgeError(f"optimizer.freeze names {path!r}, which has no parameters; known: {', '.join(known)}")

    def label(path: tuple[Any, ...], _: Any) -> str:
        return "freeze" if any(path[: len(parts)] == parts for parts in under.values()) else "train"

    return traverse_util.path_aware_map(label, params)


def _names(path: Any) -> list[str]:
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")


def plateau(config: ConfigDict) -> optax.GradientTransformationExtraArgs | None:
    """The rule that cuts the learning rate when the validation MAE has stopped falling; None when switched off.

    It is not part of the chain because it receives one value per evaluation, not one per step.
    """
    if config.plateau.factor == 1:
        return None
    return optax.contrib.reduce_on_plateau(
        factor=config.plateau.factor,
        patience=config.plateau.patience,
        cooldown=config.plateau.cooldown,
        min_scale=config.plateau.min_scale,
    )
