"""Calls through agentd's client, and the same request as ready-made bytes. `client_calls.py SOCKET`."""

from __future__ import annotations

import socket
import statistics
import sys
import time
from collections.abc import Callable

import anyio
import msgpack
from asking import Figures, in_threads, one_by_one, serve

from agentd_client import Client
from agentd_client.aio import AsyncClient

THREADS = 16
TIMEOUT_SECONDS = 60.0


def ready_made_bytes(path: str, token: str) -> Callable[[], None]:
    """A request sent and its reply decoded: as little as any client can do."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    unpacker = msgpack.Unpacker()
    sent = msgpack.packb((0, 1, "verifyToken", ({"token": token},)))

    def call() -> None:
        connection.sendall(sent)
        unpacker.feed(connection.recv(1 << 16))
        _, _, error, result = unpacker.unpack()
        assert error is None
        assert result["valid"]

    return call


def asynchronous(path: str, token: str, backend: str) -> Callable[[int], Figures]:
    async def verify(count: int) -> Figures:
        async with await AsyncClient.connect(path, timeout=TIMEOUT_SECONDS) as agent:
            assert await agent.verify_token(token)
            seconds = []
            processor = time.process_time()
            for _ in range(count):
                begun = time.perf_counter()
                await agent.verify_token(token)
                seconds.append(time.perf_counter() - begun)
            return {
                "value": statistics.median(seconds),
                "processor": (time.process_time() - processor) / count,
            }

    return lambda count: anyio.run(verify, count, backend=backend)


def main(path: str) -> None:
    with Client.connect(path, timeout=TIMEOUT_SECONDS) as agent:
        token = agent.create_token(label="bench").token

        def create() -> None:
            agent.create_token(label="bench")

        serve(
            {
                "bytes": one_by_one(ready_made_bytes(path, token)),
                "verify": one_by_one(lambda: agent.verify_token(token)),
                "verify under trio": asynchronous(path, token, "trio"),
                "verify under asyncio": asynchronous(path, token, "asyncio"),
                "create": one_by_one(create),
                "create in threads": in_threads(create, THREADS),
            }
        )


if __name__ == "__main__":
    main(sys.argv[1])
