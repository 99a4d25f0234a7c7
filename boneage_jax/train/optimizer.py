"""The optimiser: AdamW with linear warm-up and gradient clipping, and the plateau rule that scales its updates."""

import optax
from ml_collections import ConfigDict

from boneage_jax.errors import BoneAgeError


def create(config: ConfigDict, *, steps_per_epoch: int, epochs: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) after clipping the gradient's global norm.

    Args:
        config: the section `optimizer`.
        steps_per_epoch: steps of one pass over the training split.
        epochs: of the whole training; the end of the cosine.
    """
    transforms = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    schedule = learning_rate(config, steps_per_epoch=steps_per_epoch, epochs=epochs)
    return optax.chain(*transforms, optax.adamw(schedule, weight_decay=config.weight_decay))


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


def plateau(config: ConfigDict) -> optax.GradientTransformationExtraArgs | None:
    """The rule that cuts the learning rate when the validation MAE has stopped falling; None when switched off.

    It stands outside of the chain because it sees one value per evaluation, not one per step.
    """
    if config.plateau.factor == 1:
        return None
    return optax.contrib.reduce_on_plateau(
        factor=config.plateau.factor,
        patience=config.plateau.patience,
        cooldown=config.plateau.cooldown,
        min_scale=config.plateau.min_scale,
    )
