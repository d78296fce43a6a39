"""The composition root: the one place that builds the whole graph and takes it down again."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial

import msgspec
import trio

from agentd_client.errors import NoPassphraseError

from . import __version__, systemd
from .agent import Agent, Core
from .config import Settings
from .crypto import wipe
from .keys import KeyRing, Passphrase, PassphraseText
from .locking import IdleTimer, LockMark, watch_logind, watch_signal
from .methods import agent_dispatch
from .passphrase_sources import new_passphrase, unattended_passphrase
from .server import (
    SocketFile,
    Traffic,
    keep_in_place,
    owner_only,
    require_own_uid,
    serve_connections,
)
from .sessions import Clock, SessionManager, Subscribers, SystemClock
from .state_folder import check_key_file, prepare_state
from .status import notify_systemd, status_reader
from .store import DB
from .verify_socket import VerifySocket

CLOSING_SECONDS = 10.0
"""For what comes after the drain: the store's last commit and its files."""


@asynccontextmanager
async def running_core(
    settings: Settings,
    logger: logging.Logger,
    clock: Clock,
    passphrase: PassphraseText | None = None,
    *,
    subscribers: Subscribers | None = None,
    on_use: Callable[[], None] | None = None,
) -> AsyncIterator[Core]:
    """Start key ring, store and manager, and stop them in the opposite order.

    Raises:
        KeyFileError: there is a store and its key file is gone; none is generated over it.
        AgentLockedError, PassphraseError: the key file has a passphrase, and this is another or none.
        StoreError: the store is in use, damaged, or sealed with another key.
    """
    check_key_file(settings)
    keys_log, store_log, sessions_log = map(logger.getChild, ("keys", "store", "sessions"))
    async with (
        await KeyRing.create_key_ring(
            keys_path=settings.keys_path, passphrase=passphrase, logger=keys_log
        ) as key_ring,
        await DB.create_db(
            db_path=settings.store_path,
            key_ring=key_ring,
            logger=store_log,
            served_at=settings.socket_path,
        ) as db,
        await SessionManager.create_session_manager(
            db=db,
            key_ring=key_ring,
            expiry=settings.session_expiry,
            max_lifetime=settings.default_max_lifetime,
            lifetime_limit=settings.session_max_lifetime,
            revoke_on_reuse=settings.revoke_on_reuse,
            logger=sessions_log,
            clock=clock,
            subscribers=subscribers,
            on_use=on_use,
        ) as manager,
    ):
        yield Core(key_ring, db, manager)


async def init(
    settings: Settings,
    logger: logging.Logger,
    fresh: bool,
    wants_passphrase: bool = False,
    passphrase_descriptor: int | None = None,
) -> str:
    """Make key file and store where they are missing, or anew; returns the agent's id.

    Raises what `running_core` raises, StateFolderError where keys and store cannot be kept there, and
    AlreadyServingError where an agent serves meanwhile. ConfigError as `serve`.
    """
    require_own_uid()
    with SocketFile(settings.socket_path):
        await trio.to_thread.run_sync(prepare_state, settings)
        # Asked for before anything is forgotten, and on the main thread: it handles signals, because the
        # terminal does not show what is typed. Nobody else waits for this event loop.
        passphrase = new_passphrase(settings, passphrase_descriptor, ask=wants_passphrase)
        try:
            if fresh:
                if passphrase is not None:
                    Passphrase.check_new(passphrase)  # before anything is forgotten
                await _forget_everything(settings)
            async with running_core(settings, logger, SystemClock(), passphrase) as core:
                return core.key_ring.agent_id
        finally:
            if passphrase is not None:
                wipe(passphrase)


