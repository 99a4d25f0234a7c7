"""Serves a web page and an HTTP interface that read bone ages; submitted data is never stored.

The log on stderr has the method, the status and the duration of each request, and the type and source line of internal
errors. Exit status: 143 after SIGTERM, 130 after Ctrl-C, 1 after an error.
"""

import argparse
import contextlib
import logging
import socket
import sys
from pathlib import Path

from boneage_jax import extras
from boneage_jax.commands import listening, paths, weights_option
from boneage_jax.errors import BoneAgeError

NAME = "serve"
HELP = "serve a web page and an HTTP interface"
_SHORTEST = 16  # characters of a token


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    parser.add_argument(
        "--port", type=int, default=8080, help="port to listen on, 0 for any free one; default: %(default)s"
    )
    weights_option.add(parser)
    parser.add_argument(
        "--token-file",
        type=paths.path,
        metavar="FILE",
        help=f"file with the token, {_SHORTEST} or more characters, that every request must send; optional only on a "
        "loopback address",
    )
    parser.add_argument(
        "--max-uploads",
        type=int,
        default=64,
        metavar="N",
        help="most uploads at the same time; further ones get status 503; default: %(default)s",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM."""
    extras.require("boneage serve", "serve", "fastapi", "uvicorn", "python_multipart", "jinja2")
    token = None if arguments.token_file is None else _read_token(arguments.token_file)
    if token is None and not listening.is_loopback(arguments.host):
        raise BoneAgeError(
            f"--host {arguments.host} can be reached by other machines; give a token file with --token-file"
        )
    listening.check_port(arguments.port)
    if arguments.max_uploads < 1:
        raise BoneAgeError(f"--max-uploads is {arguments.max_uploads}, expected 1 or more")
    with _bound(arguments.host, arguments.port) as bound:
        import uvicorn

        from boneage_jax.serve import app
        from boneage_jax.serve.protocol import LimitedH11Protocol
        from boneage_jax.serve.reading import Reading

        predictor = weights_option.load(arguments)
        # Closed here and not by the application: after a second Ctrl-C, uvicorn exits without running its shutdown.
        with contextlib.closing(Reading(predictor, arguments.max_uploads)) as reading:
            listening.log_to_stderr("boneage_jax.serve")
            reading.warm_up()
            host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
            print(f"serving http://{host}:{bound.getsockname()[1]}/ (Ctrl-C stops it)", file=sys.stderr, flush=True)
            config = uvicorn.Config(
                app.make(reading, token),
                log_config=None,
                log_level=logging.CRITICAL,  # `Guard` writes the log
                access_log=False,
                server_header=False,
                http=LimitedH11Protocol,
                ws="none",
            )
            uvicorn.Server(config).run(sockets=[bound])
    return 0


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise BoneAgeError(f"the token file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if len(token) < _SHORTEST or not token.isprintable() or " " in token:
        raise BoneAgeError(
            f"{path} contains no token; expected one line of {_SHORTEST} or more ASCII characters without spaces, such "
            "as the output of `openssl rand -hex 32`"
        )
    return token


def _bound(host: str, port: int) -> socket.socket:
    """Opens a listening socket, so that a bad address fails before the network is compiled."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        host.encode("idna")  # `create_server` would leave its socket open if this failed
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:  # UnicodeError: it cannot be a name, such as hôpital..example
        reason = getattr(error, "strerror", None) or error
        raise BoneAgeError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from None
