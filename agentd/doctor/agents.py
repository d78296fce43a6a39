"""The agent that runs: whether it answers, whether it is the only one, and who looks after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agentd_client.protocol.results import Status

from .. import __version__
from . import proc
from .finding import Finding, error, note, ok, warning
from .scene import SERVICE_UNIT, Scene

ANSWER, VERSION, PLACES, ALONE = "agent.answer", "agent.version", "agent.places", "agent.alone"
LOCK, SUPERVISOR = "agent.lock", "agent.supervisor"
NAMES = (ANSWER, VERSION, PLACES, ALONE, LOCK, SUPERVISOR)


class Facts(NamedTuple):
    """What is known of agents here.

    serving, storing: the processes that hold the lock of the socket and of the store.
    storing_at: the socket that the latter says it serves; empty where it does not say.
    unit: the systemd unit of the one that serves; empty for none, None where that cannot be known.
    is_awaited: somebody listens at the socket.
    """

    socket_path: str
    store_path: str
    serving: list[int]
    storing: list[int]
    status: Status | None
    failure: str | None
    unit: str | None
    is_enabled: bool
    storing_at: str = ""
    is_awaited: bool = False


def gather(scene: Scene) -> Facts:
    """Ask the locks, and the agent if there is one."""
    cgroup = proc.read(str(scene.serving[0]), "cgroup") if scene.serving else ""
    settings = scene.settings
    return Facts(
        settings.socket_path,
        str(settings.store_path),
        scene.serving,
        scene.storing,
        scene.answer.status,
        scene.answer.failure,
        proc.unit_of(cgroup) if cgroup else None,
        scene.is_enabled,
        scene.storing_at,
        bool(scene.is_taken),
    )


def judge(facts: Facts) -> Iterator[Finding]:
    """Findings about what runs; one where nothing does."""
    yield from _judge_alone(facts)
    if facts.status is not None:
        yield ok(ANSWER, f"the agent (process {facts.status.pid}) answers at {facts.socket_path}")
        yield from _judge_status(facts, facts.status)
    elif facts.failure is not None:
        restart = (
            "see its log, and restart it: `systemctl --user restart agentd`, or stop and start it by hand"
        )
        yield error(ANSWER, f"the agent does not answer: {facts.failure.partition('; ')[0]}", restart)
    else:
        starts_by_itself = facts.is_enabled or facts.is_awaited
        first = "the first connection starts it" if starts_by_itself else "`agentd serve` starts it"
        yield note(ANSWER, f"no agent runs here; {first}")
    if facts.serving and facts.is_enabled and facts.unit is not None:
        yield _judge_supervisor(facts)


def _judge_alone(facts: Facts) -> Iterator[Finding]:
    serving, storing = _named(facts.serving), _named(facts.storing)
    if not facts.serving and not facts.storing:
        return
    if set(facts.serving) == set(facts.storing):
        yield ok(ALONE, f"one agent ({serving}) has both the socket and the store")
    elif facts.serving and facts.storing:
        yield error(
            ALONE,
            f"two agents: {serving} has the socket, and {storing} the store {facts.store_path}",
            f"stop both (`kill {' '.join(map(str, [*facts.serving, *facts.storing]))}`), and start one",
        )
    elif facts.storing:
        yield error(
            ALONE,
            f"another agent ({storing}) uses the store {facts.store_path}, and serves "
            + (facts.storing_at or "another socket"),
            f"stop it (`kill {facts.storing[0]}`), or set AGENTD_SOCKET to the socket that it serves",
        )


def _judge_status(facts: Facts, status: Status) -> Iterator[Finding]:
    if status.version == __version__:
        yield ok(VERSION, f"the agent is agentd {status.version}, as this is")
    else:
        yield warning(
            VERSION,
            f"the agent is agentd {status.version}, and this is {__version__}",
            "restart it: `systemctl --user restart agentd`, or stop it and start it by hand",
        )
    if status.store_path == facts.store_path:
        yield ok(PLACES, f"the agent uses the store {status.store_path}, as the settings say")
    else:
        yield warning(
            PLACES,
            f"the agent uses the store {status.store_path}, and the settings here say {facts.store_path}",
            "restart it, or call the doctor with the --state, --config and XDG_STATE_HOME that it has",
        )
    yield _judge_lock(status)


def _judge_lock(status: Status) -> Finding:
    if status.locked:
        return note(LOCK, f"the agent is locked ({status.lock_reason}); `agentctl unlock` unlocks it")
    if status.protected:
        return ok(LOCK, "the agent is unlocked; `agentctl lock` locks it")
    return ok(LOCK, "the agent is unlocked, and without a passphrase it cannot be locked")


def _judge_supervisor(facts: Facts) -> Finding:
    if facts.unit == SERVICE_UNIT:
        return ok(SUPERVISOR, f"systemd runs the agent ({facts.unit})")
    return warning(
        SUPERVISOR,
        f"the agent ({_named(facts.serving)}) was started by hand, and agentd.socket is enabled beside it",
        f"stop it (`kill {facts.serving[0]}`) and run `systemctl --user start agentd.socket`",
    )


def _named(pids: list[int]) -> str:
    return "process " + ", ".join(map(str, pids))
