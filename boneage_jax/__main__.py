"""`python -m boneage_jax` is the command `boneage`."""

import sys

from boneage_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
