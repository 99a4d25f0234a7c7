import errno
import json
import logging
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import absl.logging
import jax
import numpy as np
import pytest
from orbax.checkpoint._src.path import atomicity

from boneage_jax.errors import BoneAgeError
from boneage_jax.train.checkpoint import Store, digest, hidden_writer_tracebacks
from tests.trees import structure

STEP, EARLIER = 20, 10


def state(seed: int, **more) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "params": {
            "dense/kernel": rng.normal(size=(64, 96)).astype(np.float32),
            "bias": rng.normal(size=3).astype(np.float32),
        },
        "step": np.int32(seed),
        "scale": np.array(np.nan, np.float32),
        **more,
    }


def empty(tree):
    return jax.tree.map(np.zeros_like, tree)


@pytest.fixture
def store(tmp_path):
    """Holds two checkpoints."""
    opened = Store(tmp_path / "latest")
    opened.save(EARLIER, state(EARLIER), {"progress": 1})
    opened.save(STEP, state(STEP), {"progress": 2})
    opened.wait()
    yield opened
    opened.close()


def damage(folder: Path) -> None:
    largest = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(largest.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = bytes(b ^ 0xFF for b in data[middle : middle + 16])
    largest.write_bytes(bytes(data))


def test_a_checkpoint_is_restored_bit_for_bit(store):
    restored = store.restore(empty(state(STEP)))

    assert restored.step == STEP
    assert restored.about["progress"] == 2
    assert structure(restored.state) == structure(state(STEP))
    for found, saved in zip(jax.tree.leaves(restored.state), jax.tree.leaves(state(STEP)), strict=True):
        assert found.dtype == saved.dtype
        assert found.tobytes() == saved.tobytes()


def test_a_reopened_store_finds_the_checkpoints(store):
    again = Store(store.directory, create=False)
    assert again.steps() == [EARLIER, STEP]
    assert digest(again.restore(empty(state(0)), EARLIER).state) == digest(state(EARLIER))
    again.close()


def test_only_the_newest_two_checkpoints_are_kept(store):
    store.save(30, state(30), {})
    store.wait()
    assert store.steps() == [STEP, 30]


def test_an_existing_step_is_not_overwritten(store):
    store.save(STEP, state(99), {"progress": 99})
    assert store.restore(empty(state(0))).about["progress"] == 2


def test_changing_arrays_during_a_save_does_not_affect_it(store):
    mutable = state(30)
    store.save(30, mutable, {})
    mutable["params"]["dense/kernel"][:] = 0
    store.wait()
    assert digest(store.restore(empty(mutable)).state) == digest(state(30))


def test_discard_after_deletes_later_checkpoints(store):
    store.discard_after(EARLIER)
    assert store.steps() == [EARLIER]


def test_a_damaged_checkpoint_is_named_and_the_previous_one_suggested(store):
    damage(store.directory / str(STEP))
    with pytest.raises(BoneAgeError) as caught:
        store.restore(empty(state(0)))

    assert f"checkpoint {store.directory / str(STEP)} is damaged" in str(caught.value)
    assert f"--config.checkpoint.step={EARLIER}" in str(caught.value)
    assert digest(store.restore(empty(state(0)), EARLIER).state) == digest(state(EARLIER))


def test_a_checkpoint_that_a_running_training_replaces_is_not_called_damaged(tmp_path):
    training = Store(tmp_path / "best", keep=1)
    training.save(EARLIER, state(EARLIER), {})
    training.wait()
    reader = Store(tmp_path / "best", keep=1, create=False)
    reader.about()
    training.save(STEP, state(STEP), {})
    training.close()

    with pytest.raises(BoneAgeError, match=rf"best/{EARLIER} was deleted while it was read.* run .* again$"):
        reader.restore(empty(state(0)))
    reader.close()


def test_damage_to_the_only_checkpoint_suggests_starting_again(store):
    store.discard_after(EARLIER)
    damage(store.directory / str(EARLIER))
    with pytest.raises(BoneAgeError, match="there is no earlier one: delete it to start again"):
        store.restore(empty(state(0)))


@pytest.mark.parametrize(
    ("key", "value"), [("progress", 3), ("more", 1), ("state_sha256", "0" * 64), ("sha256", "0" * 64), ("sha256", None)]
)
def test_changed_metadata_are_detected(store, key, value):
    (path,) = (store.directory / str(STEP) / "about").glob("metadata")
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, key: value}))
    for read in (store.about, lambda: store.restore(empty(state(0)))):
        with pytest.raises(BoneAgeError, match=rf"/{STEP} is damaged \(its metadata do not match their checksum\)"):
            read()
    assert store.about(EARLIER)["progress"] == 1


