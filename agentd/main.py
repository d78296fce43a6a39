"""The composition root: it alone builds the whole object graph, and takes it down."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import NamedTuple

import msgspec
import trio

from agentd_client.errors import AgentStoppingError, NoPassphraseError
from agentd_client.protocol.results import PASSPHRASE, STOPPING

from . import __version__, process, systemd
from .agent import Agent, Core
from .approval import Policy, RequestDesk
from .approval.limits import MAX_WAITING
from .config import Settings
from .keys import Cost, KeyRing, Passphrase, PassphraseText
from .locking import IdleTimer, LockMark, watch_logind, watch_signal
from .methods import agent_dispatch, ask_dispatch, verify_dispatch
from .passphrase import new_passphrase, unattended_passphrase, wiping
from .process_watch import MAX_WATCHED
from .server import (
    MOST_CONNECTIONS,
    Admission,
    Dispatch,
    SocketFile,
    Traffic,
    askers,
    owner_only,
    require_own_uid,
    verifiers,
)
from .sessions import Clock, SessionManager, Subscribers, SystemClock
from .sockets import Sockets, socket_files
from .state_folder import check_key_file, prepare_state
from .status import read_status, status_line
from .store import DB

CLOSING_SECONDS = 10.0
"""After the drain, for the store's last commit and its files."""

MAX_DESCRIPTORS = MOST_CONNECTIONS + MAX_WATCHED + MAX_WAITING + 128
"""Files that may be open at once. The last number is for the store, locks, the event loop, standard streams
and D-Bus, and for what is open for a moment only: processes being identified, files being read."""

NOTIFY_RETRY_SECONDS = 0.05
"""Between attempts to notify a service manager whose queue is full."""


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
    """Start key ring, store and manager, raising what starting them raises; stop them in reverse order."""
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
            audit_uses=settings.audit_uses,
            logger=sessions_log,
            clock=clock,
            subscribers=subscribers,
            on_use=on_use,
        ) as manager,
        RequestDesk(manager, policy_of(settings), clock, logger.getChild("approval")) as desk,
    ):
        yield Core(key_ring, db, manager, desk)


def policy_of(settings: Settings) -> Policy:
    """Who may open sessions, as the settings say."""
    return Policy(settings.opening, frozenset(settings.grantable_scopes) or None)


class Graph(NamedTuple):
    """An agent, and what answers at each of its sockets."""

    agent: Agent
    dispatch: Dispatch
    verifying: Dispatch
    asking: Dispatch


def build_graph(
    settings: Settings,
    logger: logging.Logger,
    clock: Clock,
    *,
    on_use: Callable[[], None] | None = None,
    on_unlock: Callable[[], None] = lambda: None,
    cost: Cost | None = None,
) -> Graph:
    """An agent that has not started, with all that it needs; touches nothing on the disk.

    Args:
        settings: of the agent.
        logger: its logger; its parts have children of it.
        clock: where it reads the time.
        on_use: called whenever a session is opened, verified or renewed.
        on_unlock: called after each unlock.
        cost: of Argon2id for a new passphrase; None measures it.
    """
    subscribers = Subscribers(logger.getChild("sessions"))
    agent = Agent(
        partial(running_core, settings, logger, clock, subscribers=subscribers, on_use=on_use),
        keys_path=settings.keys_path,
        mark=LockMark(settings.lock_mark_path),
        subscribers=subscribers,
        clock=clock,
        logger=logger,
        on_unlock=on_unlock,
        cost=cost,
    )
    traffic = Traffic()
    status = partial(read_status, agent, settings, traffic, clock, clock.read())
    return Graph(
        agent,
        agent_dispatch(
            agent, status, version=__version__, logger=logger, traffic=traffic, policy=policy_of(settings)
        ),
        verify_dispatch(agent, version=__version__, logger=logger, traffic=traffic),
        ask_dispatch(agent, version=__version__, logger=logger, traffic=traffic),
    )


