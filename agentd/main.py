"""The composition root: the one place that builds the whole graph and takes it down again."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import NamedTuple

import trio

from agentd_client.errors import AgentdError, KeyFileError
from agentd_client.protocol.results import Status

from . import __version__, systemd
from .config import Settings
from .doors import SecondDoor
from .keys import KEY_FILE, KeyRing
from .server import SocketFile, Traffic, agent_dispatch, serve_connections
from .sessions import Clock, Instant, SessionManager, SystemClock
from .store import DB

CLOSING_SECONDS = 10.0
"""For what comes after the drain: the store's last commit and its files."""

TELLING_PAUSE_SECONDS = 0.05
"""Between attempts to tell a service manager whose queue is full."""


class Core(NamedTuple):
    """What there is to serve: key ring, store and manager, all running."""

    key_ring: KeyRing
    db: DB
    manager: SessionManager


@asynccontextmanager
async def running_core(settings: Settings, logger: logging.Logger, clock: Clock) -> AsyncIterator[Core]:
    """Start key ring, store and manager, and stop them in the opposite order.

    Raises:
        KeyFileError: there is a store and its key file is gone; none is generated over it.
        StoreError: the store is in use, damaged, or sealed with another key.
    """
    _refuse_store_without_key(settings)
    keys_log, store_log, sessions_log = map(logger.getChild, ("keys", "store", "sessions"))
    async with (
        await KeyRing.create_key_ring(keys_path=settings.keys_path, logger=keys_log) as key_ring,
        await DB.create_db(db_path=settings.store_path, key_ring=key_ring, logger=store_log) as db,
        await SessionManager.create_session_manager(
            db=db,
            key_ring=key_ring,
            expiry=settings.expiry,
            max_lifetime=settings.max_lifetime,
            revoke_on_reuse=settings.revoke_on_reuse,
            logger=sessions_log,
            clock=clock,
        ) as manager,
    ):
        yield Core(key_ring, db, manager)


async def init(settings: Settings, logger: logging.Logger, fresh: bool) -> str:
    """Make key file and store where they are missing, or anew; returns the agent's id.

    Raises what `running_core` raises, and AlreadyServingError where an agent serves meanwhile.
    """
    with SocketFile(settings.socket_path):
        if fresh:
            await _forget_everything(settings)
        async with running_core(settings, logger, SystemClock()) as core:
            return core.key_ring.agent_id


