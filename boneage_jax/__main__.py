"""`python -m boneage_jax` runs the command `boneage`."""

from boneage_jax.commands.main import command

if __name__ == "__main__":
    command()
