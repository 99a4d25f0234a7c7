"""Warnings are suppressed only while a block runs, however the blocks of threads overlap."""

import warnings

import pytest

from boneage_jax.data import python_warnings


def test_overlapping_blocks_restore_the_filters():
    before = list(warnings.filters)
    first, second = python_warnings.suppressed(), python_warnings.suppressed()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("ignored, because the second block still runs", UserWarning, stacklevel=1)
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning, match="an error again"):
        warnings.warn("an error again", UserWarning, stacklevel=1)


def test_an_error_ends_the_block():
    before = list(warnings.filters)
    with pytest.raises(KeyError), python_warnings.suppressed():
        raise KeyError
    assert list(warnings.filters) == before