async def serve(
    settings: Settings,
    logger: logging.Logger,
    passed: socket.socket | None = None,
    passed_verify: socket.socket | None = None,
    passphrase_descriptor: int | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; then answer what was asked, and stop.

    The order is the point. The socket's lock comes first, so that of many agents that start at once
    one goes on; the socket itself comes last, so that whoever can connect is answered.

    Args:
        settings: where things are.
        logger: the root of the agent's loggers.
        passed: the socket that a service manager listens on already. It is closed here once the agent is
            ready; as long as it is not, it stays the caller's, who tells those who wait in its queue.
        passed_verify: the same for the verify socket.
        passphrase_descriptor: where the passphrase can be read from; None where it is not handed over so.

    Raises:
        AlreadyServingError, SocketPathError: the socket's path is taken, or is none.
        ConfigError: others look like the agent's own user in this user namespace.
        StateFolderError: keys and store cannot be kept where the settings say.
        StoreError: the store cannot be opened, or it failed and nothing more can be answered.
        KeyFileError: the key file is refused.
        PassphraseError: there is no passphrase where the settings say, or nothing that needs it.
    """
    admission = owner_only()  # refused before anything is made
    if passed is not None:
        settings = msgspec.structs.replace(settings, socket_path=passed.getsockname())
    socket_path = settings.socket_path
    with (
        trio.open_signal_receiver(*_stop_signals()) as signals,
        _lock_signals(settings) as lock_signals,
        SocketFile(socket_path) as socket_file,
        VerifySocket(settings, passed_verify) as verify_socket,
    ):
        await trio.to_thread.run_sync(prepare_state, settings)
        clock = SystemClock()
        started = clock.read()
        subscribers = Subscribers(logger.getChild("sessions"))
        idle = IdleTimer(settings.idle_seconds)
        on_use = None if settings.idle_seconds is None else idle.touch
        agent = Agent(
            partial(running_core, settings, logger, clock, subscribers=subscribers, on_use=on_use),
            keys_path=settings.keys_path,
            mark=LockMark(settings.lock_mark_path),
            subscribers=subscribers,
            clock=clock,
            logger=logger,
            on_unlock=idle.touch,
        )
        await _start(agent, settings, passphrase_descriptor)
        try:
            traffic = Traffic()
            dispatch = agent_dispatch(
                agent,
                status_reader(agent, settings, socket_path, traffic, clock, started),
                version=__version__,
                logger=logger,
                traffic=traffic,
            )
            stop = trio.Event()
            if passed is not None:
                socket_file.adopt(passed)
            listener = socket_file.bind() if passed is None else passed
            verify_socket.bind()
            with passed or nullcontext():
                async with trio.open_nursery() as standing:
                    await standing.start(agent.run)
                    standing.start_soon(_stop_on_signal, signals, stop, settings, logger)
                    standing.start_soon(_stop_on_failure, agent, stop)
                    _start_locking(standing, agent, settings, idle, lock_signals, logger)
                    standing.start_soon(notify_systemd, agent)
                    standing.start_soon(keep_in_place, socket_file, logger)
                    _log_ready(agent, settings, socket_path, logger)
                    async with trio.open_nursery() as serving:
                        serving.start_soon(verify_socket.serve, agent, logger, traffic, stop)
                        await serve_connections(
                            listener,
                            dispatch,
                            logger=logger,
                            stop=stop,
                            admission=admission,
                            drain_seconds=settings.drain_seconds,
                            owns_listener=passed is None,
                        )
                    standing.cancel_scope.cancel()
        finally:
            await agent.stop()
    if agent.failure is not None:
        raise agent.failure
    logger.info("stopped")


async def _start(agent: Agent, settings: Settings, descriptor: int | None) -> None:
    passphrase = await trio.to_thread.run_sync(unattended_passphrase, settings, descriptor)
    try:
        await agent.start(passphrase, locked=settings.start_locked)
    finally:
        if passphrase is not None:
            wipe(passphrase)


def _stop_signals() -> list[signal.Signals]:
    """What ends the agent; SIGHUP, that its terminal is gone, not where nohup(1) had it ignored."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if is_ignored else [signal.SIGHUP])]


@contextmanager
def _lock_signals(settings: Settings) -> Iterator[AsyncIterator[int] | None]:
    """SIGUSR1, before anybody knows this process; None where it is to do nothing, which is not to end it."""
    # What the receiver puts back at its end: one that comes while the agent stops must not kill it.
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        if settings.lock_on_signal:
            with trio.open_signal_receiver(signal.SIGUSR1) as signals:
                yield signals
        else:
            yield None
    finally:
        signal.signal(signal.SIGUSR1, before)


def _start_locking(
    standing: trio.Nursery,
    agent: Agent,
    settings: Settings,
    idle: IdleTimer,
    signals: AsyncIterator[int] | None,
    logger: logging.Logger,
) -> None:
    """What locks the agent by itself, as far as the settings want it."""

    async def lock(reason: str) -> None:
        try:
            await agent.lock(reason)
        except NoPassphraseError as error:
            logger.warning("%s: %s", reason, error.sentence)

    watch = partial(
        watch_logind,
        lock,
        on_suspend=settings.lock_on_suspend,
        on_screen_lock=settings.lock_on_screen_lock,
        logger=logger.getChild("locking"),
    )
    standing.start_soon(agent.passphrase_state.run_while_set, watch)
    standing.start_soon(agent.passphrase_state.run_while_set, partial(idle.run, lock))
    if signals is not None:
        standing.start_soon(watch_signal, lock, signals)


def _log_ready(agent: Agent, settings: Settings, socket_path: str, logger: logging.Logger) -> None:
    if not agent.memory_locked:
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


async def _stop_on_failure(agent: Agent, stop: trio.Event) -> None:
    # A store that failed refuses everything until it is opened anew: an agent that goes on without it is
    # of no use, and one that ends can be started again. What waits for an answer gets the refusal.
    await agent.failed.wait()
    stop.set()


async def _forget_everything(settings: Settings) -> None:
    key_ring = KeyRing(settings.keys_path)
    # The store goes first: it is refused while another agent has it, and then the key must stay.
    await DB(settings.store_path, key_ring).destroy()
    await key_ring.destroy()
    LockMark(settings.lock_mark_path).clear()
