"""Middleware for every request: upload limit, security headers, log, and error responses without details."""

import json
import logging
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from boneage_jax.serve.reading import FailedUploadError
from boneage_jax.serve.uploads import LIMIT

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every response: nothing may be cached, framed, or loaded from another host."""

_CLOSED = 499  # in the log: the client has disconnected
_log = logging.getLogger("boneage_jax.serve")


class Guard:
    """ASGI middleware outside all other layers of the application.

    It logs only the method, the status and the duration of a request: paths, headers, addresses and exception messages
    can contain submitted data.

    Args:
        app: the application.
        limit: most bytes of a request's body, with or without a Content-Length header.
    """

    def __init__(self, app: ASGIApp, limit: int = LIMIT):
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        body, answer = _Body(scope, receive, self._limit), _Answer(send)
        try:
            body.check_length()
            await self._app(scope, body.receive, lambda message: answer.send(message, body))
        except FailedUploadError as error:
            await answer.fail(error.status, error.body, body)
        except ClientDisconnect:
            answer.status = answer.status or _CLOSED
        except Exception:
            # A bug; the application has already responded. It is not logged, because its message may quote a header.
            answer.status = answer.status or 500
        seconds = time.perf_counter() - start
        _log.info("%s %s %.0f ms", _method(scope), answer.status or _CLOSED, 1e3 * seconds)


class _Body:
    """The body of a request; counts the bytes as they arrive."""

    def __init__(self, scope: Scope, receive: Receive, limit: int):
        self._headers = Headers(scope=scope)
        self._receive = receive
        self._limit = limit
        self._count = 0
        self._complete = False

    def check_length(self) -> None:
        """Raises FailedUploadError if the Content-Length header exceeds the limit."""
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """Receives the next part of the body.

        Raises:
            FailedUploadError: the body so far is larger than the limit.
        """
        message = await self._next()
        if self._count > self._limit:
            raise self._too_large()
        return message

    async def discard(self) -> None:
        """Reads and drops the rest, at most `limit` more bytes: many clients read no response until they have sent all.

        Clients that wait for "100 Continue" send nothing, so there is nothing to read.
        """
        end = self._count + self._limit
        announced = self._headers.get("content-length", "0") != "0" or "transfer-encoding" in self._headers
        if not announced or self._headers.get("expect", "").lower() == "100-continue":
            return
        while not self._complete and self._count <= end:
            await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _too_large(self) -> FailedUploadError:
        return FailedUploadError(413, {"error": f"The upload is larger than {self._limit / 2**20:g} MiB."})


class _Answer:
    """Sends the response: adds the security headers, and reads the rest of the request before an error is sent."""

    def __init__(self, send: Send):
        self._send = send
        self.status: int | None = None

    async def send(self, message: Message, body: _Body) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if message["status"] >= 400:
                await body.discard()
            MutableHeaders(scope=message).update(HEADERS)
        await self._send(message)

    async def fail(self, status: int, content: dict[str, Any], body: _Body) -> None:
        """Sends an error, unless a response has already started."""
        if self.status is not None:
            return
        data = json.dumps(content).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers}, body)
        await self._send({"type": "http.response.body", "body": data})


def _method(scope: Scope) -> str:
    """The method if it is a standard one, otherwise "OTHER": a client can send any word."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "OTHER"