async def serve(
    settings: Settings,
    logger: logging.Logger,
    passed: socket.socket | None = None,
    passed_verify: socket.socket | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what was asked, and stop.

    The order is the point. The socket's lock comes first, so that of many agents that start at once
    one goes on; the socket itself comes last, so that whoever can connect is answered.

    Args:
        settings: where things are.
        logger: the root of the agent's loggers.
        passed: the socket that a service manager listens on already. It is closed here once the agent is
            ready; as long as it is not, it stays the caller's, who tells those who wait in its queue.
        passed_verify: the same for the second door.

    Raises:
        AlreadyServingError, SocketPathError: the socket's path is taken, or is none.
        StoreError: the store cannot be opened, or it failed and nothing more can be answered.
        KeyFileError: the key file is refused.
    """
    socket_path = settings.socket_path if passed is None else passed.getsockname()
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        SocketFile(socket_path) as socket_file,
        SecondDoor(settings, passed_verify) as second_door,
    ):
        clock = SystemClock()
        started = clock.read()
        async with running_core(settings, logger, clock) as core:
            traffic = Traffic()
            status = _status(core, traffic, socket_path, clock, started)
            dispatch = agent_dispatch(
                core.manager, status, version=__version__, logger=logger, traffic=traffic
            )
            stop = trio.Event()
            listener = socket_file.bind() if passed is None else passed
            second_door.bind()
            with passed or nullcontext():
                async with trio.open_nursery() as standing:
                    standing.start_soon(core.manager.run)
                    standing.start_soon(_stop_on_signal, signals, stop, settings, logger)
                    standing.start_soon(_stop_on_failure, core.db, stop)
                    standing.start_soon(_tell_manager, core)
                    _log_ready(core, settings, socket_path, logger)
                    async with trio.open_nursery() as doors:
                        doors.start_soon(second_door.serve, core.manager, logger, traffic, stop)
                        await serve_connections(
                            listener,
                            dispatch,
                            logger=logger,
                            stop=stop,
                            drain_seconds=settings.drain_seconds,
                            owns_listener=passed is None,
                        )
                    standing.cancel_scope.cancel()
            failure = core.db.failed
    if failure is not None:
        raise failure
    logger.info("stopped")


def _status(
    core: Core, traffic: Traffic, socket_path: str, clock: Clock, started: Instant
) -> Callable[[], Status]:
    def read() -> Status:
        return Status(
            version=__version__,
            agent_id=core.key_ring.agent_id,
            pid=os.getpid(),
            started_at=started.wall,
            uptime_seconds=clock.read().boot - started.boot,
            sessions=core.manager.session_count,
            key_id=core.manager.key_id,
            socket_path=socket_path,
            store_path=str(core.db.path),
            store_bytes=core.db.size_bytes,
            memory_locked=core.key_ring.memory_locked,
            counters=traffic.read(core.db.commits),
        )

    return read


def _log_ready(core: Core, settings: Settings, socket_path: str, logger: logging.Logger) -> None:
    if not core.key_ring.memory_locked:
        logger.warning("keys cannot be kept out of swap: raise RLIMIT_MEMLOCK (ulimit -l)")
    logger.info("agentd %s serves %s", __version__, socket_path)
    logger.info("keys in %s, store in %s", settings.keys_path, settings.store_path)


async def _stop_on_signal(
    signals: AsyncIterator[int], stop: trio.Event, settings: Settings, logger: logging.Logger
) -> None:
    async for number in signals:
        logger.info("%s: answering what was asked, then stopping", signal.Signals(number).name)
        # However long the settings allow for it: the manager must not kill the agent meanwhile.
        microseconds = round((settings.drain_seconds + CLOSING_SECONDS) * 1_000_000)
        systemd.notify(f"STOPPING=1\nSTATUS=answering what was asked\nEXTEND_TIMEOUT_USEC={microseconds}")
        stop.set()


async def _stop_on_failure(db: DB, stop: trio.Event) -> None:
    # A store that failed refuses everything until it is opened anew: an agent that goes on without it is
    # of no use, and one that ends can be started again. What waits for an answer gets the refusal.
    await db.failure()
    stop.set()


async def _tell_manager(core: Core) -> None:
    # From the event loop, and from nothing else: a loop that hangs is what the watchdog is there to see.
    seconds = systemd.watchdog_seconds()
    state = "READY=1"
    while True:
        if systemd.notify(f"{state}\nSTATUS={_in_a_line(core)}"):
            if seconds is None:
                return
            state, pause_seconds = "WATCHDOG=1", seconds / 3
        else:
            pause_seconds = TELLING_PAUSE_SECONDS
        await trio.sleep(pause_seconds)


def _in_a_line(core: Core) -> str:
    try:
        return f"serving; open sessions: {core.manager.session_count}"
    except AgentdError as error:  # whoever asks for something that needs the store is told the same
        return " ".join(error.sentence.split())


def _refuse_store_without_key(settings: Settings) -> None:
    key_file = settings.keys_path / KEY_FILE
    if settings.store_path.is_dir() and not key_file.exists() and any(settings.store_path.glob("data.*")):
        raise KeyFileError(
            f"{key_file} is gone, and the store in {settings.store_path} cannot be opened without it; "
            "restore the key file, or begin anew with `agentd init --fresh`"
        )


async def _forget_everything(settings: Settings) -> None:
    key_ring = KeyRing(settings.keys_path)
    # The store goes first: it is refused while another agent has it, and then the key must stay.
    await DB(settings.store_path, key_ring).destroy()
    await key_ring.destroy()
