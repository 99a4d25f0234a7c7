"""Evaluation of a network's predictions: metrics in months, the report and its plots."""