async def serve_sockets(
    graph: Graph,
    sockets: Sockets,
    admission: Admission,
    drain_seconds: float,
    stop: trio.Event,
    logger: logging.Logger,
) -> None:
    """Serve every socket until `stop` is set and what had arrived is answered."""
    async with trio.open_nursery() as serving:
        serving.start_soon(_end_requests, graph.agent, stop)
        for others, dispatch, of_others in (
            (sockets.verify, graph.verifying, verifiers()),
            (sockets.ask, graph.asking, askers()),
        ):
            serving.start_soon(others.serve, dispatch, of_others, drain_seconds, stop, logger)
        await sockets.owners.serve(graph.dispatch, admission, drain_seconds, stop, logger)


async def _end_requests(agent: Agent, stop: trio.Event) -> None:
    # Whoever waits for a person would otherwise delay the stop until the drain is over.
    await stop.wait()
    if agent.core is not None:
        agent.core.desk.close(AgentStoppingError(), STOPPING)


async def init(
    settings: Settings,
    logger: logging.Logger,
    fresh: bool,
    wants_passphrase: bool = False,
    passphrase_descriptor: int | None = None,
) -> str:
    """Make key file and store if they are missing, with `fresh` in any case; returns the agent's id.

    Raises what `running_core` and `serve` raise; AlreadyServingError if an agent serves meanwhile.
    """
    require_own_uid()
    with SocketFile(settings.socket_path):
        await trio.to_thread.run_sync(prepare_state, settings)
        # Before anything is deleted, and on the main thread, which handles signals: the terminal must show
        # again what is typed. Nothing else waits for this event loop.
        with wiping(new_passphrase(settings, passphrase_descriptor, ask=wants_passphrase)) as passphrase:
            if fresh:
                if passphrase is not None:
                    Passphrase.check_new(passphrase)  # before anything is deleted
                key_ring = KeyRing(settings.keys_path)
                # The store first: deleting it fails if another agent has it, and then the key must stay.
                await DB(settings.store_path, key_ring).destroy()
                await key_ring.destroy()
                LockMark(settings.lock_mark_path).clear()
            async with running_core(settings, logger, SystemClock(), passphrase) as core:
                return core.key_ring.agent_id


