"""The composition root: the one place that builds the whole graph and takes it down again."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import trio

from agentd_client.errors import KeyFileError
from agentd_client.protocol.results import Status

from . import __version__, systemd
from .config import Settings
from .keys import KEY_FILE, KeyRing
from .server import SocketFile, agent_dispatch, serve_connections
from .sessions import Clock, Instant, SessionManager, SystemClock
from .store import DB


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
            db=db, key_ring=key_ring, expiry=settings.expiry, logger=sessions_log, clock=clock
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


async def serve(settings: Settings, logger: logging.Logger) -> None:
    """Serve until SIGTERM or SIGINT; then answer what was asked, and stop.

    The order is the point. The socket's lock comes first, so that of many agents that start at once
    one goes on; the socket itself comes last, so that whoever can connect is answered.
    """
    passed = systemd.passed_socket()
    socket_path = settings.socket_path if passed is None else passed.getsockname()
    try:
        with (
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
            SocketFile(socket_path) as socket_file,
        ):
            clock = SystemClock()
            started = clock.read()
            async with running_core(settings, logger, clock) as core:
                status = _status(core, socket_path, clock, started)
                dispatch = agent_dispatch(core.manager, status, version=__version__, logger=logger)
                stop = trio.Event()
                async with trio.open_nursery() as standing:
                    standing.start_soon(core.manager.run)
                    standing.start_soon(_feed_watchdog)
                    standing.start_soon(_stop_on_signal, signals, stop, logger)
                    listener = socket_file.bind() if passed is None else passed
                    _say_ready(core, settings, socket_path, logger)
                    await serve_connections(
                        listener,
                        dispatch,
                        logger=logger,
                        stop=stop,
                        drain_seconds=settings.drain_seconds,
                        owns_listener=passed is None,
                    )
                    standing.cancel_scope.cancel()
        logger.info("stopped")
    except BaseException:
        if passed is not None:
            _turn_away(passed)
        raise
    finally:
        if passed is not None:
            passed.close()


def _status(core: Core, socket_path: str, clock: Clock, started: Instant) -> Callable[[], Status]:
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
        )

    return read


def _say_ready(core: Core, settings: Settings, socket_path: str, logger: logging.Logger) -> None:
    if not core.key_ring.memory_locked:
        logger.warning("keys cannot be kept out of swap: raise RLIMIT_MEMLOCK (ulimit -l)")
    logger.info("agentd %s serves %s", __version__, socket_path)
    logger.info("keys in %s, store in %s", settings.keys_path, settings.store_path)
    systemd.notify(f"READY=1\nSTATUS=serving {core.manager.session_count} sessions")


async def _stop_on_signal(signals: AsyncIterator[int], stop: trio.Event, logger: logging.Logger) -> None:
    async for number in signals:
        logger.info("%s: answering what was asked, then stopping", signal.Signals(number).name)
        systemd.notify("STOPPING=1\nSTATUS=answering what was asked")
        stop.set()


async def _feed_watchdog() -> None:
    # From the event loop, and from nothing else: a loop that hangs is what the watchdog is there to see.
    seconds = systemd.watchdog_seconds()
    while seconds is not None:
        systemd.notify("WATCHDOG=1")
        await trio.sleep(seconds / 3)


def _turn_away(listener: socket.socket) -> None:
    # systemd starts the agent again for as long as somebody waits in the socket's queue. When the start
    # has failed, whoever waits is told so; the next connection is the next attempt.
    with suppress(OSError):
        while True:
            listener.accept()[0].close()


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
