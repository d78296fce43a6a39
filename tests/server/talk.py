"""Both ends of a connection: a client made of a bare socket, and sessions that answer as they are told."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import msgpack
import trio

from agentd.approval import Asker
from agentd.approval.terms import checked_reason
from agentd.methods import agent_dispatch
from agentd.process_identity import Process
from agentd.server.connection import Connection, Turns
from agentd.server.dispatch import Dispatch
from agentd.server.log import PeerLog, Traffic
from agentd.server.peer import Peer, Subscriber, Unsubscribe, peer_of
from agentd.sessions.counting import LazyPeer
from agentd.sessions.rules import checked_grant, checked_label, checked_ttl
from agentd_client.errors import PassphraseError
from agentd_client.protocol.results import (
    AuditEntry,
    AuditPage,
    CachedVerification,
    Counters,
    CreatedToken,
    Decision,
    Event,
    PeerIdentity,
    RequestedToken,
    RequestPage,
    SessionInfo,
    SessionPage,
    Status,
    Verification,
)

LOGGER = logging.getLogger("agentd.test")
VALID = CachedVerification(
    True, None, SessionInfo("id", "a long label, " * 14, 1.5, None, PeerIdentity(os.geteuid(), 7))
)
MALFORMED = Verification(False, "MALFORMED", None)
STATUS = Status("1", "a", 2, 3.5, 4.5, 5, "k", "/s", "/d", 6, True, Counters(1, 2, 3, 4, 5, 6, 7))


ENTRY = AuditEntry(1.5, 2.5, "refused", "id", "a label", "EXPIRED", 1000, 7, "/bin/sh", 3)
SESSIONS, ENTRIES = SessionPage([VALID.session], "after it"), AuditPage([ENTRY], None)


class FakeSessions:
    """The token "good" is valid, and "counted" once a write is done; what happens is what a test emits.

    What waits, waits for the gate of its label, token or id, where there is one.
    """

    def __init__(self) -> None:
        self.gates: dict[object, trio.Event] = {}
        self.asked: list[tuple[object, ...]] = []
        self.subscribers: list[Callable[[Event], None]] = []
        self.processes: list[Process | None] = []
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

    def verify_nowait(
        self, token: object, *, audience: object = None, scopes: object = None, by: LazyPeer
    ) -> Verification | None:
        if (audience, scopes) != (None, None):
            self.asked.append(("verify", token, audience, scopes, by.identity))
        if token == "counted":
            return None
        if token == "emits":
            self.emit(event("refused"))
        return VALID if token == "good" else MALFORMED

    async def verify_and_consume(
        self, token: object, *, audience: object = None, scopes: object = None, by: LazyPeer
    ) -> Verification:
        self.asked.append(("count", token, audience, scopes, by.identity))
        await self._wait(token)
        return VALID

    def inspect(
        self, token: object = None, *, id: str | None = None, audience: object = None, scopes: object = None
    ) -> Verification:
        if token is None or (audience, scopes) != (None, None):
            self.asked.append(("inspect", token, id, audience, scopes))
        return VALID if token == "good" or id == "id" else MALFORMED

    async def open_session(
        self,
        expiry: object = None,
        label: object = None,
        opened_by: PeerIdentity | None = None,
        *,
        audience: object = None,
        scopes: object = None,
        max_uses: object = None,
        max_lifetime: object = None,
        parent: str | None = None,
        bound: bool = False,
        process: Process | None = None,
    ) -> CreatedToken:
        self.processes.append(process)
        grant = (audience, scopes, max_uses, max_lifetime, parent, bound)
        self.asked.append(("open", expiry, label, opened_by, *grant))
        await self._wait(label)
        return CreatedToken(f"token of {label}", "id", None)

    async def renew_token(self, token: str, *, by: PeerIdentity | None = None) -> CreatedToken:
        self.asked.append(("renew", token, by))
        await self._wait(token)
        return CreatedToken(f"{token}, renewed", "id", 5.5)

    async def revoke_token(
        self, token: str | None = None, *, id: str | None = None, by: PeerIdentity | None = None
    ) -> bool:
        self.asked.append(("revoke", token, id, by))
        await self._wait(token or id)
        return True

    async def revoke_sessions(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        pid: int | None = None,
        parent: str | None = None,
        by: PeerIdentity | None = None,
    ) -> int:
        self.asked.append(("revoke some", state, label, pid, parent, by))
        await self._wait(label)
        return 3

    async def list_sessions(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        pid: int | None = None,
        parent: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> SessionPage:
        self.asked.append(("list", state, label, pid, parent, after, limit))
        return SESSIONS

    async def reset_key(self, *, grace_seconds: object = None, by: PeerIdentity | None = None) -> str:
        self.asked.append(("reset", grace_seconds, by))
        await self._wait("reset")
        return "key"

    async def list_audit(
        self,
        *,
        since: float | None = None,
        after: str | None = None,
        limit: int | None = None,
        kind: str | None = None,
        session: str | None = None,
    ) -> AuditPage:
        self.asked.append(("audit", since, after, kind, session, limit))
        return ENTRIES

    def on_event(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        self.subscribers.append(subscriber)
        return lambda: self.subscribers.remove(subscriber)

    def emit(self, *events: Event) -> None:
        for each in events:
            for subscriber in self.subscribers:
                subscriber(each)


def event(kind: str = "created", number: float = 1.5, label: str = "") -> Event:
    return Event(kind, number, f"id {number}", label, None, 7)


FULL = PeerIdentity(1000, 42, "/usr/bin/editor", "editor.scope")


class FakeCaller:
    """What a handler sees of a connection, with what it subscribed to."""

    def __init__(self) -> None:
        self.peer = Peer(1000, 100, Process(42, 1, "boot"))
        self.process = self.peer.process
        self.identity, self.described = PeerIdentity(1000, 42), FULL
        self.sources: list[object] = []
        self.waiting: list[trio.CancelScope] = []

    def hang_up_scope(self) -> trio.CancelScope:
        self.waiting.append(trio.CancelScope())
        return self.waiting[-1]

    def subscribe(self, source: Callable[[Subscriber], Unsubscribe]) -> None:
        self.sources.append(source)


class FakeLocking:
    """The passphrase is "right", and "waits" waits for its turn for ever."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.asked: list[tuple[object, ...]] = []

    async def lock(self, *, by: PeerIdentity | None) -> None:
        self.asked.append(("lock", by))

    async def unlock(
        self, passphrase: bytes, by: PeerIdentity, process: Process, waiting: trio.CancelScope
    ) -> None:
        self.asked.append(("unlock", passphrase, by))
        self.processes.append(process)
        with waiting:
            if passphrase == b"waits":
                await trio.sleep_forever()
        if waiting.cancelled_caught:
            self.asked.append(("dropped", passphrase))
        if passphrase != b"right":
            raise PassphraseError

    async def prove_presence(
        self, passphrase: bytes, by: PeerIdentity, process: Process, waiting: trio.CancelScope
    ) -> None:
        self.asked.append(("prove", passphrase, by))
        if passphrase == b"wrong":
            raise PassphraseError

    async def change_passphrase(
        self,
        old: bytes | None,
        new: bytes | None,
        by: PeerIdentity,
        process: Process,
        waiting: trio.CancelScope,
    ) -> bool:
        self.asked.append(("change", old, new, by))
        self.processes.append(process)
        return new is not None


