import errno
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from boneage_jax.data import builder
from boneage_jax.errors import BoneAgeError

SHAPE = (8, 8, 1)
SHAPES = {"image": SHAPE}


def examples(count, fail_at=None, error=None):
    def prepare(number):
        if number == fail_at:
            raise error
        return {"image": np.full(SHAPE, number, np.uint8)}

    return [builder.Example(f"id{n}", n % 2, n + 0.1, "", lambda n=n: prepare(n)) for n in range(count)]


def make(folder, train=20, **options):
    splits = {"train": examples(train, **options), "validation": examples(3)}
    return builder.RsnaBoneAge(examples=splits, shapes=SHAPES, data_dir=str(folder))


def test_records_keep_the_order_of_the_examples_and_labels_need_no_image(tmp_path):
    folder = make(tmp_path, train=200).build()  # More than one chunk.
    records = builder.open_records(folder, "train")
    assert [records[i]["image"][0, 0, 0] for i in range(200)] == list(range(200))
    rows = builder.read_labels(folder, "train")
    assert [row["id"] for row in rows] == [f"id{n}" for n in range(200)]
    assert rows[7] == {"id": "id7", "sex": "1", "age": "7.1", "hospital": ""}
    assert len(builder.read_labels(folder, "validation")) == 3


def test_further_inputs_stand_beside_the_labels_and_maps_beside_the_images(tmp_path):
    def prepare(number):
        return {"image": np.full(SHAPE, number, np.uint8), "heatmap": np.full((4, 4, 1), 9 - number, np.uint8)}

    inputs = [{"weight": 0.1, "ward": "a, b"}, {"weight": -3e9, "ward": "unknown"}]
    made = [builder.Example(f"id{n}", 0, 1.0, "", lambda n=n: prepare(n), values) for n, values in enumerate(inputs)]
    shapes = {"image": SHAPE, "heatmap": (4, 4, 1)}
    folder = builder.RsnaBoneAge(examples={"train": made}, shapes=shapes, data_dir=str(tmp_path)).build()
    rows = builder.read_labels(folder, "train")
    assert [(float(row["weight"]), row["ward"]) for row in rows] == [(0.1, "a, b"), (-3e9, "unknown")]
    record = builder.open_records(folder, "train")[1]
    assert (record["image"][0, 0, 0], record["heatmap"][3, 3, 0]) == (1, 8)
    assert record["heatmap"].shape == (4, 4, 1)


def test_large_splits_keep_their_order_over_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "_SHARD_BYTES", 500)
    folder = make(tmp_path, train=50).build()
    assert len(list(folder.glob("*-train.array_record*"))) == 8
    records = builder.open_records(folder, "train")
    assert [records[i]["image"][0, 0, 0] for i in range(50)] == list(range(50))


def test_tensorflow_is_not_needed_even_over_several_files(tmp_path):
    code = f"""
        import sys
        import numpy as np
        from boneage_jax.data import builder
        builder._SHARD_BYTES = 128
        record = {{"image": np.ones({SHAPE}, np.uint8)}}
        examples = [builder.Example(str(n), 0, 1.0, "", lambda: record) for n in range(5)]
        splits = {{"train": examples}}
        folder = builder.RsnaBoneAge(examples=splits, shapes={SHAPES}, data_dir={str(tmp_path)!r}).build()
        assert builder.open_records(folder, "train")[3]["image"].max() == 1
        assert "tensorflow" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_a_built_dataset_is_opened_not_built_again(tmp_path):
    make(tmp_path).build()
    assert make(tmp_path, fail_at=0, error=AssertionError("built again")).build().is_dir()


def test_a_failure_midway_leaves_no_dataset(tmp_path):
    with pytest.raises(BoneAgeError, match=r"7\.png is empty"):
        make(tmp_path, fail_at=15, error=BoneAgeError("7.png is empty")).build()
    assert not list(tmp_path.rglob("*.array_record*"))
    assert len(builder.open_records(make(tmp_path).build(), "train")) == 20


def test_a_killed_build_is_not_taken_for_a_dataset_and_is_cleared_away(tmp_path):
    code = f"""
        import os, signal
        import numpy as np
        from boneage_jax.data import builder
        def prepare(n):
            if n == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return {{"image": np.zeros({SHAPE}, np.uint8)}}
        def split(first):
            numbers = range(first, first + 5)
            return [builder.Example(str(n), 0, 1.0, "", lambda n=n: prepare(n)) for n in numbers]
        splits = {{"train": split(10), "validation": split(0)}}
        builder.RsnaBoneAge(examples=splits, shapes={SHAPES}, data_dir={str(tmp_path)!r}).build()
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    leftovers = list(tmp_path.rglob("*incomplete*"))
    assert leftovers
    folder = make(tmp_path).build()
    assert [len(builder.open_records(folder, s)) for s in ("train", "validation")] == [20, 3]
    assert not any(path.exists() for path in leftovers)


def test_a_full_disk_is_told_before_and_during_the_build(tmp_path, monkeypatch):
    with pytest.raises(BoneAgeError, match=r"disk .* is full"):
        make(tmp_path, fail_at=15, error=OSError(errno.ENOSPC, "No space left on device")).build()
    usage = builder.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BoneAgeError, match=r"is full.*23 images"):
        make(tmp_path).build()
    assert not list(tmp_path.rglob("*.array_record*"))


def test_records_that_did_not_reach_the_disk_are_noticed(tmp_path, monkeypatch):
    adapter = "tensorflow_datasets.core.file_adapters.ArrayRecordFileAdapter.write_examples"

    def lossy(path, iterator):
        from array_record.python.array_record_module import ArrayRecordWriter

        writer = ArrayRecordWriter(str(path), "group_size:1")
        for _, record in list(iterator)[:-1]:
            writer.write(record)
        writer.close()

    monkeypatch.setattr(adapter, staticmethod(lossy))
    with pytest.raises(BoneAgeError, match="19 of 20"):
        make(tmp_path).build()
    assert not pathlib.Path(make(tmp_path).data_dir).exists()
