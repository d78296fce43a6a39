"""An agent that follows a script: a real Unix socket, our codec, and one function for each connection."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Self

from agentd_client import CreatedToken, Hello, SessionInfo, Status, Verification
from agentd_client.protocol.codec import Decoder, Encoder, Request
from agentd_client.protocol.methods import EVENT, to_wire
from agentd_client.protocol.results import (
    Counters,
    Event,
    KeyReset,
    LockState,
    Protection,
    Revocation,
    Subscribed,
)

PATIENCE_SECONDS = 60  # a bound for a test that hangs; no test waits for it to pass

STATUS = Status(
    "0.1", "agent", 1, 2.0, 3.0, 4, "key", "/socket", "/store", 5, True, Counters(1, 2, 3, 4, 5, 6, 7)
)


class Seen(NamedTuple):
    connection: int
    method: str
    params: Any


class ClientGoneError(Exception):
    """The client closed its end."""


class Peer:
    """One accepted connection, seen from the agent."""

    def __init__(self, agent: ScriptedAgent, number: int, connected: socket.socket) -> None:
        self.agent, self.number, self.socket = agent, number, connected
        self._decoder, self._encoder = Decoder(), Encoder()
        self._requests: list[Request] = []
        connected.settimeout(PATIENCE_SECONDS)

    def receive(self) -> Request:
        while not self._requests:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise ClientGoneError
            for message in self._decoder.receive(data):
                assert isinstance(message, Request)
                self._requests.append(message)
        request = self._requests.pop(0)
        self.agent.seen.append(Seen(self.number, request.method, request.params[0]))
        return request

    def wait_for_unread_bytes(self) -> None:
        assert self.socket.recv(1, socket.MSG_PEEK)

    def wait_until_gone(self) -> None:
        try:
            data = self.socket.recv(1)
        except ConnectionError:
            data = b""
        assert not data, "the client sent more"

    def answer_bytes(self, request: Request, msgid: int | None = None) -> bytes:
        return self._encoder.result(request.msgid if msgid is None else msgid, result_of(request))

    def answer(self, request: Request) -> None:
        self.send(self.answer_bytes(request))

    def answer_with(self, request: Request, result: Any) -> None:
        self.send(self._encoder.result(request.msgid, to_wire(result)))

    def event_bytes(self, event: Event) -> bytes:
        return self._encoder.notification(EVENT, to_wire(event))

    def refuse(self, request: Request, error: Any) -> None:
        self.send(self._encoder.error(request.msgid, error))

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except ConnectionError:
            raise ClientGoneError from None


def result_of(request: Request) -> Any:
    params = request.params[0]
    match request.method:
        case "hello":
            return to_wire(Hello("scripted", 1, []))
        case "getStatus":
            return to_wire(STATUS)
        case "createToken":
            return to_wire(CreatedToken("good-1", "s-1", 1800.0))
        case "verifyToken" | "inspectToken":
            # The token comes back as the session's id, so that a mixed-up answer shows.
            token = params["token"]
            if not token.startswith("good"):
                return to_wire(Verification(False, "MALFORMED", None))
            return to_wire(Verification(True, None, SessionInfo(token, "label", 1.0, None, None)))
        case "revokeToken":
            return to_wire(Revocation(True))
        case "resetKey":
            return to_wire(KeyReset("key-2"))
        case "lock" | "unlock":
            return to_wire(LockState(request.method == "lock"))
        case "changePassphrase":
            return to_wire(Protection("new" in params))
        case "subscribe":
            return to_wire(Subscribed(True))
    raise AssertionError(request.method)


Script = Callable[[Peer], None]


def answers(peer: Peer) -> None:
    while True:
        peer.answer(peer.receive())


class ScriptedAgent:
    """Listens at once. The first connection follows the first script, and so on; later ones are answered."""

    def __init__(self, path: str | os.PathLike[str], *scripts: Script) -> None:
        self.path = os.fspath(path)
        self.seen: list[Seen] = []
        self.connections = 0
        self._scripts = list(scripts)
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def methods(self) -> list[str]:
        return [seen.method for seen in self.seen]

    def vanish(self) -> None:
        """No longer listen; connections that are there go on."""
        if os.path.exists(self.path):
            os.unlink(self.path)
        with suppress(OSError):  # a second time
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            number = self.connections
            self.connections += 1
            script = self._scripts[number] if number < len(self._scripts) else answers
            thread = threading.Thread(target=self._follow, args=(script, Peer(self, number, connected)))
            self._threads.append(thread)
            thread.start()

    def _follow(self, script: Script, peer: Peer) -> None:
        with peer.socket:
            try:
                script(peer)
            except ClientGoneError:
                pass
            except BaseException as error:  # raised by __exit__, in the test's own thread
                self._failures.append(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.vanish()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a script waits for a client that has left"
        if self._failures:
            raise self._failures[0]
