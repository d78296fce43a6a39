"""A scripted agent: a real Unix socket, our protocol, sessions in memory, and answers that a test can replace."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgpack

from agentd_client.errors import AgentdError, ParentNotValidError, TokenNotValidError
from agentd_client.protocol import reasons
from agentd_client.protocol.codec import Decoder, Encoder
from agentd_client.protocol.methods import error_to_wire, to_wire
from agentd_client.protocol.results import (
    AuditEntry,
    AuditPage,
    Counters,
    CreatedToken,
    Event,
    Hello,
    KeyReset,
    PeerIdentity,
    Revocation,
    Revocations,
    SessionInfo,
    SessionPage,
    Status,
    Subscribed,
    Verification,
)
from tests.agentctl.fake_locking import FakeLocking
from tests.agentctl.fake_requests import NOW, FakeRequests

DEFAULT_EXPIRY_SECONDS = 8 * 3600

Answer = Callable[[dict[str, Any]], Any]


class HangUpError(Exception):
    """Raised by a script: close the connection without an answer."""


class FakeAgent(FakeLocking, FakeRequests):
    """What a test reads: `calls` (method and parameters, in order) and `sessions` (by token).

    `page_size` is how many sessions or entries an answer holds at the most; after a page an empty one follows.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.sessions: dict[str, SessionInfo] = {}
        self.ended: dict[str, str] = {}
        self.script: dict[str, Answer] = {}
        self.audit: list[AuditEntry] = []
        self.page_size = 16
        self.subscribed = threading.Event()
        self._subscribers: list[socket.socket] = []
        self.memory_locked = True
        self.memory_secret: bool | None = True
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> FakeAgent:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.path.unlink()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]

    def refuse(self, method: str, error: AgentdError) -> None:
        def refusal(params: dict[str, Any]) -> Any:
            raise error

        self.script[method] = refusal

    def open(self, label: str = "", expiry: int | str | None = None, at: float = NOW) -> str:
        """Open a session as the person of another terminal would; returns its token."""
        return self._create_token({"label": label, "expiry": expiry}, at).token

    def hold(self, session: SessionInfo) -> str:
        """Keep a session as it is given; returns its token."""
        token = f"v4.local.held-{session.id}"
        self.sessions[token] = session
        return token

    def tell(self, *events: Event) -> None:
        """Send events to those who subscribed."""
        for subscriber in self._subscribers:
            with contextlib.suppress(OSError):  # it has seen enough
                for event in events:
                    subscriber.sendall(msgpack.packb([2, "event", [to_wire(event)]]))

    def hang_up(self) -> None:
        """Close the connections of those who subscribed."""
        for subscriber in self._subscribers:
            with contextlib.suppress(OSError):
                subscriber.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._converse, args=(connection,)))
            self._threads[-1].start()

    def _converse(self, connection: socket.socket) -> None:
        decoder, encoder = Decoder(), Encoder()
        peer, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with connection, contextlib.suppress(OSError):  # the client may give up at any moment
            while data := connection.recv(65536):
                for message in decoder.receive(data):
                    try:
                        reply = encoder.result(message.msgid, to_wire(self._answer(message, peer)))
                    except AgentdError as error:
                        reply = encoder.error(message.msgid, error_to_wire(error))
                    except HangUpError:
                        return
                    connection.sendall(reply)
                    if message.method == "subscribe":
                        self._subscribers.append(connection)
                        self.subscribed.set()

    def _answer(self, request: Any, peer: int) -> Any:
        (params,) = request.params
        with self._mutex:
            self.calls.append((request.method, params))
        if params.get("bound"):
            params = params | {"bound": peer}
        if request.method == "requestToken":
            params = params | {"peer": peer}
        self.refuse_while_locked(request.method)
        scripted = self.script.get(request.method)
        if scripted is not None:  # outside the lock: a script may wait for the test
            return scripted(params)
        with self._mutex:
            return getattr(self, "_" + request.method)(params)

    def _hello(self, params: dict[str, Any]) -> Hello:
        return Hello("agentd 0.1.0", 1, [])

    def _getStatus(self, params: dict[str, Any]) -> Status:  # noqa: N802 - the wire's name
        status = Status(
            version="0.1.0",
            agent_id="agent-1",
            pid=4711,
            started_at=NOW - 7_380,
            uptime_seconds=7_380.0,
            sessions=len(self.sessions),
            key_id="key-1",
            socket_path=str(self.path),
            store_path="/state/agentd/store",
            store_bytes=12 * 1024 * 1024,
            memory_locked=self.memory_locked,
            memory_secret=self.memory_secret,
            counters=Counters(90, 3, 2, 1, 1_234, 5, 67),
        )
        return self.seen_through_the_lock(self.seen_by_approvers(status))

    def _createToken(self, params: dict[str, Any]) -> CreatedToken:  # noqa: N802 - the wire's name
        self.refuse_without_approval(params)
        return self._create_token(params, NOW)

    def _create_token(self, params: dict[str, Any], at: float) -> CreatedToken:
        number = len(self.sessions) + len(self.ended) + 1
        expiry = params.get("expiry")
        expires_at = (
            None if expiry == "never" else at + (DEFAULT_EXPIRY_SECONDS if expiry is None else expiry)
        )
        token, session_id = f"v4.local.token-{number}", f"session-{number}"
        parent = params.get("parent")
        if parent is not None and parent not in self.sessions:
            raise ParentNotValidError
        self.sessions[token] = SessionInfo(
            session_id,
            params.get("label") or "",
            at,
            expires_at,
            PeerIdentity(1000, 4712),
            renewed_at=at,
            max_expires_at=None
            if params.get("maxLifetime") in (None, "never")
            else at + params["maxLifetime"],
            audience=params.get("audience"),
            scopes=params.get("scopes"),
            uses_left=params.get("maxUses"),
            parent=None if parent is None else self.sessions[parent].id,
            bound_pid=params.get("bound"),
        )
        return CreatedToken(token, session_id, expires_at)

    def _verifyToken(self, params: dict[str, Any]) -> Verification:  # noqa: N802 - the wire's name
        token = params["token"]
        session = self.sessions.get(token)
        if session is None:
            return Verification(False, self.ended.get(token, reasons.MALFORMED), None)
        return self._judged(session, params)

    def _judged(self, session: SessionInfo, params: dict[str, Any]) -> Verification:
        reason = None
        if session.expires_at is not None and session.expires_at < NOW:
            reason = reasons.EXPIRED
        elif session.audience is not None and params.get("audience") not in session.audience:
            reason = reasons.WRONG_AUDIENCE
        elif session.scopes is not None and not set(params.get("scopes") or ()) <= set(session.scopes):
            reason = reasons.MISSING_SCOPE
        return Verification(reason is None, reason, session)

    def _inspectToken(self, params: dict[str, Any]) -> Verification:  # noqa: N802 - the wire's name
        if "id" not in params:
            return self._verifyToken(params)
        for session in self.sessions.values():
            if session.id == params["id"]:
                return self._judged(session, params)
        return Verification(False, reasons.REVOKED, None)

    def _renewToken(self, params: dict[str, Any]) -> CreatedToken:  # noqa: N802 - the wire's name
        session = self.sessions.pop(params["token"], None)
        if session is None:
            raise TokenNotValidError
        lifetime = (session.expires_at or NOW) - session.renewed_at
        renewed = session._replace(
            renewed_at=NOW, expires_at=NOW + lifetime, generation=session.generation + 1
        )
        token = f"{params['token']}.{renewed.generation}"
        self.sessions[token] = renewed
        self.ended[params["token"]] = reasons.SUPERSEDED
        return CreatedToken(token, renewed.id, renewed.expires_at)

    def _chosen(self, params: dict[str, Any]) -> list[SessionInfo]:
        return [
            session
            for session in self.sessions.values()
            if params.get("state") in (None, session.state)
            and fnmatchcase(session.label, params.get("label") or "*")
            and params.get("pid") in (None, session.opened_by and session.opened_by.pid)
            and params.get("parent") in (None, session.parent)
        ]

    def _listSessions(self, params: dict[str, Any]) -> SessionPage:  # noqa: N802 - the wire's name
        newest = sorted(self._chosen(params), key=lambda session: -session.created_at)
        return SessionPage(*self._page(newest, params))

    def _listAudit(self, params: dict[str, Any]) -> AuditPage:  # noqa: N802 - the wire's name
        since = params.get("since") or 0.0
        kind, session = params.get("kind"), params.get("session") or ""
        newest = [
            entry
            for entry in reversed(self.audit)
            if entry.at >= since
            and kind in (None, entry.kind)
            and (entry.session_id or "").startswith(session)
        ]
        return AuditPage(*self._page(newest, params))

    def _page(self, items: list[Any], params: dict[str, Any]) -> tuple[list[Any], str | None]:
        after = params.get("after") or "0"
        if after.endswith("-empty"):
            return [], after.removesuffix("-empty")
        begin = int(after)
        end = begin + min(params.get("limit") or self.page_size, self.page_size)
        return items[begin:end], f"{end}-empty" if end < len(items) else None

    def _revokeSessions(self, params: dict[str, Any]) -> Revocations:  # noqa: N802 - the wire's name
        chosen = self._chosen(params)
        for session in chosen:
            self._revokeToken({"id": session.id})
        return Revocations(len(chosen))

    def _subscribe(self, params: dict[str, Any]) -> Subscribed:
        return Subscribed(True)

    def _revokeToken(self, params: dict[str, Any]) -> Revocation:  # noqa: N802 - the wire's name
        for token, session in self.sessions.items():
            if token == params.get("token") or session.id == params.get("id"):
                del self.sessions[token]
                self.ended[token] = reasons.REVOKED
                return Revocation(True)
        return Revocation(False)

    def _resetKey(self, params: dict[str, Any]) -> KeyReset:  # noqa: N802 - the wire's name
        self.ended |= dict.fromkeys(self.sessions, reasons.KEY_RESET)
        self.sessions.clear()
        return KeyReset("key-2")
