"""Bone age from an image: released weights, their calibration, and the predictor that uses them."""
