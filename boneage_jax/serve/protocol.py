"""The HTTP protocol of the service: that of uvicorn, with a time limit for the head of a request."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 20.0  # most seconds from the first byte of a request (at first: from the connection) to the end of its head


class LimitedH11Protocol(H11Protocol):
    """Closes a connection whose request has no complete head in time; uvicorn would keep it open."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Starts the time limit of the first request."""
        super().connection_made(transport)
        self._start_limit()

    def data_received(self, data: bytes) -> None:
        """Ends the time limit if the head is complete; starts it with the first byte of a further request."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._end_limit()
        elif self._limit is None:
            self._start_limit()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the time limit."""
        self._end_limit()
        super().connection_lost(exc)

    def _start_limit(self) -> None:
        self._limit = self.loop.call_later(SECONDS, self.timeout_keep_alive_handler)  # closes the connection

    def _end_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
