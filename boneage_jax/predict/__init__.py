"""Prediction with released weights: predictor, heat maps, results, work lists and writers."""
