"""`benchmarks/reliability.py`: how outcomes are classified, and a short campaign with damaged inputs."""

import itertools
import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import disturbed_runs, mutations, record, reliability
from benchmarks.reliability import Answer, judge
from boneage_jax.errors import BoneAgeError

WHOLE = Answer(7)


def fail(error):
    raise error


def log_a_traceback():
    try:
        fail(OSError("disk"))
    except OSError:
        logging.getLogger("library").exception("could not write")
    return WHOLE


def fail_in_a_thread():
    (thread := threading.Thread(target=fail, args=(OSError("disk"),))).start()
    thread.join()
    return WHOLE


class Unclosable:
    def __del__(self):
        fail(OSError("disk"))


def fail_in_a_finaliser():
    Unclosable()
    return WHOLE


@pytest.mark.parametrize(
    ("ask", "outcome"),
    [
        (lambda: WHOLE, "answered"),
        (lambda: Answer(8), "silent"),
        (lambda: Answer(8, ["the image is odd"]), "warned"),
        (lambda: Answer(7, ["the image is odd"]), "answered"),
        (lambda: fail(BoneAgeError("hand.png is empty")), "clear error"),
        (lambda: fail(BoneAgeError("Traceback (most recent call last)")), "traceback"),
        (lambda: fail(KeyError("Rows")), "traceback"),
        (log_a_traceback, "traceback"),
        (fail_in_a_thread, "traceback"),
        (fail_in_a_finaliser, "traceback"),
        (lambda: time.sleep(60), "hang"),
    ],
)
def test_each_outcome_is_recognised(ask, outcome):
    assert judge(ask, WHOLE, seconds=0.5 if outcome == "hang" else 30) == outcome


def test_memory_growth_beyond_the_bound_is_recognised():
    def ask():
        return Answer(int(np.ones(2**26, np.uint8).sum()) // 2**26 + 6)

    np.ones(2**28, np.uint8)  # memory allocated earlier does not count
    assert judge(ask, WHOLE, growth=2**24) == "memory"


def test_damage_is_reproducible_by_seed_and_changes_the_content():
    content = bytes(range(256)) * 20
    made = [mutations.damaged(content, np.random.default_rng([1, number])) for number in range(60)]
    assert made == [mutations.damaged(content, np.random.default_rng([1, number])) for number in range(60)]
    assert sum(one != content for one in made) >= 58
    assert len(set(map(len, made))) > 10


def test_silent_answers_are_faults_where_the_format_has_a_checksum():
    row = dict.fromkeys(reliability.OUTCOMES, 0) | {"part": "images", "cases": 3, "silent": 3}
    assert reliability.faults([row | {"kind": "plain.dcm"}]) == 0
    assert reliability.faults([row | {"kind": "png"}]) == 3
    assert reliability.faults([row | {"kind": "plain.dcm", "hang": 1}]) == 1


@pytest.mark.slow
def test_a_short_campaign_has_no_faults(tmp_path, monkeypatch, capsys):
    out = tmp_path / "counts.json"
    monkeypatch.setattr(sys, "argv", ["reliability.py", "--count=80", f"--out={out}", "--parts", *reliability.SHARES])
    assert reliability.main() == 0, capsys.readouterr().err
    rows = json.loads(out.read_text())["rows"]
    assert sum(row["cases"] for row in rows) == 80
    assert {row["part"] for row in rows} == {*reliability.SHARES}


def test_every_part_keeps_when_and_on_what_it_was_measured(monkeypatch, tmp_path):
    circumstances = iter([{"commit": "a"}, {"commit": "b"}])
    monkeypatch.setattr(record, "circumstances", lambda: next(circumstances))
    tables, images = {"part": "tables", "cases": 1}, {"part": "images", "cases": 2}
    reliability.store(tmp_path / "reliability.json", [tables])
    reliability.store(tmp_path / "reliability.json", [images])
    stored = json.loads((tmp_path / "reliability.json").read_text())
    assert stored == {"measured": {"tables": {"commit": "a"}, "images": {"commit": "b"}}, "rows": [tables, images]}


def test_parts_of_one_campaign_have_their_own_times(monkeypatch, tmp_path):
    times = itertools.count()
    monkeypatch.setattr(record, "circumstances", lambda: {"date": next(times)})
    monkeypatch.setattr(disturbed_runs, "finished", lambda folder: None)
    monkeypatch.setattr(reliability, "damaged_files", lambda part, count, run: iter([(part, "answered")]))
    out = tmp_path / "counts.json"
    monkeypatch.setattr(sys, "argv", ["reliability.py", f"--out={out}", "--parts", "images", "tables"])
    assert reliability.main() == 0
    stored = json.loads(out.read_text())
    assert stored["measured"] == {"images": {"date": 0}, "tables": {"date": 1}}
    assert [row["part"] for row in stored["rows"]] == ["images", "tables"]


def test_a_run_that_hangs_after_its_kills_is_reported(monkeypatch, tmp_path):
    def start(workdir, cache):
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    monkeypatch.setattr(disturbed_runs, "_start", start)
    monkeypatch.setattr(disturbed_runs, "_outcome", lambda workdir, run: "answered")
    monkeypatch.setattr(disturbed_runs, "_SECONDS", 0.5)
    run = disturbed_runs.Finished(Path(), Path(), Path(), "", seconds=0.1)
    found = list(itertools.islice(disturbed_runs.killed(tmp_path, run, 2), 9))
    assert found == [("killed run", "hang"), ("killed run", "answered"), ("killed run", "answered")]


@pytest.mark.parametrize("part", [disturbed_runs.killed, disturbed_runs.together])
def test_runs_that_fail_before_their_first_checkpoint_are_counted_and_end_the_part(part, monkeypatch, tmp_path):
    def start(workdir, cache):
        command = [sys.executable, "-c", "raise KeyError('Rows')"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    monkeypatch.setattr(disturbed_runs, "_start", start)
    run = disturbed_runs.Finished(Path(), Path(), Path(), "", seconds=600)
    found = list(itertools.islice(part(tmp_path, run, 2), 9))
    assert [outcome for _, outcome in found] == ["traceback"] * {"killed": 2, "together": 3}[part.__name__]


def test_a_run_that_is_killed_before_its_first_checkpoint_and_then_fails_is_silent(monkeypatch, tmp_path):
    programs = iter(["import time; time.sleep(60)", "raise KeyError('Rows')"])

    def start(workdir, cache):
        command = [sys.executable, "-c", next(programs)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    monkeypatch.setattr(disturbed_runs, "_start", start)
    run = disturbed_runs.Finished(Path(), Path(), Path(), "", seconds=0.1)
    assert list(disturbed_runs.killed(tmp_path, run, 1)) == [("killed run", "traceback"), ("killed run", "silent")]
