"""`python -m tools.readme_commands`: finding commands, running them, and making their input files."""

import os
import sys

import pytest

from boneage_jax.data import rsna
from boneage_jax.data.radiograph import read
from boneage_jax.sex import Sex
from tools import readme_commands, readme_inputs

DOCUMENT = """\
Text, and `sh -c inline`.

```sh
pip install .
boneage predict hand.png --sex F  # a comment
# only a comment
pip install -e . && python launch.py --config=configs/quickstart.py
python launch.py --config=configs/xception.py \\
    --config.data.dir=DIR

```

```python
not = "a command"
```

```sh
boneage predict FOLDER > ages.csv
```
"""


def test_commands_are_the_lines_of_sh_blocks_except_installations():
    assert readme_commands.commands(DOCUMENT) == [
        "boneage predict hand.png --sex F",
        "python launch.py --config=configs/quickstart.py",
        "python launch.py --config=configs/xception.py --config.data.dir=DIR",
        "boneage predict FOLDER > ages.csv",
    ]


def test_a_hash_inside_a_word_does_not_start_a_comment():
    assert readme_commands.commands("```sh\ncurl localhost/#top # why\n```\n") == ["curl localhost/#top"]


def test_reductions_are_inserted_before_a_redirection(monkeypatch):
    monkeypatch.setattr(readme_commands, "REDUCTIONS", {"train --fast": "", "train": "--epochs=1"})
    assert readme_commands.reduced("train --big > log") == "train --big --epochs=1 > log"
    assert readme_commands.reduced("train | tail") == "train --epochs=1 | tail"
    assert readme_commands.reduced("train --fast") == "train --fast"
    assert readme_commands.reduced("boneage predict") == "boneage predict"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "checkout").mkdir()
    return tmp_path / "checkout"


def test_the_first_failure_ends_the_run_with_its_output(folder):
    commands = ["echo first > one", "echo broken >&2; exit 3", "echo never > three"]
    with pytest.raises(readme_commands.CommandError, match=r"(?s)broken\n.*exit 3\nended with status 3"):
        readme_commands.run_all(commands, folder, dict(os.environ))
    assert [path.name for path in folder.iterdir()] == ["one"]


def test_a_command_that_exceeds_the_time_limit_is_stopped(folder, monkeypatch):
    monkeypatch.setattr(readme_commands, "LIMIT", 0.5)
    with pytest.raises(readme_commands.CommandError, match=r"did not end within 0\.5 s"):
        readme_commands.run_all(["sleep 60"], folder, dict(os.environ))


def test_a_server_runs_for_the_commands_after_it_and_ends_with_them(folder, monkeypatch, unused_port):
    server = f"{sys.executable} -m http.server {unused_port} --bind 127.0.0.1"
    monkeypatch.setattr(readme_commands, "SERVERS", (sys.executable,))
    (folder / "page").write_text("answer")
    client = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    asking = f"python3 -c '{client}' http://127.0.0.1:{unused_port}/page > answer"
    readme_commands.run_all([server, asking], folder, dict(os.environ))
    assert (folder / "answer").read_text().strip() == "answer"
    with pytest.raises(readme_commands.CommandError, match="Connection refused"):
        readme_commands.run_all([asking], folder, dict(os.environ))


def test_a_server_that_does_not_start_is_a_failure(folder, monkeypatch):
    monkeypatch.setattr(readme_commands, "SERVERS", ("echo no port",))
    with pytest.raises(readme_commands.CommandError, match=r"(?s)no port here\n.*ended with status 0"):
        readme_commands.run_all(["echo no port here"], folder, dict(os.environ))


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_inputs_include_a_dicom_hand_and_the_three_rsna_splits(tmp_path):
    readme_inputs.make(tmp_path)
    pixels, header = read(tmp_path / "hand.dcm")
    assert (pixels.shape, header.sex) == ((512, 512), Sex.FEMALE)
    found = rsna.find(tmp_path / "DIR")
    assert {split: [image.id for image in images] for split, images in found.items()} == {
        "train": list(readme_inputs.TRAIN),
        "validation": list(readme_inputs.VALIDATION),
        "test": list(readme_inputs.TEST),
    }
    first = found["test"][0]
    age, sex = readme_inputs.child("4360")
    assert (first.id, first.age, first.sex) == ("4360", age + 0.25, sex)
    labelled = rsna.find_labelled(tmp_path / "labels.csv", tmp_path / "DIR")
    assert len(labelled) == sum(map(len, found.values()))
