"""The training loop: from a configuration to a best checkpoint and its evaluation.

A run is a function of its configuration: if it is killed at any moment and started again with the same command, it
resumes from its newest checkpoint and ends with bit-identical parameters.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from boneage_jax import config as configuration
from boneage_jax import data, locks, program
from boneage_jax.atomic_files import storage_errors
from boneage_jax.data import pipeline
from boneage_jax.data.augment import Augmentation
from boneage_jax.data.splits import STANFORD
from boneage_jax.data.stream import Batches
from boneage_jax.errors import BoneAgeError
from boneage_jax.train import losses, optimizer, parallel, placement
from boneage_jax.train.checkpoint import Store, check_path, hidden_writer_tracebacks
from boneage_jax.train.evaluation import chosen_split, evaluate_checkpoint
from boneage_jax.train.experiment import Experiment, Statistics, check_preprocessing, load_data, predict
from boneage_jax.train.log import MetricsLog, describe_run
from boneage_jax.train.state import TrainState


class StoppedError(BoneAgeError):
    """A signal stopped the run, which saved its current step first."""

    def __init__(self, step: int, number: int):
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} at step {step}, which is saved; run the same command to resume from there")
        self.exit_status = program.exit_status(number)


@dataclasses.dataclass(frozen=True)
class Progress:
    """Results of the evaluations so far; saved with every checkpoint."""

    evaluated: int = 0  # step of the last evaluation
    best_mae: float = math.inf  # months
    best_step: int = 0
    without_improvement: int = 0  # evaluations


@dataclasses.dataclass
class Run:
    """The parts of one training run that the loop's functions share."""

    config: ConfigDict
    experiment: Experiment
    splits: dict[str, data.Split]
    sources: dict[str, placement.Source]
    latest: Store
    best: Store
    log: MetricsLog
    infer: Callable[[Any, Any], Any]
    judge: Callable[..., Any] | None  # the plateau rule; None when it is switched off
    steps_per_epoch: int
    images: dict[str, str]  # of `_fingerprints`

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, unless it stops early."""
        return self.steps_per_epoch * self.config.train.epochs


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains until `train.epochs` or early stopping, then evaluates the best checkpoint.

    Args:
        config: from a file in `configs/`.
        workdir: created if missing; a run of the same configuration in it is resumed.

    Returns:
        The result of `evaluate.report.write` for the best checkpoint.

    Raises:
        BoneAgeError: bad data or configuration, a loss that is not finite, a damaged checkpoint, a full disk, another
            process that trains in `workdir`.
        StoppedError: SIGTERM or SIGINT was received; everything is saved.
    """
    configuration.check(config)
    losses.create(config.train.loss, label_mean=0.0, label_std=1.0, label_sigma=config.train.label_sigma)
    Augmentation(**config.augment.to_dict())
    parallel.check_batch_size("train.batch_size", config.train.batch_size)
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size)
    check_path(workdir.resolve())
    _check_same_run(config, workdir)
    splits = load_data(config)
    chosen_split(config, splits)
    experiment = Experiment.create(config, Statistics.of(splits["train"]))
    with _alone(workdir):
        _check_same_run(config, workdir)  # again: another process may have started a run in the meantime
        _train_until_done(experiment, splits, workdir)
        return evaluate_checkpoint(workdir, config, splits=splits)


def _train_until_done(experiment: Experiment, splits: dict[str, data.Split], workdir: Path) -> None:
    """Trains, resuming from a checkpoint in `workdir` if it has one."""
    config = experiment.config
    if config.data.stanford_copies > 1 and STANFORD not in splits["train"].hospital:
        logging.info("No training image is known to be from Stanford: data.stanford_copies has no effect.")
    train = data.Repeated(splits["train"], STANFORD, config.data.stanford_copies)
    sources = {
        "train": placement.create(config.data.placement, train),
        "validation": placement.create(config.data.placement, splits["validation"]),
    }
    steps_per_epoch = pipeline.steps_per_epoch(train, config.train.batch_size)
    with contextlib.ExitStack() as stack:
        stack.enter_context(hidden_writer_tracebacks())
        latest = stack.enter_context(contextlib.closing(Store(workdir / "checkpoints/latest")))
        best = stack.enter_context(contextlib.closing(Store(workdir / "checkpoints/best", keep=1)))
        transform, fresh = experiment.fresh_state(steps_per_epoch, pretrained=not latest.steps())
        images = _fingerprints(splits)
        state, progress = _resume(latest, best, fresh, config.checkpoint.step, images)
        describe_run(workdir, config)
        log = stack.enter_context(contextlib.closing(MetricsLog(workdir, after_step=int(state.step))))
        # Compiled once: if run eagerly, its branches would be compiled again at each evaluation.
        judge = jax.jit(experiment.plateau.update) if experiment.plateau else None
        infer = experiment.compile_inference()
        run = Run(config, experiment, splits, sources, latest, best, log, infer, judge, steps_per_epoch, images)
        _train(run, parallel.replicate(state), progress, experiment.compile_train_step(transform))


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of the work directory; several processes of one run share the first one's lock."""
    if jax.process_index() != 0:
        yield
        return

    def refuse(holder: str) -> None:
        raise BoneAgeError(f"{workdir} is in use by {holder}; wait until it has ended, or choose another --workdir")

    with contextlib.ExitStack() as stack:
        with storage_errors(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.hold(workdir / ".lock", refuse))
        yield


