"""Both ends of a connection: a client made of a bare socket, and sessions that answer as they are told."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import trio

from agentd.server import agent_dispatch
from agentd.server.connection import Connection
from agentd.server.dispatch import Dispatch
from agentd.server.peer import peer_of
from agentd.server.peer_log import PeerLog
from agentd.server.traffic import Traffic
from agentd_client.protocol.results import Counters, CreatedToken, Opener, SessionInfo, Status, Verification

LOGGER = logging.getLogger("agentd.test")
VALID = Verification(True, None, SessionInfo("id", "a long label, " * 14, 1.5, None, Opener(os.geteuid(), 7)))
MALFORMED = Verification(False, "MALFORMED", None)
STATUS = Status("1", "a", 2, 3.5, 4.5, 5, "k", "/s", "/d", 6, True, Counters(1, 2, 3, 4, 5, 6, 7))


class FakeSessions:
    """The token "good" is valid. What waits, waits for the gate of its label, token or id, where there is one."""

    def __init__(self) -> None:
        self.gates: dict[object, trio.Event] = {}
        self.asked: list[tuple[object, ...]] = []
        self.waiting = 0
        self.most_waiting = 0

    def gate(self, name: object) -> trio.Event:
        return self.gates.setdefault(name, trio.Event())

    async def _wait(self, name: object) -> None:
        self.waiting += 1
        self.most_waiting = max(self.waiting, self.most_waiting)
        try:
            if name in self.gates:
                await self.gates[name].wait()
        finally:
            self.waiting -= 1

    def judge(self, token: object) -> Verification:
        return VALID if token == "good" else MALFORMED

    async def open_session(
        self, expiry: object = None, label: object = None, opened_by: Opener | None = None
    ) -> CreatedToken:
        self.asked.append(("open", expiry, label, opened_by))
        await self._wait(label)
        return CreatedToken(f"token of {label}", "id", None)

    async def revoke_token(self, token: object = None, *, id: object = None) -> bool:
        self.asked.append(("revoke", token, id))
        await self._wait(token or id)
        return True

    async def reset_key(self) -> str:
        self.asked.append(("reset",))
        await self._wait("reset")
        return "key"


def dispatch_of(sessions: FakeSessions) -> Dispatch:
    return agent_dispatch(sessions, lambda: STATUS, version="1.2", logger=LOGGER)


def request(msgid: int, method: str, /, *params: object, **named: object) -> bytes:
    return msgpack.packb([0, msgid, method, [*params] if params else [named]])


def verify(msgid: int, token: object = "good") -> bytes:
    return request(msgid, "verifyToken", token=token)


def create(msgid: int, label: str) -> bytes:
    return request(msgid, "createToken", label=label)


class Talker:
    """A client that says whatever a test wants it to say."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = trio.socket.from_stdlib_socket(sock)
        self._unpacker = msgpack.Unpacker()

    @classmethod
    async def connect(cls, path: str) -> Talker:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    async def send(self, *messages: bytes) -> None:
        await trio.SocketStream(self.sock).send_all(b"".join(messages))

    async def replies(self, count: int) -> list[list[object]]:
        """The next replies, fewer only where the connection ends before."""
        found: list[list[object]] = []
        while len(found) < count:
            for message in self._unpacker:
                found.append(message[1:])
                if len(found) == count:
                    return found
            try:
                data = await self.sock.recv(65536)
            except ConnectionResetError:
                break  # closed with bytes of ours unread; what had been sent before was received before
            if not data:
                break
            self._unpacker.feed(data)
        return found

    async def everything(self) -> list[list[object]]:
        """All replies until the connection ends."""
        found = await self.replies(10**9)
        assert self._unpacker.read_bytes(1) == b"", "the connection ended within a message"
        return found


def msgids(replies: list[list[object]]) -> list[object]:
    return [reply[0] for reply in replies]


@asynccontextmanager
async def connected(
    sessions: FakeSessions, *, buffer: int | None = None
) -> AsyncIterator[tuple[Talker, Connection]]:
    """A client and the connection that serves it; leaving closes the client and waits for the other side's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if buffer is not None:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    theirs.setblocking(False)
    connection = Connection(theirs, peer_of(theirs), dispatch_of(sessions), PeerLog(LOGGER, Traffic()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        with Talker(ours) as talker:
            yield talker, connection
    assert theirs.fileno() == -1
