"""A real agent for tests: in a thread, in a scratch folder, with a clock that the test moves.

`agentd.pytest_plugin` has fixtures that use it; docs/testing.md shows both. Keys, store, protocol and sockets
are those of `agentd serve`. It leaves out the process: signals, systemd, and the process-wide settings.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Self

import trio

from agentd_client import Client, CreatedToken
from agentd_client.paths import SOCKET_VARIABLE, TOKEN_PATH_VARIABLE

from .config import FilePath, Settings
from .keys import Cost
from .keys.argon2 import MIN_MEMORY_BYTES, MIN_PASSES
from .main import build_graph, serve_sockets
from .server import owner_only
from .sessions import Instant, SystemClock
from .sockets import socket_files

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of scratch keys only
"""What unlocks a `TestAgent` after `lock`."""

START_SECONDS = 60.0
"""Only a broken machine needs so long to start or to stop."""

LOGGER = "agentd.testing"

LONGEST_PARENT_BYTES = 60
"""A socket's path has at most 107 bytes, of which an agent takes up to 46 for what is below this folder."""


def scratch_parent() -> str:
    """The folder for temporary files: TMPDIR, or /tmp if its name is too long for a socket below it."""
    parent = tempfile.gettempdir()
    return parent if len(os.fsencode(parent)) <= LONGEST_PARENT_BYTES else "/tmp"  # noqa: S108


class MovableClock:
    """The machine's clocks, moved forward by `advance`."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self._ahead = 0.0

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._ahead += seconds

    def read(self) -> Instant:
        """Both clocks."""
        now = self._system.read()
        return Instant(now.wall + self._ahead, now.boot + self._ahead, now.boot_id)


class TestAgent:
    """An agent of the test's own; a context manager that starts it, and removes it with all it kept.

    Args:
        folder: where it keeps everything; created at the start and removed at the end, so it must not exist.
            None is a new one among the temporary files. A socket's path has at most 107 bytes.

    Attributes:
        socket_path: where it serves; pass it to clients, or set the variables in `environ`.
        verify_socket_path: its verify socket.
        ask_socket_path: its ask socket.
        token_path: a place for the token file of a session, next to the socket.
        environ: the environment variables that lead clients and sessions to it.
        client: a `Client` of it.
        create_token: opens a session; takes what `Client.create_token` takes.
    """

    __test__ = False  # pytest: not a class of tests

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        if folder is None:
            folder = Path(scratch_parent(), f"agentd-test-{secrets.token_hex(4)}")
        self._folder = Path(folder).absolute()
        self.socket_path = str(self._folder / "run" / "agent.sock")
        self.verify_socket_path = str(self._folder / "verify" / "verify.sock")
        self.ask_socket_path = str(self._folder / "ask" / "ask.sock")
        self.token_path = str(self._folder / "run" / "session-token")
        self.environ = {SOCKET_VARIABLE: self.socket_path, TOKEN_PATH_VARIABLE: self.token_path}
        self.clock = MovableClock()
        self.client = Client(self.socket_path, START_SECONDS, 0)
        self.create_token = self.client.create_token
        self._passphrase: bytes | None = None
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700)
        try:
            for path in (self.verify_socket_path, self.ask_socket_path):
                Path(path).parent.mkdir()
            self.start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.client.close()
            self.stop()
        finally:
            shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it, with the sessions it had; does nothing if it is running.

        Raises:
            RuntimeError: it could not start; the text and `__cause__` say why.
        """
        if self._running is None:
            running = _Running(self._settings(), self.clock, self._passphrase)
            try:
                running.wait_until_it_serves()
            except BaseException:
                running.abandon()
                raise
            self._running = running

    def stop(self) -> None:
        """Stop it: clients find no agent. Its sessions stay."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def _settings(self) -> Settings:
        return Settings(
            socket_path=FilePath(self.socket_path),
            verify_socket_path=FilePath(self.verify_socket_path),
            ask_socket_path=FilePath(self.ask_socket_path),
            state_path=FilePath(str(self._folder / "state")),
        )

    def advance(self, seconds: float) -> None:
        """Let time pass for the agent, so that sessions expire."""
        self.clock.advance(seconds)

    def revoke(self, created: CreatedToken) -> None:
        """End a session."""
        self.client.revoke_token(id=created.id)

    def lock(self) -> None:
        """Lock it, with a passphrase that it sets first if there is none."""
        if self._passphrase is None:
            self.client.change_passphrase(None, PASSPHRASE)
            self._passphrase = PASSPHRASE.encode()
        self.client.lock()

    def unlock(self) -> None:
        """Unlock it; its sessions are valid again."""
        self.client.unlock(PASSPHRASE)


class _Running:
    """One run of the agent, in a thread with an event loop of its own."""

    def __init__(self, settings: Settings, clock: MovableClock, passphrase: bytes | None) -> None:
        self._settings = settings
        self._clock = clock
        self._passphrase = passphrase
        self._serves_or_failed = threading.Event()
        self._is_to_stop = False
        self._stop: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="agentd test agent", daemon=True)
        self._thread.start()

    def wait_until_it_serves(self) -> None:
        if not self._serves_or_failed.wait(START_SECONDS):
            raise RuntimeError(f"the test agent did not start within {START_SECONDS:g} s")
        if self._failure is not None:
            raise RuntimeError(f"the test agent could not start: {self._failure}") from self._failure

    def stop(self) -> None:
        self.abandon()
        if self._thread.is_alive():
            raise RuntimeError(f"the test agent did not stop within {START_SECONDS:g} s")
        if self._failure is not None:
            raise RuntimeError(f"the test agent failed: {self._failure}") from self._failure

    def abandon(self) -> None:
        """Stop it, whether or not it has begun to serve, and whatever becomes of it."""
        self._is_to_stop = True  # read by a thread that has no token yet
        if self._token is not None and self._stop is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
        self._thread.join(START_SECONDS)

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # raised in the test's thread
            self._failure = error
        finally:
            self._serves_or_failed.set()

    async def _serve(self) -> None:
        self._stop = stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        if self._is_to_stop:
            return
        settings, logger = self._settings, logging.getLogger(LOGGER)
        graph = build_graph(settings, logger, self._clock, cost=Cost(MIN_MEMORY_BYTES, MIN_PASSES))
        with socket_files(settings) as files:
            await graph.agent.start(self._passphrase)
            try:
                sockets = files.listen()
                async with trio.open_nursery() as standing:
                    await standing.start(graph.agent.run)
                    self._serves_or_failed.set()  # the sockets listen: clients wait until they are served
                    await serve_sockets(graph, sockets, owner_only(), settings.drain_seconds, stop, logger)
                    standing.cancel_scope.cancel()
            finally:
                await graph.agent.stop()