def _check_same_run(config: ConfigDict, workdir: Path) -> None:
    """Raises BoneAgeError if the folder has a run with other settings that has saved a checkpoint."""
    path = workdir / "config.json"
    if path.exists() and any(each.name.isdecimal() for each in workdir.glob("checkpoints/*/*")):
        stored = configuration.from_json(path.read_bytes(), path)
        if different := configuration.differences(stored, config):
            raise BoneAgeError(
                f"{workdir} contains a run with another configuration ({'; '.join(different)}); "
                "choose another --workdir, or delete it"
            )


def _fingerprints(splits: dict[str, data.Split]) -> dict[str, str]:
    """Number of images and checksum of ids, sexes and ages, for each split that influences the training."""
    found = {}
    for name in ("train", "validation"):
        split = splits[name]
        rows = zip(split.ids, split.sex.tolist(), split.age.tolist(), strict=True)
        digest = hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()
        found[name] = f"{len(split)} images, {digest}"
    return found


def _resume(
    latest: Store, best: Store, fresh: TrainState, step: int, images: dict[str, str]
) -> tuple[TrainState, Progress]:
    """The state and progress to start from: a checkpoint's, or fresh ones.

    Raises:
        BoneAgeError: there is no checkpoint of this step, it is damaged, needs another version of the preprocessing or
            was trained on other images or labels.
    """
    if not latest.steps():
        if step >= 0:
            raise BoneAgeError(f"checkpoint.step is {step}, but {latest.directory} contains no checkpoint")
        return fresh, Progress()
    restored = latest.restore(fresh, None if step < 0 else step)
    check_preprocessing(restored.about, latest.directory)
    before = restored.about.get("images", images)  # checkpoints of earlier versions do not list them
    for name in images:
        if before[name] != images[name]:
            raise BoneAgeError(
                f"the {name} images or their labels are not those that this run started with "
                f"({before[name].partition(',')[0]} then, {images[name].partition(',')[0]} now); restore them, or "
                "choose another --workdir"
            )
    progress = Progress(**restored.about["progress"])
    if step >= 0:
        latest.discard_after(step)
        best.discard_after(progress.best_step)
    # A run that was killed may have saved a later best checkpoint, which it will reach again.
    if not any(saved == progress.best_step or saved > restored.step for saved in best.steps()):
        progress = dataclasses.replace(progress, best_mae=math.inf, without_improvement=0)
    logging.info("Resuming from step %d.", restored.step)
    return restored.state, progress


def _train(run: Run, state: TrainState, progress: Progress, train_step: Callable[[Any, Any], Any]) -> None:
    """Alternates training steps and evaluations until the last epoch or early stopping."""
    settings = run.config.train
    step = int(state.step)
    window = _Window(run, _plateau_scale(state))
    with _StopSignals() as stop, _batches(run, step) as batches, _bar(run, step) as bar:
        while True:
            if step and step % run.steps_per_epoch == 0 and progress.evaluated < step:
                window.flush(bar)
                state, progress = _evaluate(run, state, progress, step)
                window.restart(_plateau_scale(state))
            patience = settings.early_stopping
            if step >= run.total_steps or 0 < patience <= progress.without_improvement:
                if not run.best.steps():  # it was damaged and deleted after the last evaluation
                    run.best.save(step, state, _about(run, progress))
                return
            if number := stop.agreed(step, settings.log_every):
                window.flush(bar)
                _save(run, state, progress, step)
                run.latest.wait()
                raise StoppedError(step, number)
            batch = next(batches)
            state, metrics = train_step(state, run.sources["train"].lay_out(batch))
            step += 1
            window.add(step, batch["index"], metrics)
            bar.update()
            if step % settings.log_every == 0:
                window.flush(bar)
            if settings.checkpoint_every and step % settings.checkpoint_every == 0:
                window.flush(bar)
                if step % run.steps_per_epoch:
                    _save(run, state, progress, step)


