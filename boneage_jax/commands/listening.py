"""Functions shared by the commands that listen on a port."""

import ipaddress
import logging
import sys

from boneage_jax.errors import BoneAgeError

_HIGHEST_PORT = 65535


def is_loopback(host: str) -> bool:
    """Whether an address can be reached only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_port(port: int) -> None:
    """Raises BoneAgeError if a port is out of range; 0 stands for any free one."""
    if not 0 <= port <= _HIGHEST_PORT:
        raise BoneAgeError(f"--port is {port}, expected 0 to {_HIGHEST_PORT}")


def log_to_stderr(name: str) -> None:
    """Prints log messages of a package, of level INFO and above, with timestamps."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger(name)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # absl's first warning gives the root logger a handler, which would print each line again
