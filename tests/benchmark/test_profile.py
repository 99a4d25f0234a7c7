import contextlib
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from boneage_jax.benchmark import profile
from boneage_jax.errors import BoneAgeError

TEXT = """
ENTRY %main {
  %dot.1 = f32[4,4]{1,0} dot(%a, %b), metadata={op_name="jit(step)/shard_map/transpose(jvp(Network))/trunk/block1/dot"}
  ROOT %while.2 = f32[4] while(%c), body=%body, metadata={op_name="jit(step)/while" stack_frame_id=3}
}
"""


def event(name, start, duration, operation=True):
    stats = [("hlo_op", name), ("hlo_module", "step")] if operation else []
    return SimpleNamespace(name=name, start_ns=start, duration_ns=duration, stats=stats)


def trace(*lines):
    return SimpleNamespace(planes=[SimpleNamespace(lines=[SimpleNamespace(events=events) for events in lines])])


def summary(*lines, steps=1):
    return profile.summarise(trace(*lines), "folder", steps=steps, program_text=TEXT)


def seconds(found):
    return {operation.name: pytest.approx(operation.seconds * 1e9) for operation in found.operations}


def test_operation_times_are_summed_over_threads_and_averaged_over_steps():
    found = summary([event("dot.1", 0, 600), event("add.3", 600, 100)], [event("dot.1", 0, 200)], steps=2)

    assert seconds(found) == {"dot.1": 400, "add.3": 50}
    assert [operation.share for operation in found.operations] == pytest.approx([8 / 9, 1 / 9])


def test_events_that_are_not_operations_are_ignored():
    assert seconds(summary([event("python", 0, 900, operation=False), event("dot.1", 100, 50)])) == {"dot.1": 50}


def test_time_of_a_loop_excludes_the_operations_inside_it():
    nested = [event("while.2", 0, 100), event("dot.1", 10, 30), event("fusion", 15, 5), event("dot.1", 50, 20)]
    assert seconds(summary([*nested, event("add.3", 100, 10)])) == {
        "dot.1": 45,
        "while.2": 50,
        "fusion": 5,
        "add.3": 10,
    }


def test_operations_are_labelled_with_their_source_layer():
    found = summary([event("dot.1", 0, 3), event("while.2", 3, 2), event("copy", 5, 1)])
    assert [operation.source for operation in found.operations] == [
        "step/shard_map/Network/trunk/block1/dot",
        "step/while",
        "",
    ]


def test_the_table_lists_the_ten_costliest_operations_in_order():
    found = summary([event(f"op.{i}", 100 * i, i) for i in range(1, 13)])
    lines = found.table().splitlines()

    assert lines[0] == "The 10 costliest operations of a training step"
    assert [line.split()[2] for line in lines[3:]] == [f"op.{i}" for i in range(12, 2, -1)]


def test_a_trace_without_operations_is_an_error():
    with pytest.raises(BoneAgeError, match="contains no operations"):
        summary([event("python", 0, 900, operation=False)])


def test_a_real_program_is_traced_and_summarised(tmp_path):
    compiled = jax.jit(lambda a: jnp.sin(a @ a).sum()).lower(jnp.ones((64, 64))).compile()
    text = compiled.as_text()
    assert text is not None
    found = profile.record(lambda: compiled(jnp.ones((64, 64))), tmp_path, steps=2, program_text=text)

    assert sum(operation.share for operation in found.operations) == pytest.approx(1)
    assert all(operation.seconds >= 0 for operation in found.operations)
    assert any("dot_general" in operation.source or "sin" in operation.source for operation in found.operations)
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_the_new_trace_is_summarised_although_an_older_one_has_a_later_time(tmp_path, monkeypatch):
    (tmp_path / "older.xplane.pb").touch()
    os.utime(tmp_path / "older.xplane.pb", (2**32, 2**32))
    opened = []

    def from_file(path):
        opened.append(Path(path).name)
        return trace([event("dot.1", 0, 5)])

    monkeypatch.setattr(jax.profiler.ProfileData, "from_file", from_file)
    profile.record(lambda: jnp.ones(2) + 1, tmp_path, steps=1, program_text=TEXT)
    assert len(opened) == 1
    assert opened != ["older.xplane.pb"]


def test_a_profiler_that_writes_nothing_is_an_error_although_an_older_trace_is_there(tmp_path, monkeypatch):
    (tmp_path / "older.xplane.pb").touch()
    monkeypatch.setattr(jax.profiler, "trace", lambda _: contextlib.nullcontext())
    with pytest.raises(BoneAgeError, match="the profiler wrote no trace"):
        profile.record(lambda: jnp.ones(2), tmp_path, steps=1, program_text=TEXT)
