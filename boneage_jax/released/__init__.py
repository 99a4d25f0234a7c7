"""Released weights: the file, its calibration and the checks of input images stored in it."""
