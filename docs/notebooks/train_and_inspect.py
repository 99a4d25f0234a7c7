# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Notebook: train a network and inspect it
#
# A very small ConvMixer learns the bone age of drawn hands in seconds. The notebook goes from a configuration to an
# evaluated checkpoint. `configs/quickstart.py` does the same with more and larger images and more epochs.

# %%
import csv
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from boneage_jax.config import base
from boneage_jax.evaluate import report
from boneage_jax.train import evaluation, loop

flags.FLAGS.mark_as_parsed()  # the data pipeline reads absl's flags, which a notebook does not parse
workdir = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The configuration
#
# `base()` returns the default of every key; a configuration changes only the keys that differ.

# %%
config = base()
config.name = "notebook"
config.data.name = "phantom"
config.data.options = ConfigDict({"count": {"train": 256, "validation": 64}})
config.data.cache = str(workdir / "cache")
config.data.workers = 0
config.preprocess.size = 48
config.preprocess.clahe_grid = 4
config.preprocess.scaling = "standardise"
config.augment.rotation = 8.0
config.augment.shift = 0.05
config.augment.zoom = 0.05
config.model.name = "convmixer"
config.model.options = ConfigDict({"dim": 32, "depth": 2, "kernel_size": 5, "patch_size": 4, "activation": "relu"})
config.model.head_options = ConfigDict({"hidden": (64,)})
config.optimizer.learning_rate = 1e-2
config.optimizer.warmup_epochs = 0.5
config.optimizer.schedule = "cosine"
config.optimizer.plateau.factor = 1.0
config.train.batch_size = 16
config.train.epochs = 12
config.train.early_stopping = 0

# %% [markdown]
# ## Training
#
# `train_and_evaluate` writes checkpoints, `metrics.jsonl`, `predictions.csv` and plots to the work directory. A stopped
# run can be resumed and ends with the same parameters.

# %%
result = loop.train_and_evaluate(config, workdir / "run")
print(report.table(result))

# %% [markdown]
# ## The predictions
#
# `predictions.csv` has one row per image. After seconds of training, the network's error is well below that of the best
# constant guess.

# %%
with (workdir / "run/evaluate/validation/predictions.csv").open() as file:
    rows = list(csv.DictReader(file))
ages = np.array([float(row["age"]) for row in rows])
errors = np.array([float(row["error"]) for row in rows])
mae, guess = np.abs(errors).mean(), np.abs(ages - np.median(ages)).mean()
print(f"MAE {mae:.1f} months; guessing the median: {guess:.1f}")
assert mae < 0.8 * guess

plt.scatter(ages, ages + errors, s=8)
plt.axline((0, 0), slope=1, color="gray")
plt.xlabel("reference bone age, months")
plt.ylabel("predicted, months")
plt.show()

# %% [markdown]
# ## The parameters
#
# `restore_best` returns the experiment and the state of the best checkpoint. Parameters are in "trunk" and "head".

# %%
experiment, state = evaluation.restore_best(workdir / "run")
for part, tree in state.params.items():
    print(f"{part}: {sum(leaf.size for leaf in jax.tree.leaves(tree)):,} parameters")
kernel = np.asarray(state.params["trunk"]["patch_embedding"]["kernel"])  # [4, 4, 1, 32]

figure, axes = plt.subplots(4, 8, figsize=(8, 4))
for axis, one in zip(axes.flat, np.moveaxis(kernel[:, :, 0], -1, 0), strict=True):
    axis.imshow(one, cmap="gray")
    axis.axis("off")
plt.show()
