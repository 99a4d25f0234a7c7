"""`benchmarks/pipelines.py`: contestants that are not installed are left out."""

import numpy as np

from benchmarks import pipelines


def lacking(paths):
    raise ModuleNotFoundError("No module named 'keras'")


def lacking_at_the_first_batch(paths):
    lacking(paths)
    yield


def test_contestants_that_are_not_installed_are_left_out(monkeypatch, capsys):
    batches = iter([np.zeros(1), np.ones(1)])
    contestants = {"keras": lacking, "torch": lacking_at_the_first_batch, "ours": lambda paths: batches}
    monkeypatch.setattr(pipelines, "CONTESTANTS", contestants)
    streams, first = pipelines.started([])
    assert list(streams) == list(first) == ["ours"]
    assert next(streams["ours"]) == 1  # the first batch has been taken
    printed = capsys.readouterr().err
    assert "keras is left out: No module named 'keras'" in printed
    assert "torch is left out" in printed
