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
# # Notebook: a first reading
#
# The weights that come with the package read a drawn hand. No radiograph is needed.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

import boneage_jax
from boneage_jax import Item, Maps, RefusedImageError
from boneage_jax.data import phantom
from boneage_jax.sex import Sex

hand = phantom.render(96, Sex.MALE, size=512, seed=7).image  # uint8 [512, 512], a boy of 96 months
predictor = boneage_jax.load("accurate")

# %% [markdown]
# A reading needs the image and the sex. It returns months, a standard deviation and a 90 % interval.

# %%
reading = predictor.predict(hand, sex="M")
low, high = reading.interval
print(f"{reading.months:.1f} months, SD {reading.std:.1f}, 90 % interval {low:.1f} to {high:.1f}")
assert low < reading.months < high

# %% [markdown]
# ## What the network sees
#
# `prepare` crops to the hand, normalises its exposure and resamples it. Brightness and contrast of the file have no
# effect: the same hand at half the contrast gives the same reading to within rounding.

# %%
prepared = predictor.preprocessing.prepare(hand)  # uint8 [256, 256, 1]
faint = (64 + hand.astype(np.uint16) // 2).astype(np.uint8)
difference = predictor.predict(faint, sex="M").months - reading.months
print(f"at half the contrast the reading changes by {difference:+.2f} months")
assert abs(difference) < 2

figure, axes = plt.subplots(1, 2, figsize=(8, 4))
axes[0].imshow(hand, cmap="gray")
axes[0].set_title("the file")
axes[1].imshow(prepared[..., 0], cmap="gray")
axes[1].set_title("what the network sees")
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## What moved the reading
#
# The heat map integrates gradients from the blurred image to the image itself.

# %%
overlay = Maps(predictor).overlay(Item(hand, "M"))  # uint8 [h, w, 3]
plt.imshow(overlay)
plt.axis("off")
plt.show()

# %% [markdown]
# ## An unknown sex
#
# The sex is never assumed. `"unknown"` gives one reading for each sex.

# %%
both = predictor.predict(hand, sex="unknown")
for sex, one in both.by_sex.items():
    print(f"{sex}: {one.months:.1f} months")
assert both.months is None

# %% [markdown]
# ## An image that is not a hand
#
# The input checks refuse it and name the reason.

# %%
noise = np.random.default_rng(0).integers(0, 255, (512, 512)).astype(np.uint8)
try:
    predictor.predict(noise, sex="F")
except RefusedImageError as error:
    print(error)
else:
    raise AssertionError("noise was read as a hand")

# %% [markdown]
# ## Where a result comes from

# %%
for field, value in dataclasses.asdict(reading.provenance).items():
    print(f"{field}: {value}")