def _evaluate(run: Run, state: TrainState, progress: Progress, step: int) -> tuple[TrainState, Progress]:
    """Validates once: updates the plateau rule and early stopping, saves the best and latest checkpoints."""
    split, source = run.splits["validation"], run.sources["validation"]
    started = time.perf_counter()
    with source.evaluation_batches(run.experiment.evaluation_batching(workers=0)) as batches:
        months = predict(run.infer, state.variables, batches, len(split), source.lay_out)["months"]
    mae = float(np.abs(months - split.age).mean())
    if not math.isfinite(mae):
        raise BoneAgeError(f"the validation MAE at step {step} is not finite; lower optimizer.learning_rate")
    improved = mae < progress.best_mae
    progress = Progress(
        evaluated=step,
        best_mae=mae if improved else progress.best_mae,
        best_step=step if improved else progress.best_step,
        without_improvement=0 if improved else progress.without_improvement + 1,
    )
    state = _judge_plateau(run, state, mae)
    values = {"mae": mae, "best_mae": progress.best_mae, "learning_rate_scale": _plateau_scale(state)}
    run.log.write(step, "validation", values | {"seconds": time.perf_counter() - started})
    tqdm.write(
        f"epoch {step // run.steps_per_epoch:3d}: validation MAE {mae:.2f} months (best {progress.best_mae:.2f})"
    )
    if improved:
        run.best.save(step, state, _about(run, progress))
        run.best.wait()  # "latest" must never reference an unsaved "best" checkpoint
    _save(run, state, progress, step)
    return state, progress


def _judge_plateau(run: Run, state: TrainState, mae: float) -> TrainState:
    if run.judge is None:
        return state
    _, plateau = run.judge({}, parallel.to_host(state.plateau), value=np.float32(mae))
    return state.replace(plateau=parallel.replicate(plateau))


def _plateau_scale(state: TrainState) -> float:
    return 1.0 if state.plateau is None else float(state.plateau.scale)


def _about(run: Run, progress: Progress) -> dict[str, Any]:
    return {**run.experiment.about(), "images": run.images, "progress": dataclasses.asdict(progress)}


def _save(run: Run, state: TrainState, progress: Progress, step: int) -> None:
    run.latest.save(step, state, _about(run, progress))


class _Window:
    """Metrics of the steps since the last log line; they stay on the device until they are needed."""

    def __init__(self, run: Run, scale: float):
        self._run = run
        self._schedule = optimizer.learning_rate(
            run.config.optimizer, steps_per_epoch=run.steps_per_epoch, epochs=run.config.train.epochs
        )
        self._pending: list[tuple[int, np.ndarray, dict[str, jax.Array]]] = []
        self.restart(scale)

    def restart(self, scale: float) -> None:
        """Starts the clock again, with the plateau rule's scale of the learning rate."""
        self._scale = scale
        self._started = time.perf_counter()

    def add(self, step: int, index: np.ndarray, metrics: dict[str, jax.Array]) -> None:
        """Keeps one step's metrics and the indices of its images."""
        self._pending.append((step, index, metrics))

    def flush(self, bar: "tqdm[Any]") -> None:
        """Fetches, checks and writes the pending metrics.

        Raises:
            BoneAgeError: a loss or gradient was not finite; the message names the step and the images.
        """
        if not self._pending:
            return
        values = [{k: float(v) for k, v in parallel.to_host(m).items()} for _, _, m in self._pending]
        for (step, index, _), found in zip(self._pending, values, strict=True):
            if not all(map(math.isfinite, found.values())):
                ids = ", ".join(self._run.splits["train"].ids[i] for i in parallel.gather_local(index))
                raise BoneAgeError(
                    f"loss {found['loss']}, gradient norm {found['gradient_norm']} at step {step}, images {ids}: not "
                    "finite, and not saved; check these images, or lower optimizer.learning_rate"
                )
        last = self._pending[-1][0]
        rate = len(values) * self._run.config.train.batch_size / (time.perf_counter() - self._started)
        mean = {key: float(np.mean([found[key] for found in values])) for key in values[0]}
        mean |= {"images_per_second": rate, "learning_rate": self._scale * float(self._schedule(last - 1))}
        self._run.log.write(last, "train", mean)
        bar.set_postfix_str(f"loss {mean['loss']:.4f}, {rate:.1f} images/s")
        self._pending = []
        self._started = time.perf_counter()


class _StopSignals:
    """SIGTERM and SIGINT request a stop at the next step; a second signal goes to the previous handler."""

    def __enter__(self) -> "_StopSignals":
        self._asked = 0
        self._before = {s: signal.signal(s, self._ask) for s in program.STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self._asked = number
        signal.signal(number, self._before[signal.Signals(number)])

    def agreed(self, step: int, every: int) -> int:
        """The signal on which all processes stop now, or 0; several processes synchronise only every `every` steps."""
        if jax.process_count() == 1:
            return self._asked
        return int(parallel.gather_local(np.array([self._asked])).max()) if step % every == 0 else 0


def _batches(run: Run, step: int) -> Batches:
    return run.sources["train"].train_batches(run.experiment.training_batching(start_step=step))


def _bar(run: Run, step: int) -> "tqdm[Any]":
    hidden = jax.process_index() != 0
    return tqdm(total=run.total_steps, initial=step, unit="step", desc="training", disable=hidden, mininterval=1)
