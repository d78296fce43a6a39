"""The state of the agent: for clients, which ask with getStatus, and in a line for the service manager."""

from __future__ import annotations

import os

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import Status

from . import __version__
from .agent import Agent
from .config import Settings
from .server import Traffic
from .sessions import Clock, Instant


def read_status(agent: Agent, settings: Settings, traffic: Traffic, clock: Clock, started: Instant) -> Status:
    """What `getStatus` answers; while the agent is locked, the core's fields are None."""
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
        opening=settings.opening,
        requests=0 if core is None else len(list(core.desk.waiting())),
    )


def status_line(agent: Agent) -> str:
    """The agent's state for people, in one line."""
    core = agent.core
    if core is None:
        return "locked; agentctl unlock unlocks it"
    try:
        return f"serving; open sessions: {core.manager.session_count}"
    except AgentdError as error:  # of the store; clients get the same
        return " ".join(error.sentence.split())
