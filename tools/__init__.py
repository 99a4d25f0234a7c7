"""Command-line tools for developers of boneage_jax."""
