"""Builds the parts of a run from a configuration: data, preprocessing, network, optimiser, compiled functions."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from boneage_jax import config as configuration
from boneage_jax import data, models
from boneage_jax.cache import folder as cache_folder
from boneage_jax.data import rsna
from boneage_jax.data.augment import Augmentation
from boneage_jax.data.stream import Batching, TrainingBatching
from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained import start_from
from boneage_jax.train import losses, optimizer, parallel, state, step

AHEAD = 4  # batches that inference may lag behind the pipeline


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that training, evaluation and the benchmark share."""

    config: ConfigDict
    preprocessing: data.Preprocessing
    statistics: "Statistics"
    network: models.Network
    plateau: optax.GradientTransformationExtraArgs | None  # the rule; None when it is switched off

    @classmethod
    def create(cls, config: ConfigDict, statistics: "Statistics") -> "Experiment":
        """Builds the network for a training split with these statistics.

        Raises:
            BoneAgeError: the configuration names unknown parts, or parts that do not fit together.
        """
        prepare = preprocessing(config)
        prepare.check_views(config.evaluate.views)
        network = describe_network(config, statistics).network(
            axis_name=parallel.AXIS if config.train.sync_batch_norm else None, remat=config.model.remat
        )
        return cls(config, prepare, statistics, network, optimizer.plateau(config.optimizer))

    @classmethod
    def from_about(cls, about: dict[str, Any], where: Path | str) -> "Experiment":
        """Rebuilds the experiment from the metadata of a checkpoint.

        Raises:
            BoneAgeError: the checkpoint needs another version of the configuration or of the preprocessing.
        """
        config = configuration.from_json(about["config"], where)
        check_preprocessing(about, where)
        return cls.create(config, Statistics(**about["statistics"]))

    def about(self) -> dict[str, Any]:
        """The metadata that a checkpoint must store for `from_about` to rebuild the experiment."""
        return {
            "config": configuration.to_json(self.config),
            "preprocessing": self.preprocessing.to_dict(),
            "statistics": dataclasses.asdict(self.statistics),
        }

    def on_data_of(self, config: ConfigDict) -> "Experiment":
        """The same network with the sections `data` and `evaluate` of `config`, except for `data.inputs`."""
        stored = self.config.copy_and_resolve_references().unlock()
        inputs = stored.data.inputs
        given = config.copy_and_resolve_references().unlock()
        stored.data, stored.evaluate = given.data, given.evaluate
        stored.data.inputs = inputs  # the network has been trained with these
        return dataclasses.replace(self, config=stored)

    def training_batching(self, *, start_step: int = 0) -> TrainingBatching:
        """Settings of this process's training batches, starting at step `start_step`."""
        return TrainingBatching(
            batch_size=self.config.train.batch_size,
            workers=self.config.data.workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            seed=self.config.seed,
            augmentation=Augmentation(**self.config.augment.to_dict()),
            crop=self.preprocessing.crop,
            start_step=start_step,
        )

    def evaluation_batching(self, *, workers: int) -> Batching:
        """Settings of this process's evaluation batches."""
        return Batching(
            batch_size=self.config.evaluate.batch_size,
            workers=workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    @property
    def loss(self) -> losses.Loss:
        """The training loss, one value per image."""
        return losses.create(
            self.config.train.loss,
            label_mean=self.statistics.label_mean,
            label_std=self.statistics.label_std,
            label_sigma=self.config.train.label_sigma,
        )

    def fresh_state(self, steps_per_epoch: int, *, pretrained: bool = False) -> tuple[Any, state.TrainState]:
        """The optimiser and a state with parameters initialised from the seed.

        With `pretrained`, variables are loaded from `model.init_from`, if it is set (see `pretrained.start_from`).
        """
        settings, init_from = self.config.optimizer, self.config.model.init_from
        size, channels = self.preprocessing.visible, self.preprocessing.channels
        image_shape = (size, size, channels)
        transform = optimizer.create(
            settings,
            steps_per_epoch=steps_per_epoch,
            epochs=self.config.train.epochs,
            trunk_layers=state.trunk_layers(self.network, image_shape) if settings.layer_decay != 1 else (),
        )
        fresh = state.create(
            self.network,
            transform,
            self.plateau,
            image_shape=image_shape,
            seed=self.config.seed,
            with_ema=settings.ema_decay > 0,
        )
        if pretrained and init_from:
            variables = {"params": fresh.params, "batch_stats": fresh.batch_stats}
            variables = start_from(init_from, self.config.model.name, self.network, variables)
            fresh = fresh.starting_from(variables)
        return transform, fresh

    def compile_train_step(self, transform: Any) -> Any:
        """Compiles the training step: `(state, batch split over the devices) -> (state, metrics)`."""
        function = step.make_train_step(
            self.network,
            self.preprocessing,
            transform,
            self.loss,
            seed=self.config.seed,
            ema_decay=self.config.optimizer.ema_decay,
        )
        return parallel.compile_step(function)

    def inference(self) -> Any:
        """The inference function before compilation: `(variables, batch) -> estimates`, see `step.make_inference`."""
        return step.make_inference(self.network, self.preprocessing, self.loss, self.config.evaluate.views)

    def compile_inference(self) -> Any:
        """Compiles inference: `(variables, batch split over the devices) -> estimates [devices, b]`."""
        return parallel.compile_inference(self.inference())


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of the training split that the network needs."""

    label_mean: float  # months
    label_std: float  # months
    inputs: Mapping[str, tuple[float, float]]  # mean and standard deviation of the further inputs that are numbers

    @classmethod
    def of(cls, train: data.Split) -> "Statistics":
        """Computes the statistics of a training split."""
        return cls(*data.label_statistics(train), data.input_statistics(train))


def check_preprocessing(about: Mapping[str, Any], where: Path | str) -> None:
    """Raises BoneAgeError if a checkpoint was trained with another version of the preprocessing."""
    try:
        data.Preprocessing.from_dict(about["preprocessing"])
    except BoneAgeError as error:
        raise BoneAgeError(f"{where} cannot be used: {error}; start again in another --workdir") from error


def preprocessing(config: ConfigDict) -> data.Preprocessing:
    """Builds the preprocessing from the section `preprocess`."""
    return data.Preprocessing.from_settings(config.preprocess.to_dict())


def describe_network(config: ConfigDict, statistics: Statistics) -> models.Description:
    """Describes the network by the section `model` and the statistics of its training split."""
    settings = config.model.to_dict()
    how = ("init_from", "remat")  # how the network is trained, not what it computes
    return models.Description(
        **{key: value for key, value in settings.items() if key not in how},
        inputs=network_inputs(config, statistics),
        label_mean=statistics.label_mean,
        label_std=statistics.label_std,
    )


def network_inputs(config: ConfigDict, statistics: Statistics) -> tuple[models.Input, ...]:
    """The section `data.inputs` as the network's further inputs."""
    specs = []
    for name, kind in sorted(config.data.inputs.items()):
        if kind == "number":
            mean, std = statistics.inputs[name]
            specs.append(models.Input(name, "number", mean=mean, std=std))
        elif kind == "keypoints":
            specs.append(models.Input(name, "heatmap"))
        else:
            specs.append(models.Input(name, "category", categories=tuple(kind)))
    return tuple(specs)


def load_data(config: ConfigDict) -> dict[str, data.Split]:
    """The splits that the section `data` names, prepared on first use.

    `Split.hospital` is "" unless the training labels are the official ones of RSNA: other ids indicate no hospital.
    """
    settings = config.data
    options = settings.options.to_dict()
    if settings.name == "rsna_bone_age":
        options["on_missing"] = settings.on_missing
    cache = settings.cache or cache_folder()
    inputs = {name: kind if isinstance(kind, str) else tuple(kind) for name, kind in settings.inputs.items()}
    options |= {key: settings[key] for key in ("keypoints", "fold") if settings[key]}
    splits = data.load(
        settings.name,
        settings.dir or None,
        preprocessing(config),
        cache=cache,
        inputs=inputs,
        limit=settings.limit,
        **options,
    )
    if settings.name == "rsna_bone_age" and not rsna.is_official(settings.dir):
        for split in splits.values():
            split.hospital = [""] * len(split)
    return splits


def predict(
    infer: Any,
    variables: Any,
    batches: Iterable[dict[str, Any]],
    count: int,
    lay_out: Callable[[dict[str, Any]], Any] = parallel.split,
) -> dict[str, np.ndarray]:
    """Predicts every image of a split once.

    Args:
        infer: from `Experiment.compile_inference`.
        variables: from `TrainState.variables`.
        batches: from `data.evaluation_batches`, of this process.
        count: images of the split.
        lay_out: arranges a batch as `infer` expects it, see `placement.Source`.

    Returns:
        The outputs of `infer` ("months" and "loss"; "std" and "parts" if the head predicts them), each [count, ...], in
        the order of the split, on every process.
    """
    pending: list[tuple[np.ndarray, dict[str, jax.Array]]] = []
    for batch in batches:
        pending.append((batch["index"], infer(variables, lay_out(batch))))
        if len(pending) > AHEAD:  # images wait in memory until they have been predicted
            jax.block_until_ready(pending[-AHEAD][1])
    found: dict[str, np.ndarray] = {}
    for index, values in pending:
        everywhere = parallel.gather_local(index)
        for name, array in values.items():
            rows = parallel.gather(array)
            whole = found.setdefault(name, np.full((count, *rows.shape[1:]), np.nan, np.float32))
            whole[everywhere[everywhere >= 0]] = rows[everywhere >= 0]
    return found
