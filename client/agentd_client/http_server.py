"""What `agentctl http` runs: uvicorn with `http.Application`, on a Unix socket or on loopback only.

It holds no key. Whoever can connect can have tokens checked and do nothing else, as at the verify socket.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import ConfigError, SocketPathError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .http import Application

WAITING_SECONDS = 10.0
"""For a client to send the head of a request, or to take answers; uvicorn itself waits for ever."""

KEEP_ALIVE_SECONDS = 60
"""A connection without a request stays open so long. nginx keeps its own for as long (keepalive_timeout)."""

STOP_SECONDS = 5

MOST_CONNECTIONS = 256
"""With one more, that whose last request is the oldest is closed: holding many keeps nobody out."""

BACKLOG = 128
"""asyncio accepts as many before it serves any, and the limit of a service is 1024 descriptors."""

MOST_HEADER_BYTES = 16 * 1024
"""A token has at most 8 KiB."""


def serve(application: Application, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and answer the requests in progress."""
    with _stop_signals_ignored():  # uvicorn raises the signal that stopped it again, at its end
        _server(application).run([listener])


def _server(application: Application) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # it warns of every malformed request: anybody could fill the log
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
    )
    return uvicorn.Server(config)


@contextmanager
def listening(address: str, mode: int = 0o600) -> Iterator[socket.socket]:
    """A listening socket, for ``unix:PATH``, ``HOST:PORT`` on loopback, or ``fd:N`` of a service manager.

    Args:
        address: where to listen.
        mode: of a Unix socket's file.

    Raises:
        ConfigError: the address has another form, or others than this machine could reach it. The error does
            not repeat it: it may be a secret that was put there by mistake.
        SocketPathError: nothing can listen there; says why.
    """
    kind, _, rest = address.partition(":")
    match kind:
        case "fd":
            opened = _passed(rest)
        case "unix":
            opened = _unix_listener(rest, mode)
        case _:
            opened = _loopback_listener(address)
    with opened as listener:
        yield listener


@contextmanager
def _unix_listener(path: str, mode: int) -> Iterator[socket.socket]:
    if not os.path.isabs(path):
        raise ConfigError("unix: needs an absolute path")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            _remove_stale(path)
            before = os.umask(0o777 & ~mode)  # so that nobody can connect before a chmod(2)
            try:
                listener.bind(path)
            finally:
                os.umask(before)
            made = os.lstat(path)
            listener.listen()
        except OSError as error:
            raise SocketPathError(f"cannot listen at {path}: {error.strerror or error}") from None
        try:
            yield listener
        finally:
            with suppress(OSError):
                if os.path.samestat(os.lstat(path), made):
                    os.unlink(path)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens at. Anything else is left, and binding fails."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)


@contextmanager
def _loopback_listener(address: str) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError("listen on unix:PATH, 127.0.0.1:PORT or fd:N")
    _require_loopback(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise SocketPathError(f"cannot listen at {address}: {error.strerror or error}") from None
    with listener:
        yield listener


@contextmanager
def _passed(number: str) -> Iterator[socket.socket]:
    try:
        listener = socket.socket(fileno=int(number))
    except (OSError, ValueError):
        raise ConfigError("fd: needs the number of a listening socket") from None
    with listener:
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ConfigError("fd: needs the number of a listening socket")
        if listener.family != socket.AF_UNIX:
            _require_loopback(str(listener.getsockname()[0]))
        yield listener


def _require_loopback(host: str) -> None:
    # Addresses only: a name may stand for another address tomorrow.
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError("not a loopback address: listen on 127.0.0.1, [::1] or a Unix socket")


@contextmanager
def _stop_signals_ignored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Protocol(H11Protocol):
    """Closes a connection whose client does not go on with a request, or does not take the answers.

    If there are too many, it closes that whose last request is the oldest.
    """

    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    _used_at = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._used_at = self.loop.time()
        self._limit_reading()
        if len(self.connections) > MOST_CONNECTIONS:
            self._close_the_least_used()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not getattr(self.cycle, "response_complete", True):
            self._used_at = self.loop.time()
            self._reading = _stopped(self._reading)
        elif self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]:
            self._limit_reading()  # a part of the next head, or of a body after the answer

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(WAITING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writing = _stopped(self._writing)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reading, self._writing = _stopped(self._reading), _stopped(self._writing)
        super().connection_lost(exc)

    def _limit_reading(self) -> None:
        if self._reading is None:
            self._reading = self.loop.call_later(WAITING_SECONDS, self.transport.abort)

    def _close_the_least_used(self) -> None:
        every = [connection for connection in self.connections if isinstance(connection, _Protocol)]
        still_open = [connection for connection in every if not connection.transport.is_closing()]
        if len(still_open) > MOST_CONNECTIONS:
            min(still_open, key=lambda connection: connection._used_at).transport.abort()


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None
