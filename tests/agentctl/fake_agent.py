"""A scripted agent: a real Unix socket, our protocol, sessions in memory, and answers that a test can replace."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentd_client.errors import AgentdError
from agentd_client.protocol import reasons
from agentd_client.protocol.codec import Decoder, Encoder
from agentd_client.protocol.results import (
    Counters,
    CreatedToken,
    Hello,
    KeyReset,
    Opener,
    Revocation,
    SessionInfo,
    Status,
    Verification,
)
from agentd_client.protocol.wire import error_to_wire, to_wire

NOW = 1_750_000_000.0  # 2025-06-15 15:06:40 UTC
DEFAULT_EXPIRY_SECONDS = 8 * 3600

Answer = Callable[[dict[str, Any]], Any]


class HangUpError(Exception):
    """Raised by a script: close the connection without an answer."""


class FakeAgent:
    """What a test reads: `calls` (method and parameters, in order) and `sessions` (by token)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.sessions: dict[str, SessionInfo] = {}
        self.ended: dict[str, str] = {}
        self.script: dict[str, Answer] = {}
        self.memory_locked = True
        self._lock = threading.Lock()
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
        with connection, contextlib.suppress(OSError):  # the client may give up at any moment
            while data := connection.recv(65536):
                for message in decoder.receive(data):
                    try:
                        reply = encoder.result(message.msgid, to_wire(self._answer(message)))
                    except AgentdError as error:
                        reply = encoder.error(message.msgid, error_to_wire(error))
                    except HangUpError:
                        return
                    connection.sendall(reply)

    def _answer(self, request: Any) -> Any:
        (params,) = request.params
        with self._lock:
            self.calls.append((request.method, params))
        scripted = self.script.get(request.method)
        if scripted is not None:  # outside the lock: a script may wait for the test
            return scripted(params)
        with self._lock:
            return getattr(self, "_" + request.method)(params)

    def _hello(self, params: dict[str, Any]) -> Hello:
        return Hello("agentd 0.1.0", 1, [])

    def _getStatus(self, params: dict[str, Any]) -> Status:  # noqa: N802 - the wire's name
        return Status(
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
            counters=Counters(90, 3, 2, 1, 1_234, 5, 67),
        )

    def _createToken(self, params: dict[str, Any]) -> CreatedToken:  # noqa: N802 - the wire's name
        return self._create_token(params, NOW)

    def _create_token(self, params: dict[str, Any], at: float) -> CreatedToken:
        number = len(self.sessions) + len(self.ended) + 1
        expiry = params.get("expiry")
        expires_at = (
            None if expiry == "never" else at + (DEFAULT_EXPIRY_SECONDS if expiry is None else expiry)
        )
        token, session_id = f"v4.local.token-{number}", f"session-{number}"
        label = params.get("label") or ""
        self.sessions[token] = SessionInfo(session_id, label, at, expires_at, Opener(1000, 4712))
        return CreatedToken(token, session_id, expires_at)

    def _verifyToken(self, params: dict[str, Any]) -> Verification:  # noqa: N802 - the wire's name
        token = params["token"]
        session = self.sessions.get(token)
        if session is None:
            return Verification(False, self.ended.get(token, reasons.MALFORMED), None)
        if session.expires_at is not None and session.expires_at < NOW:
            return Verification(False, reasons.EXPIRED, session)
        return Verification(True, None, session)

    _inspectToken = _verifyToken  # noqa: N815 - the wire's name

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
