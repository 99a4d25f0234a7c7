"""The time limit for the head of a request, on connections to a small application."""

import asyncio
import contextlib

import pytest
import uvicorn
from uvicorn.server import ServerState

from boneage_jax.serve import protocol

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def echo(scope, receive, send):
    """Sends back the body of the request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def connected():
    config = uvicorn.Config(echo, log_config=None, lifespan="off", ws="none")
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol.LimitedH11Protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    async with server, asyncio.timeout(10):
        yield reader, writer
        writer.close()
        await asyncio.gather(*state.tasks)


async def trickle(writer, data, pause=0.05):
    """Sends one byte at a time, until the connection is closed."""
    with contextlib.suppress(ConnectionError):
        for place in range(len(data)):
            writer.write(data[place : place + 1])
            await writer.drain()
            await asyncio.sleep(pause)


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setattr(protocol, "SECONDS", 0.3)


def test_a_connection_without_a_request_is_closed():
    async def run():
        async with connected() as (reader, _):
            assert await reader.read() == b""

    asyncio.run(run())


def test_a_trickled_head_is_cut_off():
    async def run():
        async with connected() as (reader, writer):
            sending = asyncio.create_task(trickle(writer, HEAD))
            assert await reader.read() == b""
            await sending

    asyncio.run(run())


def test_a_trickled_head_of_a_second_request_is_cut_off():
    async def run():
        async with connected() as (reader, writer):
            writer.write(HEAD + b"body")
            assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200")
            sending = asyncio.create_task(trickle(writer, HEAD))
            assert await reader.read() == b""
            await sending

    asyncio.run(run())


def test_a_slow_body_and_later_requests_have_no_such_limit():
    async def run():
        async with connected() as (reader, writer):
            for _ in range(2):
                writer.write(HEAD)
                await trickle(writer, b"body", pause=0.15)
                assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200")
                await asyncio.sleep(0.5)

    asyncio.run(run())
