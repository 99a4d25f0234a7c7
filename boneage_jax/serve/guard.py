"""Middleware for every request: upload limit, security headers, log, and error responses without details."""

import asyncio
import contextlib
import json
import logging
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from boneage_jax.errors import where
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
_TOO_SLOW = 408  # the client has had its time, so the rest is not waited for
_SECONDS = 60.0  # most seconds to read and drop the rest of a request
_log = logging.getLogger("boneage_jax.serve")


class Guard:
    """ASGI middleware outside all other layers of the application.

    It logs only the method, the status and the duration of a request, and the type and source line of an internal
    error: paths, headers, addresses and exception messages can contain submitted data.

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
        except Exception as error:  # a bug; the application has already responded
            _log.error("internal error: %s", where(error))
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

    async def discard(self) -> bool:
        """Reads and drops the rest, because many clients read no response until they have sent all.

        It reads at most `limit` more bytes, for at most `_SECONDS`. Clients that wait for "100 Continue" send nothing,
        so there is nothing to read.

        Returns:
            Whether all has been read; if not, the connection cannot be used for another request.
        """
        announced = self._headers.get("content-length", "0") != "0" or "transfer-encoding" in self._headers
        if self._complete or not announced:
            return True
        if self._headers.get("expect", "").lower() != "100-continue":
            end = self._count + self._limit
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    while not self._complete and self._count <= end:
                        await self._next()
        return self._complete

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
            self.status = status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            if status == _TOO_SLOW or (status >= 400 and not await body.discard()):
                headers["Connection"] = "close"
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
