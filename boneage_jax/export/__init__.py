"""From a training run to a weights file: export, model card and the fitting of the checks of input images."""
