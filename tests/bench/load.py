"""Requests over a socket as fast as they are answered: ready-made bytes out, replies counted in.

The client does as little as it can, and the same for every server, so what differs is the servers.
"""

from __future__ import annotations

import selectors
import socket
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgpack

from tests.bench.figures import Sample

REPLY_BYTES = 1 << 16
MICROSECONDS, MILLISECONDS = 1e6, 1e3


def request(msgid: int, method: str, params: dict[str, object]) -> bytes:
    return msgpack.packb((0, msgid, method, (params,)))


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class Replies:
    """Counts whole replies in what one connection receives."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def take(self) -> int:
        raise NotImplementedError

    def receive(self) -> bytes:
        data = self.connection.recv(REPLY_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


class MessagePackReplies(Replies):
    """Of an agent, and of the echo."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._unpacker = msgpack.Unpacker()
        self.last: Any = None

    def take(self) -> int:
        self._unpacker.feed(self.receive())
        count = 0
        for _, _, error, result in self._unpacker:
            if error is not None:
                raise RuntimeError(f"the server refused: {error}")
            self.last = result
            count += 1
        return count


class RedisReplies(Replies):
    """Of a Redis server (RESP2), to one command: "+OK", or a value without line ends."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._received = b""

    def take(self) -> int:
        self._received += self.receive()
        if self._received.startswith(b"-"):
            raise RuntimeError(f"Redis refused: {self._received!r}")
        if self._received.count(b"\r\n") < (2 if self._received.startswith(b"$") else 1):
            return 0
        self._received = b""
        return 1


class AssuanReplies(Replies):
    """Of a GnuPG agent: lines, of which the last begins with OK; one greets."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._received = b""
        while not self.take():
            pass

    def take(self) -> int:
        self._received += self.receive()
        *_, last, rest = (b"", *self._received.split(b"\n"))
        if rest or not last.startswith((b"OK", b"ERR")):
            return 0
        if last.startswith(b"ERR"):
            raise RuntimeError(f"gpg-agent refused: {self._received!r}")
        self._received = b""
        return 1


class SshReplies(Replies):
    """Of an ssh-agent (draft-ietf-sshm-ssh-agent): a length of four bytes, then the message."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._received = b""
        self.last = b""

    def take(self) -> int:
        self._received += self.receive()
        if len(self._received) < 4 or len(self._received) < 4 + struct.unpack_from(">I", self._received)[0]:
            return 0
        self.last, self._received = self._received[4:], b""
        return 1


class Server(NamedTuple):
    """Something that answers at a socket, and the process that does."""

    pid: int
    path: str
    replies: Callable[[socket.socket], Replies] = MessagePackReplies

    def processor_seconds(self) -> float:
        """What its process has had so far, all threads, those that have ended too (clock_getcpuclockid(3))."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def metered(self, measure: Callable[[], float], count: int) -> Sample:
        """A figure, with the processor time that each of `count` operations took the server."""
        begun = self.processor_seconds()
        value = measure()
        return Sample(value, (self.processor_seconds() - begun) / count * MICROSECONDS)

    def one_by_one(self, requests: Sequence[bytes]) -> Sample:
        """The median of calls one after the other, in microseconds."""

        def p50() -> float:
            return statistics.median(one_client(self.path, requests, self.replies)) * MICROSECONDS

        return self.metered(p50, len(requests))

    def connecting_anew(self, requests: Sequence[bytes]) -> Sample:
        """The median of connecting, calling and closing, in microseconds."""

        def p50() -> float:
            seconds = []
            for sent in requests:
                begun = time.perf_counter()
                one_client(self.path, [sent], self.replies)
                seconds.append(time.perf_counter() - begun)
            return statistics.median(seconds) * MICROSECONDS

        return self.metered(p50, len(requests))

    def in_flight(self, requests: Sequence[bytes], depth: int) -> Sample:
        """Answers a second with `depth` requests under way on one connection."""
        return self.metered(lambda: in_flight(self.path, requests, depth), len(requests))

    def many_clients(self, requests: Sequence[bytes], clients: int) -> Sample:
        """Answers a second, every one of `clients` connections with one request under way."""
        return self.metered(lambda: many_clients(self.path, requests, clients, self.replies), len(requests))


def one_client(
    path: str, requests: Sequence[bytes], replies: Callable[[socket.socket], Replies] = MessagePackReplies
) -> list[float]:
    """Seconds of each call, one after the other."""
    with connect(path) as connection:
        received = replies(connection)
        seconds = []
        for sent in requests:
            begun = time.perf_counter()
            connection.sendall(sent)
            while not received.take():
                pass
            seconds.append(time.perf_counter() - begun)
    return seconds


def results(path: str, requests: Sequence[bytes]) -> list[Any]:
    """What an agent answers, untimed."""
    found = []
    with connect(path) as connection:
        received = MessagePackReplies(connection)
        for sent in requests:
            connection.sendall(sent)
            while not received.take():
                pass
            found.append(received.last)
    return found


def in_flight(path: str, requests: Sequence[bytes], depth: int) -> float:
    with connect(path) as connection:
        replies = MessagePackReplies(connection)
        begun, waiting, at = time.perf_counter(), 0, 0
        while at < len(requests) or waiting:
            more = requests[at : at + depth - waiting]
            if more:
                connection.sendall(b"".join(more))
                at, waiting = at + len(more), waiting + len(more)
            waiting -= replies.take()
        return len(requests) / (time.perf_counter() - begun)


def many_clients(
    path: str, requests: Sequence[bytes], clients: int, replies: Callable[[socket.socket], Replies]
) -> float:
    left = list(requests)
    with selectors.EpollSelector() as selector:
        connections = [connect(path) for _ in range(clients)]
        begun = time.perf_counter()
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, replies(connection))
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
