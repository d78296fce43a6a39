"""A real agent for tests: in a thread, in a scratch folder, with a clock that the test moves.

`pytest_plugin` has fixtures that use it. Keys, store, protocol and sockets are those of `agentd serve`. It
leaves out the process: signals, systemd, and the process-wide settings.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any, Self

import trio

from agentd_client import Client, CreatedToken

from .agent import Agent
from .config import FilePath, Settings
from .keys import Cost
from .keys.argon2 import MIN_MEMORY_BYTES, MIN_PASSES
from .locking import LockMark
from .main import read_status, running_core
from .methods import agent_dispatch, verify_dispatch
from .server import SocketFile, Traffic, any_user, owner_only
from .sessions import Instant, Subscribers, SystemClock
from .sockets import ServedSocket, verify_socket_file

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of scratch keys only
"""What unlocks a `TestAgent` after `lock`."""

START_SECONDS = 60.0
"""Only a broken machine needs so long."""


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

    socket_path: where it serves; pass it to clients, or set `AGENTD_SOCKET` to it.
    verify_socket_path: its verify socket.
    token_path: a place for the token file of a session, next to the socket.
    client: a `Client` of it.
    """

    __test__ = False  # pytest: not a class of tests

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="agentd-test-"))  # short: a socket's path has 107 bytes
        self.socket_path = str(self._folder / "run" / "agent.sock")
        self.verify_socket_path = str(self._folder / "verify" / "verify.sock")
        (self._folder / "verify").mkdir()
        self.token_path = str(self._folder / "run" / "session-token")
        self.clock = MovableClock()
        self.client = Client(self.socket_path, START_SECONDS, 0)
        self._passphrase: bytes | None = None
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it, with the sessions it had; does nothing if it is running."""
        if self._running is None:
            self._running = _Running(self._settings(), self.clock, self._passphrase)

    def stop(self) -> None:
        """Stop it: clients find no agent. Its sessions stay."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def _settings(self) -> Settings:
        return Settings(
            socket_path=FilePath(self.socket_path),
            verify_socket_path=FilePath(self.verify_socket_path),
            state_path=FilePath(str(self._folder / "state")),
        )

    def advance(self, seconds: float) -> None:
        """Let time pass for the agent, so that sessions expire."""
        self.clock.advance(seconds)

    def create_token(self, *args: Any, **kwargs: Any) -> CreatedToken:
        """Open a session; the arguments are those of `Client.create_token`."""
        return self.client.create_token(*args, **kwargs)

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
        self._ready = threading.Event()
        self._stop: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="agentd test agent", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise TimeoutError("the test agent did not start")
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        assert self._token is not None
        assert self._stop is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._stop.set)
        self._thread.join(START_SECONDS)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # raised in the test's thread
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        logger = logging.getLogger("agentd.testing")
        subscribers = Subscribers(logger)
        agent = Agent(
            partial(running_core, self._settings, logger, self._clock, subscribers=subscribers),
            keys_path=self._settings.keys_path,
            mark=LockMark(self._settings.lock_mark_path),
            subscribers=subscribers,
            clock=self._clock,
            logger=logger,
            on_unlock=lambda: None,
            cost=Cost(MIN_MEMORY_BYTES, MIN_PASSES),
        )
        traffic = Traffic()
        status = partial(read_status, agent, self._settings, traffic, self._clock, self._clock.read())
        dispatch = agent_dispatch(agent, status, version="test", logger=logger, traffic=traffic)
        verifying = verify_dispatch(agent, version="test", logger=logger, traffic=traffic)
        with (
            SocketFile(self._settings.socket_path) as owners_file,
            verify_socket_file(self._settings) as verify_file,
        ):
            await agent.start(self._passphrase)
            try:
                async with trio.open_nursery() as standing:
                    await standing.start(agent.run)
                    owners_socket, verify_socket = ServedSocket(owners_file), ServedSocket(verify_file)
                    async with trio.open_nursery() as serving:
                        serving_arguments = self._settings.drain_seconds, self._stop, logger
                        serving.start_soon(verify_socket.serve, verifying, any_user(), *serving_arguments)
                        await serving.start(owners_socket.serve, dispatch, owner_only(), *serving_arguments)
                        self._ready.set()
                    standing.cancel_scope.cancel()
            finally:
                await agent.stop()
