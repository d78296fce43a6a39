"""The agent's status: for `getStatus`, and in one line for the service manager."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import Status

from . import __version__, systemd
from .agent import Agent
from .config import Settings
from .server import Traffic
from .sessions import Clock, Instant

NOTIFY_RETRY_SECONDS = 0.05
"""Between attempts to notify a service manager whose queue is full."""


def status_reader(
    agent: Agent, settings: Settings, traffic: Traffic, clock: Clock, started: Instant
) -> Callable[[], Status]:
    """The function behind `getStatus`; while the agent is locked, the core's fields are None."""

    def read() -> Status:
        core = agent.core
        return Status(
            version=__version__,
            agent_id=None if core is None else core.key_ring.agent_id,
            pid=os.getpid(),
            started_at=started.wall,
            uptime_seconds=clock.read().boot - started.boot,
            sessions=None if core is None else core.manager.session_count,
            key_id=None if core is None else core.manager.key_id,
            socket_path=settings.socket_path,
            store_path=str(settings.store_path),
            store_bytes=None if core is None else core.db.size_bytes,
            memory_locked=agent.memory_locked,
            counters=traffic.read(agent.commits),
            locked=core is None,
            locked_at=agent.locked_at,
            lock_reason=agent.lock_reason,
            protected=bool(agent.passphrase_state),
            wrong_passphrases=agent.wrong_passphrases,
            memory_secret=agent.memory_secret,
        )

    return read


async def notify_systemd(agent: Agent) -> None:
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


def status_line(agent: Agent) -> str:
    """The agent's state for people, in one line."""
    core = agent.core
    if core is None:
        return "locked; agentctl unlock unlocks it"
    try:
        return f"serving; open sessions: {core.manager.session_count}"
    except AgentdError as error:  # of the store; clients get the same
        return " ".join(error.sentence.split())
