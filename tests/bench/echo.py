"""The yardstick: a bare trio + msgpack echo. `python -m tests.bench.echo SOCKET`."""

from __future__ import annotations

import sys

import msgpack
import trio


async def handle(stream: trio.SocketStream) -> None:
    unpacker = msgpack.Unpacker()
    async for data in stream:
        unpacker.feed(data)
        replies = [msgpack.packb((1, msgid, None, params[0])) for _, msgid, _, params in unpacker]
        if replies:
            await stream.send_all(b"".join(replies))


async def main(path: str) -> None:
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listener.bind(path)
    listener.listen(128)
    await trio.serve_listeners(handle, [trio.SocketListener(listener)])


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
