import errno
import functools
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from boneage_jax import cache
from boneage_jax.data import builder
from boneage_jax.errors import BoneAgeError

SHAPE = (8, 8, 1)
SHAPES = {"image": SHAPE}


def examples(count, fail_at=None, error=None):
    def prepare(number):
        if number == fail_at:
            raise error
        return {"image": np.full(SHAPE, number, np.uint8)}

    return [builder.Example(f"id{n}", n % 2, n + 0.1, "", functools.partial(prepare, n)) for n in range(count)]


def make(folder, train=20, **options):
    splits = {"train": examples(train, **options), "validation": examples(3)}
    return builder.RsnaBoneAge(examples=splits, shapes=SHAPES, data_dir=str(folder))


def test_records_and_labels_keep_the_order_of_the_examples(tmp_path):
    folder = make(tmp_path, train=200).build()  # More than one chunk.
    records = builder.Records(folder, "train")
    assert [records[i]["image"][0, 0, 0] for i in range(200)] == list(range(200))
    rows = builder.read_labels(folder, "train")
    assert [row["id"] for row in rows] == [f"id{n}" for n in range(200)]
    assert rows[7] == {"id": "id7", "sex": "1", "age": "7.1", "hospital": ""}
    assert len(builder.read_labels(folder, "validation")) == 3


def test_further_inputs_are_stored_with_labels_and_heat_maps_with_images(tmp_path):
    def prepare(number):
        return {"image": np.full(SHAPE, number, np.uint8), "heatmap": np.full((4, 4, 1), 9 - number, np.uint8)}

    inputs: list[dict[str, float | str]] = [{"weight": 0.1, "ward": "a, b"}, {"weight": -3e9, "ward": "unknown"}]
    made = [
        builder.Example(f"id{n}", 0, 1.0, "", functools.partial(prepare, n), values) for n, values in enumerate(inputs)
    ]
    shapes = {"image": SHAPE, "heatmap": (4, 4, 1)}
    folder = builder.RsnaBoneAge(examples={"train": made}, shapes=shapes, data_dir=str(tmp_path)).build()
    rows = builder.read_labels(folder, "train")
    assert [(float(row["weight"]), row["ward"]) for row in rows] == [(0.1, "a, b"), (-3e9, "unknown")]
    record = builder.Records(folder, "train")[1]
    assert (record["image"][0, 0, 0], record["heatmap"][3, 3, 0]) == (1, 8)
    assert record["heatmap"].shape == (4, 4, 1)


def test_splits_keep_their_order_across_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "_SHARD_BYTES", 500)
    folder = make(tmp_path, train=50).build()
    assert len(list(folder.glob("*-train.array_record*"))) == 8
    records = builder.Records(folder, "train")
    assert [records[i]["image"][0, 0, 0] for i in range(50)] == list(range(50))