def test_metadata_without_a_checksum_are_read_with_a_warning(store, caplog):
    (path,) = (store.directory / str(STEP) / "about").glob("metadata")
    fields = json.loads(path.read_text())
    del fields["sha256"]
    path.write_text(json.dumps(fields))
    assert store.restore(empty(state(0))).about == fields
    assert f"latest/{STEP} has no checksum for its metadata" in caplog.text


def test_metadata_with_any_json_value_pass_the_checksum(store):
    about = {"progress": {"best": float("inf"), "steps": (1, 2), "none": None}, "text": "ä\n"}
    store.save(30, state(30), about)
    store.wait()
    found = store.restore(empty(state(0)), 30).about
    assert found["progress"] == {"best": float("inf"), "steps": [1, 2], "none": None}
    assert found["text"] == "ä\n"


@pytest.mark.parametrize("name", ["a[1]", "b\\c", "d*", "e?"])
def test_a_folder_that_orbax_would_treat_as_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(BoneAgeError, match=r"checkpoints cannot be stored in .* choose a --workdir without any of"):
        Store(tmp_path / name / "latest")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ü", "a b", "p%20q", "h#1", "i'q", "{1,2}", "m:n"])
def test_folders_with_other_special_characters_keep_checkpoints(tmp_path, name):
    named = Store(tmp_path / name)
    named.save(STEP, state(STEP), {})
    named.wait()
    assert digest(named.restore(empty(state(0))).state) == digest(state(STEP))
    named.close()


@pytest.mark.parametrize("lost", ["state", "about"])
def test_a_checkpoint_with_an_emptied_part_is_reported_as_damaged(store, lost):
    for file in (store.directory / str(STEP) / lost).rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(BoneAgeError, match=rf"checkpoint \S*/{STEP} is damaged"):
        store.restore(empty(state(0)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"params": {"dense/kernel": np.zeros((64, 97), np.float32)}},
            r"dense\|kernel.*\(64, 96\), expected \(64, 97\)",
        ),
        ({"extra": np.zeros(2, np.float32)}, r"extra"),
        ({"params": {"bias": None}}, r"bias"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_parameter_name(store, change, reason):
    like = empty(state(0))
    like = {**like, **change, "params": {**like["params"], **change.get("params", {})}}
    with pytest.raises(BoneAgeError, match=rf"checkpoint \S*/{STEP} belongs to another network: .*{reason}"):
        store.restore(like)


def test_a_folder_without_checkpoints_gives_a_clear_error(tmp_path):
    with pytest.raises(BoneAgeError, match=r"missing contains no checkpoint; train first, or choose another --workdir"):
        Store(tmp_path / "missing", create=False)
    nothing = Store(tmp_path)
    with pytest.raises(BoneAgeError, match="does not contain a checkpoint yet; train until the end of an epoch"):
        nothing.restore(state(0))
    nothing.close()


def test_a_missing_step_is_refused_with_the_available_ones(store):
    with pytest.raises(BoneAgeError, match=f"does not contain checkpoint 15; available: {EARLIER}, {STEP}"):
        store.restore(state(0), 15)


def test_a_full_disk_leaves_earlier_checkpoints_intact(store, monkeypatch, caplog):
    async def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    broken = Store(store.directory)
    with hidden_writer_tracebacks(), monkeypatch.context() as patch:
        patch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", full)
        broken.save(30, state(30), {})
        with pytest.raises(BoneAgeError, match=r"cannot write to .*: the disk is full \(\d+ MiB free\)"):
            broken.wait()
        assert not [record for record in caplog.records if record.exc_info]

    again = Store(store.directory)
    assert again.steps() == [EARLIER, STEP]
    assert digest(again.restore(empty(state(0))).state) == digest(state(STEP))
    again.save(30, state(30), {})  # the same save again
    again.wait()
    assert digest(again.restore(empty(state(0))).state) == digest(state(30))
    again.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (PermissionError(errno.EACCES, "Permission denied", "metadata"), "Permission denied"),
        # as tensorstore reports it
        (ValueError('PERMISSION_DENIED: Failed to open: "d/f0": Permission denied'), "Permission denied"),
    ],
)
def test_a_checkpoint_that_the_system_refuses_to_read_is_not_called_damaged(store, monkeypatch, error, reason):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(store._manager, "restore", refuse)
    with pytest.raises(BoneAgeError, match=rf"/{STEP} cannot be read: {reason}; correct this and run again$"):
        store.restore(empty(state(0)))


