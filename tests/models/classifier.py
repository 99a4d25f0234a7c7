"""A trunk under the classifier it was published with, whose parameters can be counted."""

import flax.linen as nn
import jax


class Classifier(nn.Module):
    """For 1,000 classes, after the global pool; with a LayerNorm between the two as in ConvNeXt."""

    trunk: nn.Module
    norm: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        pooled = self.trunk(image, train=train).mean(axis=(1, 2))
        return nn.Dense(1000)(nn.LayerNorm()(pooled) if self.norm else pooled)


def count(tree) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
