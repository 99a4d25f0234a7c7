"""Runs a DICOM node: receives radiographs by C-STORE, reads those of hands, and sends the results to a destination.

The results of an image are a Structured Report and a Secondary Capture in its study. An accepted image, and then its
results, are kept on disk until the destination has the results. Exit status: 0 after SIGTERM or Ctrl-C, 1 after an
error.
"""

import argparse
import os
import re
import signal
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from boneage_jax.commands import listening, paths, weights_option
from boneage_jax.errors import BoneAgeError

if TYPE_CHECKING:
    from boneage_jax.node.destinations import Destination

NAME = "listen"
HELP = "read the radiographs that a DICOM archive sends"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    parser.add_argument("--aet", type=_title, default="BONEAGE", help="AE title of the node; default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    parser.add_argument(
        "--port", type=int, default=11112, help="port to listen on, 0 for any free one; default: %(default)s"
    )
    parser.add_argument(
        "--allow",
        type=_title,
        action="append",
        default=[],
        metavar="AET",
        help="AE title that may connect; repeat for several; optional only on a loopback address",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--send-to", type=_address, metavar="AET@HOST:PORT", help="archive to send the results to")
    where.add_argument("--dicomweb", type=_url, metavar="URL", help="DICOMweb service to send the results to")
    parser.add_argument(
        "--queue",
        type=paths.path,
        metavar="FILE",
        help="SQLite file of the queue; default: one per AE title in the user's state folder",
    )
    weights_option.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the node until SIGINT or SIGTERM."""
    from boneage_jax import extras

    extras.require("boneage listen", "dicom", "highdicom", "pynetdicom", "dicomweb_client")
    if not arguments.allow and not listening.is_loopback(arguments.host):
        raise BoneAgeError(
            f"--host {arguments.host} can be reached by other machines; list those that may connect, as in --allow PACS"
        )
    listening.check_port(arguments.port)
    from boneage_jax.node import service

    warnings.simplefilter("ignore")  # warnings of pydicom and highdicom quote header values
    listening.log_to_stderr("boneage_jax.node")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = service.Settings(
        arguments.aet,
        arguments.host,
        arguments.port,
        tuple(arguments.allow),
        arguments.queue or _state_folder() / f"{arguments.aet}.sqlite",
    )
    service.run(settings, weights_option.load(arguments), _destination(arguments), stop)
    return 0


def _destination(arguments: argparse.Namespace) -> "Destination":
    from boneage_jax.node.destinations import Archive, Service

    if arguments.dicomweb:
        return Service(arguments.dicomweb)
    return Archive(arguments.aet, *arguments.send_to)


def _state_folder() -> Path:
    return Path(os.path.expanduser(os.environ.get("XDG_STATE_HOME") or "~/.local/state"), "boneage_jax")


def _title(text: str) -> str:
    """Parses an AE title (PS3.5, 6.2): 1 to 16 ASCII characters without a backslash."""
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]{0,15}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an AE title of 1 to 16 ASCII characters")
    return text


def _address(text: str) -> tuple[str, str, int]:
    match = re.fullmatch(r"([^@]+)@(\[[^]]+\]|[^:]+):(\d{1,5})", text)
    if not match or not 0 < int(match[3]) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form AET@HOST:PORT, such as PACS@10.0.0.5:104")
    return _title(match[1]), match[2].strip("[]"), int(match[3])


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        if parts.password is not None:
            raise argparse.ArgumentTypeError(
                "the URL contains a password, which other users can see; put it into ~/.netrc"
            )
        is_service = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # an invalid IPv6 address or port
        is_service = False
    if not is_service:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the URL of a service, such as http://localhost:8042/dicom-web"
        )
    return text