def test_tensorflow_is_not_imported_even_with_several_shards(tmp_path):
    code = f"""
        import sys
        import numpy as np
        from boneage_jax.data import builder
        builder._SHARD_BYTES = 128
        record = {{"image": np.ones({SHAPE}, np.uint8)}}
        examples = [builder.Example(str(n), 0, 1.0, "", lambda: record) for n in range(5)]
        splits = {{"train": examples}}
        folder = builder.RsnaBoneAge(examples=splits, shapes={SHAPES}, data_dir={str(tmp_path)!r}).build()
        assert builder.Records(folder, "train")[3]["image"].max() == 1
        assert "tensorflow" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_an_existing_dataset_is_opened_and_not_rebuilt(tmp_path):
    make(tmp_path).build()
    assert make(tmp_path, fail_at=0, error=AssertionError("built again")).build().is_dir()


def test_a_failed_build_leaves_no_dataset(tmp_path):
    with pytest.raises(BoneAgeError, match=r"7\.png is empty"):
        make(tmp_path, fail_at=15, error=BoneAgeError("7.png is empty")).build()
    assert not list(tmp_path.rglob("*.array_record*"))
    assert len(builder.Records(make(tmp_path).build(), "train")) == 20


def test_leftovers_of_a_killed_build_are_ignored_and_removed(tmp_path):
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
    assert [len(builder.Records(folder, s)) for s in ("train", "validation")] == [20, 3]
    assert not any(path.exists() for path in leftovers)


def test_a_full_disk_is_reported_before_and_during_the_build(tmp_path, monkeypatch):
    with pytest.raises(BoneAgeError, match=r"disk .* is full"):
        make(tmp_path, fail_at=15, error=OSError(errno.ENOSPC, "No space left on device")).build()
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BoneAgeError, match=r"is full.*23 images"):
        make(tmp_path).build()
    assert not list(tmp_path.rglob("*.array_record*"))


def test_an_unwritable_cache_folder_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        BoneAgeError, match=r"cache folder \S+file/cache/rsna_bone_age cannot be used \(Not a directory\)"
    ):
        make(tmp_path / "file/cache").build()

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache, "make_private", read_only)
    with pytest.raises(
        BoneAgeError, match=r"cannot be used \(Read-only file system\); choose another one \(data.cache\)"
    ):
        make(tmp_path / "other").build()


def test_cache_folders_are_accessible_only_to_the_user(tmp_path):
    tmp_path.chmod(0o755)
    folder = make(tmp_path / "rsna-8px").build()
    assert [part.stat().st_mode & 0o777 for part in (tmp_path / "rsna-8px", folder.parent)] == [0o700, 0o700]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return make(tmp_path_factory.mktemp("built")).build()


def read_all(folder):
    """Everything that training reads from a dataset."""
    records = builder.Records(folder, "train")
    return builder.read_labels(folder, "train"), [record["image"].tobytes() for record in records]


DAMAGES = {
    "lost": lambda content: None,
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:70] + bytes([content[70] ^ 1]) + content[71:],
    "longer": lambda content: content + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["labels", "dataset_info", "features", "checksums", "array_record"])
def test_damage_to_any_file_is_a_clear_error(built, tmp_path, name, damage):
    folder = shutil.copytree(built, tmp_path / "copy")
    path = next(path for path in sorted(folder.iterdir()) if name in path.name)
    changed = DAMAGES[damage](path.read_bytes())
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    if (name, damage) == ("checksums", "longer"):  # only white space is added
        assert read_all(folder) == read_all(built)
        return
    with pytest.raises(BoneAgeError, match=rf"prepared images in {folder} are damaged .*delete this folder and start"):
        read_all(folder)


@pytest.mark.parametrize("damage", ["lost", "empty", "half", "one bit"])
@pytest.mark.parametrize("name", ["dataset_info", "features"])
def test_damaged_metadata_is_a_clear_error_when_the_dataset_is_reopened(tmp_path, name, damage):
    folder = make(tmp_path).build()
    path = folder / f"{name}.json"
    changed = DAMAGES[damage](path.read_bytes())
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    with pytest.raises(BoneAgeError, match=rf"prepared images in {folder} are damaged \(.*{name}\.json"):
        make(tmp_path).build()


def test_an_edited_label_is_detected(built, tmp_path):
    folder = shutil.copytree(built, tmp_path / "copy")
    labels = folder / "labels-train.csv"
    labels.write_text(labels.read_text().replace("7.1", "9.1"))
    with pytest.raises(BoneAgeError, match=r"damaged \(labels-train\.csv has changed since it was written\)"):
        builder.read_labels(folder, "train")


def test_a_second_process_waits_for_the_first_and_names_it(tmp_path, caplog):
    code = f"""
        import time
        import numpy as np
        from boneage_jax.data import builder
        def prepare(n):
            if n == 0:
                print("locked", flush=True)
                time.sleep(2)
            return {{"image": np.full({SHAPE}, n, np.uint8)}}
        examples = [builder.Example(str(n), 0, 1.0, "", lambda n=n: prepare(n)) for n in range(5)]
        builder.RsnaBoneAge(examples={{"train": examples}}, shapes={SHAPES}, data_dir={str(tmp_path)!r}).build()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"locked\n"
        folder = make(tmp_path, fail_at=0, error=AssertionError("built again")).build()
    assert first.returncode == 0
    assert [record["image"][0, 0, 0] for record in builder.Records(folder, "train")] == [0, 1, 2, 3, 4]
    assert f"Waiting for process {first.pid} on " in caplog.text
    assert "which is preparing the same images" in caplog.text


def test_records_missing_on_disk_are_detected(tmp_path, monkeypatch):
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
