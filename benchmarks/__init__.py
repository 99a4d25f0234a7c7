"""Measurements beside other implementations and on whole data sets: `python -m benchmarks.NAME` in the checkout."""
