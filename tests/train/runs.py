"""What a run leaves in its work directory."""

import json
from typing import Any

import jax
import numpy as np

from boneage_jax.train.checkpoint import Restored, Store
from boneage_jax.train.experiment import Experiment


def newest(workdir) -> Restored:
    """The newest checkpoint."""
    store = Store(workdir / "checkpoints/latest", create=False)
    experiment = Experiment.from_about(store.about(), workdir)
    _, like = experiment.fresh_state(steps_per_epoch=1)
    restored = store.restore(like)
    store.close()
    return restored


def assert_same_to_the_bit(found: Restored, expected: Restored) -> None:
    assert found.step == expected.step
    for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(expected.state), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert found.about["progress"] == expected.about["progress"]


def records(workdir, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]