def test_a_lack_of_memory_is_not_reported_as_damage(store, monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr(store._manager, "restore", exhausted)
    with pytest.raises(MemoryError):
        store.restore(empty(state(0)))


def test_logged_tracebacks_are_hidden_only_within_the_block(store):
    logger = absl.logging.get_absl_logger()
    filters = list(logger.filters)
    with hidden_writer_tracebacks():
        assert len(logger.filters) == len(filters) + 1
    assert logger.filters == filters


READ_DAMAGED = """
import sys
import numpy as np
from boneage_jax.errors import BoneAgeError
from boneage_jax.train.checkpoint import Store

for _ in range(20):
    store = Store(sys.argv[1], create=False)
    try:
        store.restore({f"array {number}": np.zeros((200, 100)) for number in range(200)})
    except BoneAgeError as error:
        print(error)
"""


@pytest.mark.parametrize("part", ["an array", "the index of all arrays"])
def test_damage_gives_one_sentence_while_several_arrays_are_being_read(tmp_path, part):
    generator = np.random.default_rng(0)
    written = Store(tmp_path)
    written.save(1, {f"array {number}": generator.normal(size=(200, 100)) for number in range(200)}, {})
    written.close()
    files = tmp_path.glob("1/state/d/*" if part == "the index of all arrays" else "1/state/ocdbt.process_0/d/*")
    data = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    for place in range(14, len(content), 2**20):
        content[place : place + 100] = bytes(100)
    data.write_bytes(content)
    read = subprocess.run([sys.executable, "-c", READ_DAMAGED, tmp_path], capture_output=True, text=True, check=True)
    assert read.stdout.count(f"checkpoint {tmp_path}/1 is damaged") == len(read.stdout.splitlines()) == 20
    assert "Traceback" not in read.stderr, read.stderr[-2000:]


def test_only_failures_of_arrays_are_hidden_from_asyncios_log(store, caplog):
    for _ in range(2):
        Store(store.directory).close()
    for error in ("Error reading in OCDBT database", "disk"):
        logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=ValueError(error))
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["disk"]


def test_only_reports_of_late_reads_and_writes_are_hidden(store, monkeypatch):
    reports: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    for _ in range(2):
        Store(store.directory).close()
    for error, culprit in [("Event loop is closed", None), ("Event loop is closed", store), ("disk", None)]:
        sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(error), object=culprit))
    assert [(str(each.exc_value), each.object) for each in reports] == [("Event loop is closed", store), ("disk", None)]
