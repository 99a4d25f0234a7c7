"""Programs for those who work on boneage_jax."""
