import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from boneage_jax import config as configuration
from boneage_jax.config import base
from boneage_jax.errors import BoneAgeError
from boneage_jax.train import loop
from boneage_jax.train.checkpoint import Store
from boneage_jax.train.evaluation import evaluate_checkpoint, predict_split, restore_best, write_report
from boneage_jax.train.experiment import Experiment, load_data
from boneage_jax.train.log import MetricsLog
from tests.train.runs import assert_same_to_the_bit, newest, records
from tests.train.tiny_run import STEPS_PER_EPOCH, get_config

LAST = 2 * STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """A work directory after two uninterrupted epochs, and what the run returned."""
    config = get_config()
    config.data.cache = str(cache)
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return workdir, loop.train_and_evaluate(config, workdir)


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of that run which a test may modify."""
    return shutil.copytree(trained[0], tmp_path / "copied")


def test_a_run_writes_its_report_configuration_and_environment(trained, config):
    workdir, result = trained
    report = workdir / "evaluate/validation"

    assert json.loads((report / "metrics.json").read_text()) == result
    assert len(list(csv.DictReader((report / "predictions.csv").read_text().splitlines()))) == 8
    for name in ("scatter.png", "bland_altman.png"):
        assert (report / name).read_bytes().startswith(b"\x89PNG")
    stored = json.loads((workdir / "config.json").read_text())
    assert stored == json.loads(configuration.to_json(config))
    about = json.loads((workdir / "run.json").read_text())
    assert about["packages"]["jax"] == jax.__version__
    assert about["devices"] == 4
    assert list((workdir / "tensorboard").iterdir())


def test_stanford_copies_lengthen_an_epoch(cache, tmp_path, monkeypatch):
    config = get_config()
    config.data.cache = str(cache)
    config.data.stanford_copies, config.train.epochs = 3, 1

    def with_hospitals(config):
        splits = load_data(config)
        splits["train"].hospital = ["Stanford"] * 8 + ["Colorado"] * 16
        return splits

    monkeypatch.setattr(loop, "load_data", with_hospitals)
    loop.train_and_evaluate(config, tmp_path / "run")

    assert newest(tmp_path / "run").step == STEPS_PER_EPOCH + 2


def test_the_log_has_every_window_and_every_evaluation(trained):
    workdir, _ = trained

    assert [line["step"] for line in records(workdir, "train")] == [2, 3, 4, 6]
    assert [line["step"] for line in records(workdir, "validation")] == [3, LAST]
    assert all(line["images_per_second"] > 0 and line["loss"] > 0 for line in records(workdir, "train"))


def test_damaged_lines_of_the_log_are_dropped(tmp_path):
    lines = [b'{"step": 2, "kind": "train"}', b'{"step": 3\xff, "kind": "train"}', b'{"step": 4, "kind": "tr']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    MetricsLog(tmp_path, after_step=6).close()
    assert records(tmp_path, "train") == [{"step": 2, "kind": "train"}]


def test_the_best_checkpoint_is_the_one_that_is_evaluated(trained):
    workdir, result = trained
    maes = {line["step"]: line["mae"] for line in records(workdir, "validation")}
    best = Store(workdir / "checkpoints/best", keep=1, create=False)

    assert best.steps() == [min(maes, key=maes.__getitem__)]
    assert result["overall"]["mae"]["value"] == pytest.approx(min(maes.values()), rel=1e-5)
    best.close()


def test_training_changes_every_parameter(trained, config):
    workdir, _ = trained
    found = newest(workdir)
    experiment = Experiment.from_about(found.about, workdir)
    _, fresh = experiment.fresh_state(STEPS_PER_EPOCH)

    assert found.step == int(found.state.step) == LAST
    changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), found.state.params, fresh.params)
    assert all(jax.tree.leaves(changed)), changed


def test_restarting_a_finished_run_does_not_train_further(copied, config, trained):
    before = newest(copied)
    again = loop.train_and_evaluate(config, copied)

    assert again == trained[1]
    assert_same_to_the_bit(newest(copied), before)
    assert [line["step"] for line in records(copied, "validation")] == [3, LAST]


def test_another_configuration_in_the_same_workdir_is_refused_by_key(trained, config):
    config.optimizer.learning_rate = 0.5
    with pytest.raises(BoneAgeError, match=r"another configuration \(optimizer.learning_rate: 0.01, now 0.5\)"):
        loop.train_and_evaluate(config, trained[0])


def test_a_run_on_other_images_or_labels_is_refused(copied, config, monkeypatch):
    def with_a_corrected_label(config):
        splits = load_data(config)
        splits["train"].age[0] += 1
        return splits

    config.train.epochs = 3
    monkeypatch.setattr(loop, "load_data", with_a_corrected_label)
    with pytest.raises(BoneAgeError, match=r"the train images .* \(24 images then, 24 images now\)"):
        loop.train_and_evaluate(config, copied)


def test_a_run_of_another_preprocessing_version_is_refused(copied, config, monkeypatch):
    config.train.epochs = 3
    monkeypatch.setattr("boneage_jax.data.preprocess.VERSION", 99)
    with pytest.raises(
        BoneAgeError,
        match=r"latest cannot be used: the weights expect version 2 .* version 99; start again in another --workdir",
    ):
        loop.train_and_evaluate(config, copied)
    with pytest.raises(BoneAgeError, match="expect version 2 of the preprocessing"):
        restore_best(copied)


def test_a_step_of_a_run_without_checkpoints_is_refused(config, tmp_path):
    config.checkpoint.step = 3
    with pytest.raises(BoneAgeError, match=r"checkpoint\.step is 3, but .*latest contains no checkpoint"):
        loop.train_and_evaluate(config, tmp_path)


@pytest.mark.parametrize(("key", "value"), [("train.loss", "l1"), ("augment.rotation", 200.0)])
def test_an_unusable_setting_is_refused_before_the_data_are_prepared(key, value, config, tmp_path, monkeypatch):
    section, name = key.split(".")
    config[section][name] = value
    monkeypatch.setattr(loop, "load_data", lambda _: pytest.fail("the data were prepared"))
    with pytest.raises(BoneAgeError, match=name):
        loop.train_and_evaluate(config, tmp_path)


def test_a_configuration_that_cannot_train_does_not_occupy_the_workdir(config, tmp_path):
    config.train.loss = "cross_entropy"
    with pytest.raises(BoneAgeError, match="cross_entropy"):
        loop.train_and_evaluate(config, tmp_path)
    config.train.loss = "mse"
    loop.train_and_evaluate(config, tmp_path)
    assert newest(tmp_path).step == LAST


def test_evaluation_needs_nothing_but_the_workdir(copied, config, trained):
    shutil.rmtree(copied / "evaluate")
    (copied / "config.json").unlink()
    bare = base()  # another network, preprocessing and loss than the run's
    bare.data, bare.evaluate = config.data, config.evaluate
    evaluate_checkpoint(copied, bare)

    for name in ("metrics.json", "predictions.csv"):
        written = (copied / "evaluate/validation" / name).read_text()
        assert written == (trained[0] / "evaluate/validation" / name).read_text()


def test_an_unknown_evaluation_split_is_refused_with_the_available_ones(trained, config):
    config.evaluate.split = "test"
    with pytest.raises(BoneAgeError, match=r"evaluate\.split is 'test'; available splits: train, validation"):
        evaluate_checkpoint(trained[0], config)


def test_an_unknown_evaluation_split_is_refused_before_training(config, tmp_path):
    config.evaluate.split = "tset"
    with pytest.raises(BoneAgeError, match=r"evaluate\.split is 'tset'; available splits: train, validation"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_evaluation_leaves_the_given_configuration_unchanged(trained, config):
    config.data.inputs.height = "number"  # which the network does not take
    before = configuration.to_json(config)
    evaluate_checkpoint(trained[0], config)
    assert configuration.to_json(config) == before


def test_of_several_processes_only_the_first_writes_the_report(trained, config, tmp_path, monkeypatch):
    experiment, state = restore_best(trained[0])
    split, found = predict_split(experiment, state.variables, load_data(config))
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert write_report(tmp_path, split, found, None) == trained[1]
    assert not list(tmp_path.iterdir())


def test_a_workdir_without_a_run_cannot_be_evaluated(tmp_path):
    with pytest.raises(BoneAgeError, match="contains no checkpoint; train first"):
        restore_best(tmp_path)


class InterruptedRunError(Exception):
    """Simulates a kill: the loop does not handle it."""


def interrupted_at(step):
    """The training stream, interrupted before batch `step`."""
    original = loop._batches

    def batches(run, start):
        source = original(run, start)
        read = type(source).__next__
        numbers = iter(range(start, 10**6))

        def breaking(self):
            if next(numbers) == step:
                raise InterruptedRunError
            return read(self)

        source.__class__ = type("Breaking", (type(source),), {"__next__": breaking})
        return source

    return batches


def test_a_run_interrupted_within_an_epoch_resumes_bit_for_bit(config, tmp_path, monkeypatch, trained):
    config.train.checkpoint_every = 2
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_batches", interrupted_at(5))
        with pytest.raises(InterruptedRunError):
            loop.train_and_evaluate(config, tmp_path / "run")
    store = Store(tmp_path / "run/checkpoints/latest", create=False)
    assert store.steps() == [3, 4]
    store.close()

    assert loop.train_and_evaluate(config, tmp_path / "run") == trained[1]
    assert_same_to_the_bit(newest(tmp_path / "run"), newest(trained[0]))
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [2, 3, 4, 6]


def test_after_damage_a_run_resumes_from_the_suggested_checkpoint(copied, config, trained):
    folder = copied / f"checkpoints/latest/{LAST}/state"
    largest = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    largest.write_bytes(bytes(b ^ 0x55 for b in largest.read_bytes()))
    with pytest.raises(BoneAgeError, match=rf"latest/{LAST} is damaged .*--config.checkpoint.step=3"):
        loop.train_and_evaluate(config, copied)

    config.checkpoint.step = 3
    assert loop.train_and_evaluate(config, copied) == trained[1]
    assert_same_to_the_bit(newest(copied), newest(trained[0]))
    assert (
        json.loads((copied / "config.json").read_text())["checkpoint"]["step"] == -1
    )  # later starts go on from the end


def test_after_the_loss_of_the_best_checkpoint_a_finished_run_is_evaluated_at_its_end(copied, config):
    (best,) = (copied / "checkpoints/best").iterdir()
    shutil.rmtree(best)
    result = loop.train_and_evaluate(config, copied)

    assert [path.name for path in (copied / "checkpoints/best").iterdir()] == [str(LAST)]
    last = next(line["mae"] for line in records(copied, "validation") if line["step"] == LAST)
    assert result["overall"]["mae"]["value"] == pytest.approx(last, rel=1e-5)


def test_early_stopping_ends_the_run(config, tmp_path):
    config.optimizer.learning_rate = 0.0
    config.train.epochs = 50
    config.train.early_stopping = 2
    loop.train_and_evaluate(config, tmp_path)

    lines = records(tmp_path, "validation")
    best = min(range(len(lines)), key=lambda i: lines[i]["mae"])
    assert len(lines) == best + 3 < 50


def test_the_logged_learning_rate_includes_the_cuts_of_the_plateau(config, tmp_path):
    config.optimizer.learning_rate = 0.5
    config.optimizer.plateau.patience = 1
    config.train.epochs = 5
    loop.train_and_evaluate(config, tmp_path)

    scales = [1.0, *(line["learning_rate_scale"] for line in records(tmp_path, "validation"))]
    assert min(scales[:-1]) < 1
    lines = records(tmp_path, "train")
    epochs = [(line["step"] - 1) // STEPS_PER_EPOCH for line in lines]
    assert [line["learning_rate"] for line in lines] == [0.5 * scales[epoch] for epoch in epochs]


def test_a_non_finite_loss_names_step_and_images_and_is_not_saved(config, tmp_path):
    config.optimizer.learning_rate = 1e30
    config.train.checkpoint_every = 1
    with pytest.raises(BoneAgeError, match=r"at step 2, images train-\d+(, train-\d+){7}: not finite, and not saved"):
        loop.train_and_evaluate(config, tmp_path)

    assert newest(tmp_path).step == 1
    assert not list((tmp_path / "checkpoints/best").iterdir())


@pytest.mark.parametrize(("section", "size"), [("train", 6), ("evaluate", 2)])
def test_an_indivisible_batch_size_is_refused_before_anything_is_written(config, tmp_path, section, size):
    config[section].batch_size = size
    with pytest.raises(BoneAgeError, match=f"{section}.batch_size is {size}, which is not divisible by 4 devices"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_out_of_range_value_is_refused_before_anything_is_written(config, tmp_path):
    config.train.batch_size = -1
    with pytest.raises(BoneAgeError, match=r"train\.batch_size is -1, expected 1 or more"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_unusable_for_checkpoints_is_refused_before_writing(config, tmp_path):
    with pytest.raises(BoneAgeError, match=r"because its path contains \[ \]; choose a --workdir without any of"):
        loop.train_and_evaluate(config, tmp_path / "run[1]")
    assert not list(tmp_path.iterdir())


def test_a_workdir_locked_by_another_process_is_refused_with_its_pid(copied, config, trained):
    code = f"""
        import sys
        from pathlib import Path
        from boneage_jax import locks
        with locks.hold(Path({str(copied / ".lock")!r}), print):
            print("locked", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(BoneAgeError, match=rf"copied is in use by process {other.pid} on \S+, since .*; wait"):
            loop.train_and_evaluate(config, copied)
        other.kill()
    assert loop.train_and_evaluate(config, copied) == trained[1]


def test_fewer_images_than_one_batch_are_refused(config, tmp_path):
    config.train.batch_size = 32
    with pytest.raises(BoneAgeError, match="24 images, fewer than one batch of 32"):
        loop.train_and_evaluate(config, tmp_path / "run")


def test_ten_crop_views_without_a_crop_are_refused_before_training(config, tmp_path):
    config.evaluate.views = "ten_crop"
    with pytest.raises(BoneAgeError, match=r"'ten_crop' need preprocessing\.crop"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "saved", "expected"),
    [
        (9, 12, (np.inf, 0)),  # discarded, as it is later than the given step
        (-1, None, (np.inf, 0)),  # deleted by the user
        (-1, 12, (10.0, 2)),  # saved just before the run was killed
    ],
)
def test_early_stopping_counts_anew_without_the_best_checkpoint(trained, tmp_path, given, saved, expected):
    before = newest(trained[0])
    state = before.state
    latest, best = Store(tmp_path / "latest"), Store(tmp_path / "best", keep=1)
    progress = loop.Progress(evaluated=9, best_mae=10.0, best_step=3, without_improvement=2)
    latest.save(9, state, before.about | {"progress": dataclasses.asdict(progress)})
    latest.wait()
    if saved is not None:
        best.save(saved, state, {})
        best.wait()
    _, resumed = loop._resume(latest, best, state, given, before.about["images"])
    assert best.steps() == ([saved] if saved and given < 0 else [])
    assert (resumed.best_mae, resumed.without_improvement) == expected
    latest.close()
    best.close()


def test_a_run_stopped_within_an_epoch_saves_the_step_that_it_reached(config, tmp_path, monkeypatch):
    step_to_stop, add = STEPS_PER_EPOCH + 1, loop._Window.add

    def add_and_terminate(self, step, index, metrics):
        add(self, step, index, metrics)
        if step == step_to_stop:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop._Window, "add", add_and_terminate)
    with pytest.raises(loop.StoppedError, match=rf"stopped by SIGTERM at step {step_to_stop}, which is saved"):
        loop.train_and_evaluate(config, tmp_path)
    assert newest(tmp_path).step == step_to_stop
