"""Training: optimiser, state, step, devices, checkpoints and the loop."""
