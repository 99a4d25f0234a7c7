"""Packages that only some commands need."""

import importlib.util

from boneage_jax.errors import BoneAgeError


def require(what: str, extra: str, *packages: str) -> None:
    """Makes sure that the packages of an extra of this project are installed.

    Args:
        what: the command or flag that needs them.
        extra: the name of the extra in pyproject.toml.
        packages: names by which they are imported.

    Raises:
        BoneAgeError: some are missing.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise BoneAgeError(
            f'{what} needs {" and ".join(missing)}, which the extra "{extra}" installs: pip install -e ".[{extra}]"'
        )
