"""A trunk with the classifier it was published with, for counting parameters."""

import flax.linen as nn
import jax


class Classifier(nn.Module):
    """A 1,000-class layer after global pooling; with a LayerNorm in between as in ConvNeXt."""

    trunk: nn.Module
    norm: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        pooled = self.trunk(image, train=train).mean(axis=(1, 2))
        return nn.Dense(1000)(nn.LayerNorm()(pooled) if self.norm else pooled)


def count(tree) -> int:
    """Number of elements in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