async def serve(
    settings: Settings,
    logger: logging.Logger,
    passed: systemd.Passed = systemd.NONE_PASSED,
    passphrase_descriptor: int | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; then answer the requests in flight, and stop.

    The order matters. The socket's lock comes first, so that of several agents that start at once only one
    goes on. The socket itself comes last, so that every client that can connect is answered.

    `passed` are the sockets that a service manager listens on already. They are closed here once the agent is
    ready; until then they stay the caller's, who answers the clients in their queues if the start fails.

    Raises:
        AlreadyServingError, SocketPathError: the socket's path is taken, or unusable.
        ConfigError: in this user namespace, other users have the uid of the agent's user.
        StateFolderError: keys and store cannot be kept where the settings say.
        StoreError: the store cannot be opened, or it failed while the agent served.
        KeyFileError: the key file is refused.
        PassphraseError: the source of the passphrase has none, or the key file needs none.
    """
    admission = owner_only()  # refuses before anything is made
    if not process.allow_descriptors(MAX_DESCRIPTORS):
        logger.warning("%d open files may be needed: raise RLIMIT_NOFILE (ulimit -n)", MAX_DESCRIPTORS)
    if passed.owners is not None:
        settings = msgspec.structs.replace(settings, socket_path=passed.owners.getsockname())
    with (
        trio.open_signal_receiver(*_stop_signals()) as signals,
        _lock_signals(settings) as lock_signals,
        socket_files(settings, passed) as files,
    ):
        await trio.to_thread.run_sync(prepare_state, settings)
        idle = IdleTimer(settings.idle_seconds)
        on_use = None if settings.idle_seconds is None else idle.touch
        graph = build_graph(settings, logger, SystemClock(), on_use=on_use, on_unlock=idle.touch)
        agent = graph.agent
        with wiping(
            await trio.to_thread.run_sync(unattended_passphrase, settings, passphrase_descriptor)
        ) as passphrase:
            await agent.start(passphrase, locked=settings.start_locked)
        try:
            stop = trio.Event()
            sockets = files.listen(passed)
            async with trio.open_nursery() as standing:
                await standing.start(agent.run)
                standing.start_soon(_stop_on_signal, signals, stop, settings, logger)
                standing.start_soon(_stop_on_failure, agent, stop)
                _start_locking(standing, agent, settings, idle, lock_signals, logger)
                standing.start_soon(_notify_systemd, agent)
                _log_ready(agent, settings, sockets, logger)
                await serve_sockets(graph, sockets, admission, settings.drain_seconds, stop, logger)
                standing.cancel_scope.cancel()
        finally:
            await agent.stop()
    if agent.failure is not None:
        raise agent.failure
    logger.info("stopped")


def _stop_signals() -> list[signal.Signals]:
    """The signals that stop the agent; SIGHUP (its terminal is gone) unless nohup(1) has it ignored."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if is_ignored else [signal.SIGHUP])]


@contextmanager
def _lock_signals(settings: Settings) -> Iterator[AsyncIterator[int] | None]:
    """Receive SIGUSR1; None if the settings say that it has no effect."""
    # Ignored outside of the receiver as well: by default it would kill an agent that starts or stops.
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
    """Start the tasks that lock the agent automatically, as far as the settings enable them."""

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


def _log_ready(agent: Agent, settings: Settings, sockets: Sockets, logger: logging.Logger) -> None:
    if settings.opening == PASSPHRASE and not agent.passphrase_state:
        logger.warning(
            "opening = %r, but the key file has no passphrase, so nobody can open a session: set one with "
            "`agentctl passwd`, and restart the agent",
            PASSPHRASE,
        )
    if not agent.memory_locked:
        logger.warning("keys may be swapped to disk: raise RLIMIT_MEMLOCK (ulimit -l)")
    logger.info("agentd %s serves %s", __version__, settings.socket_path)
    logger.info("keys in %s, store in %s", settings.keys_path, settings.store_path)
    if sockets.verify.path is not None:
        logger.info("other users can have tokens verified at %s", sockets.verify.path)
    if sockets.ask.path is not None:
        logger.info("other programs can ask for sessions at %s", sockets.ask.path)


async def _notify_systemd(agent: Agent) -> None:
    """Report that the agent is ready, then feed the watchdog, with the state in one line.

    This runs on the event loop, so that the watchdog notices when the loop hangs.
    """
    seconds = systemd.watchdog_seconds()
    state = "READY=1"
    while True:
        if systemd.notify(f"{state}\nSTATUS={status_line(agent)}"):
            if seconds is None:
                return
            state, pause_seconds = "WATCHDOG=1", seconds / 3
        else:
            pause_seconds = NOTIFY_RETRY_SECONDS
        await trio.sleep(pause_seconds)


async def _stop_on_signal(
    signals: AsyncIterator[int], stop: trio.Event, settings: Settings, logger: logging.Logger
) -> None:
    async for number in signals:
        logger.info("%s: answering the requests in flight, then stopping", signal.Signals(number).name)
        # For as long as the settings allow: the service manager must not kill the agent meanwhile.
        microseconds = round((settings.drain_seconds + CLOSING_SECONDS) * 1_000_000)
        systemd.notify(
            f"STOPPING=1\nSTATUS=answering the requests in flight\nEXTEND_TIMEOUT_USEC={microseconds}"
        )
        stop.set()


async def _stop_on_failure(agent: Agent, stop: trio.Event) -> None:
    # A failed store refuses everything until it is reopened, which takes a restart of the agent. Requests in
    # flight get its error.
    await agent.failed.wait()
    stop.set()
