"""Requests over a socket as fast as they are answered: ready-made bytes out, replies counted in.

The client does as little as it can, and the same for every server, so what differs is the servers.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence

import msgpack

REPLY_BYTES = 1 << 16


def request(msgid: int, method: str, params: dict[str, object]) -> bytes:
    return msgpack.packb((0, msgid, method, (params,)))


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    return connection


class Replies:
    """Counts whole replies in what one connection receives."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._unpacker = msgpack.Unpacker()

    def take(self) -> int:
        data = self.connection.recv(REPLY_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._unpacker.feed(data)
        count = 0
        for _, _, error, _ in self._unpacker:
            if error is not None:
                raise RuntimeError(f"the server refused: {error}")
            count += 1
        return count


def one_client(path: str, requests: Sequence[bytes]) -> list[float]:
    """Seconds of each call, one after the other."""
    with connect(path) as connection:
        replies = Replies(connection)
        seconds = []
        for sent in requests:
            begun = time.perf_counter()
            connection.sendall(sent)
            while not replies.take():
                pass
            seconds.append(time.perf_counter() - begun)
    return seconds


def in_flight(path: str, requests: Sequence[bytes], depth: int) -> float:
    """Answers a second with `depth` requests under way on one connection."""
    with connect(path) as connection:
        replies = Replies(connection)
        begun, waiting, at = time.perf_counter(), 0, 0
        while at < len(requests) or waiting:
            more = requests[at : at + depth - waiting]
            if more:
                connection.sendall(b"".join(more))
                at, waiting = at + len(more), waiting + len(more)
            waiting -= replies.take()
        return len(requests) / (time.perf_counter() - begun)


def many_clients(path: str, requests: Sequence[bytes], clients: int) -> float:
    """Answers a second, every one of `clients` connections with one request under way."""
    left = list(requests)
    with selectors.EpollSelector() as selector:
        connections = [connect(path) for _ in range(clients)]
        begun = time.perf_counter()
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, Replies(connection))
            connection.sendall(left.pop())
        answered = 0
        while answered < len(requests):
            for key, _ in selector.select():
                done = key.data.take()
                answered += done
                if done and left:
                    key.data.connection.sendall(left.pop())
        rate = len(requests) / (time.perf_counter() - begun)
        for connection in connections:
            connection.close()
    return rate