class FakeDesk:
    """Grants whatever the rules accept, and notes it where `sessions` notes what it was asked."""

    def __init__(self, asked: list[tuple[object, ...]]) -> None:
        self.asked = asked

    async def request(self, asker: Asker, *, hung_up: trio.CancelScope, **asked: object) -> RequestedToken:
        self._check(asked)
        checked_label(asked["label"])
        checked_reason(asked["reason"])
        self.asked.append(("request", asker, *asked.values()))
        return RequestedToken("request", 1.5, "token", "id")

    async def collect(self, id: str, asker: Asker, wait: float, hung_up: trio.CancelScope) -> RequestedToken:
        self.asked.append(("collect", id, asker, wait))
        return RequestedToken(id, 1.5)

    def withdraw(self, id: str, asker: Asker) -> bool:
        self.asked.append(("withdraw", id, asker))
        return True

    def listed(self, after: str | None, limit: int | None) -> RequestPage:
        self.asked.append(("list requests", after, limit))
        return RequestPage([], None)

    def require_waiting(self, id: str) -> None:
        pass

    def deny(self, id: str, by: PeerIdentity) -> Decision:
        self.asked.append(("deny", id, by))
        return Decision(id)

    async def approve(self, id: str, by: PeerIdentity, process: Process, **granting: object) -> Decision:
        self._check({"audience": None, **granting})
        if not granting["is_proven"]:
            self.asked.append(("approve", id, by, process, *granting.values()))
        return Decision(id, "id")

    def _check(self, given: dict[str, object]) -> None:
        checked_ttl(given["expiry"], None)
        checked_grant(given["audience"], given["scopes"], given["max_uses"])


class FakeAgent:
    """An agent that is unlocked, with these sessions or a real manager."""

    can_prove_presence = True

    def __init__(self, manager: FakeSessions, locking: FakeLocking | None = None) -> None:
        locking = locking or FakeLocking()
        self.manager = manager
        self.desk = FakeDesk(getattr(manager, "asked", []))
        self.prove_presence = locking.prove_presence
        self.subscribe = manager.on_event
        self.lock, self.unlock, self.change_passphrase = (
            locking.lock,
            locking.unlock,
            locking.change_passphrase,
        )


def dispatch_of(sessions: FakeSessions, locking: FakeLocking | None = None) -> Dispatch:
    return agent_dispatch(FakeAgent(sessions, locking), lambda: STATUS, version="1.2", logger=LOGGER)


def request(msgid: int, method: str, /, *params: object, **named: object) -> bytes:
    return msgpack.packb([0, msgid, method, [*params] if params else [named]])


def verify(msgid: int, token: object = "good") -> bytes:
    return request(msgid, "verifyToken", token=token)


def subscribe(msgid: int) -> bytes:
    return request(msgid, "subscribe")


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


def why(msgid: int, sentence: str) -> list[object]:
    """What the agent says last on a connection that it closes for what the peer sent."""
    return [msgid, [1, f"INVALID_MESSAGE: {sentence}; the agent closes this connection"], None]


def msgids(replies: list[list[object]]) -> list[object]:
    return [reply[0] for reply in replies]


async def serve(connection: Connection) -> None:
    with closing(connection):
        await connection.run()


@asynccontextmanager
async def connected(
    sessions: FakeSessions,
    locking: FakeLocking | None = None,
    *,
    buffer: int | None = None,
    loop_turns: Turns | None = None,
) -> AsyncIterator[tuple[Talker, Connection]]:
    """A client and the connection that serves it; leaving closes the client and waits for the other side's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if buffer is not None:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    theirs.setblocking(False)
    log, dispatch = PeerLog(LOGGER, Traffic()), dispatch_of(sessions, locking)
    # A clock that stands still: no slice is over before its work is done, however slow the machine is.
    loop_turns = loop_turns or Turns(clock=lambda: 0.0)
    connection = Connection(theirs, peer_of(theirs), dispatch, log, loop_turns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, connection)
        with Talker(ours) as talker:
            yield talker, connection
    assert theirs.fileno() == -1
