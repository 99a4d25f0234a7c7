"""What holds for every request: the upload limit, security headers, the log, and answers without details of errors."""

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
"""Of every answer: nothing is kept, framed, or loaded from another host."""

_CLOSED = 499  # in the log: the client has gone
_log = logging.getLogger("boneage_jax.serve")


class Guard:
    """Wraps an application, outside of all its own layers.

    It logs the method, the status and the duration of a request, and nothing else: paths, headers, addresses and the
    messages of exceptions can hold what was sent.

    Args:
        app: the application.
        limit: bytes of a request's body, whether its length is announced or not.
    """

    def __init__(self, app: ASGIApp, limit: int = LIMIT):
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
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
            # A mistake in the program, which the application has answered; its message may quote a header.
            answer.status = answer.status or 500
        seconds = time.perf_counter() - start
        _log.info("%s %s %.0f ms", _method(scope), answer.status or _CLOSED, 1e3 * seconds)


class _Body:
    """The body of a request, counted as it arrives."""

    def __init__(self, scope: Scope, receive: Receive, limit: int):
        self._headers = Headers(scope=scope)
        self._receive = receive
        self._limit = limit
        self._count = 0
        self._complete = False

    def check_length(self) -> None:
        """Raises FailedUploadError where the announced length is above the limit."""
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part.

        Raises:
            FailedUploadError: with it, the body is larger than the limit.
        """
        message = await self._next()
        if self._count > self._limit:
            raise self._too_large()
        return message

    async def discard(self) -> None:
        """Reads the rest, at most the limit once more: many clients read no answer before they have sent all.

        Those that wait for "100 Continue" send nothing.
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
    """The answer as it is sent: with the headers, and after the request's body where it is an error."""

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
        """Sends an error, unless an answer has begun."""
        if self.status is not None:
            return
        data = json.dumps(content).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers}, body)
        await self._send({"type": "http.response.body", "body": data})


def _method(scope: Scope) -> str:
    """One of HTTP's own; a client can send any word."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "OTHER"
