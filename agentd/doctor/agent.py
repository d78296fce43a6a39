"""The agent's socket, and the agent behind it: whether it answers, is the only one, and is supervised."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from agentd_client.protocol.results import Status

from .. import __version__
from ..server import MAX_PATH_BYTES
from .findings import Finding, error, note, ok, warning
from .installation import SERVICE_UNIT, Installation
from .system import FOLDER, SOCKET, node_at


def check_socket(installation: Installation) -> Iterator[Finding]:
    """The socket in the file system, and who listens at it. It is not connected to."""
    path = installation.settings.socket_path
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        yield error(
            "socket.path",
            f"{path} has {length} bytes, and the path of a socket at most {MAX_PATH_BYTES}",
            "set AGENTD_SOCKET to a shorter one",
        )
    else:
        yield ok("socket.path", f"{path} has {length} bytes of at most {MAX_PATH_BYTES}")
    folder, file = node_at(os.path.dirname(path)), node_at(path)
    if folder.kind is None:
        yield note("socket.folder", f"{folder.path} does not exist yet; the first listener makes it")
    else:
        yield folder.judge_private("socket.folder", "the socket's folder", FOLDER)
    if file.kind is None:
        yield _judge_missing_socket(path, installation)
    else:
        yield file.judge_private("socket.file", "the agent's socket", SOCKET)
        yield _judge_listener(path, installation)


def _judge_missing_socket(path: str, installation: Installation) -> Finding:
    if installation.serving or installation.listeners:
        return error(
            "socket.listener",
            f"an agent listens, but its socket {path} was removed",
            "restart the agent: `systemctl --user restart agentd.socket`, or stop `agentd serve` and "
            "start it",
        )
    start = "`systemctl --user start agentd.socket`" if installation.is_enabled else "`agentd serve`"
    return note("socket.listener", f"nothing listens at {path}: no agent runs", f"start it with {start}")


def _judge_listener(path: str, installation: Installation) -> Finding:
    name, remove = "socket.listener", f"rm {shlex.quote(path)}"
    if installation.listeners > 1:
        return error(
            name,
            f"{installation.listeners} programs listen at {path}, and only the last one can be reached",
            f"stop all agents, run `{remove}`, and start one",
        )
    if installation.is_taken:
        return ok(name, f"a process listens at {path}")
    if installation.is_taken is None:
        return note(name, f"whether a process listens at {path} cannot be known from here")
    if installation.serving:
        return note(name, f"an agent has {path}, and does not listen at it: it is starting or stopping")
    return warning(
        name,
        f"{path} is stale: it was left behind, and nothing listens",
        f"start the agent, which replaces it, or run `{remove}`",
    )


def check_agent(installation: Installation) -> Iterator[Finding]:
    """The agent that runs; one finding if none does."""
    path, serving = installation.settings.socket_path, installation.serving
    status, failure = installation.answer
    yield from _judge_alone(installation)
    if status is not None:
        yield ok("agent.answer", f"the agent (process {status.pid}) answers at {path}")
        yield from _judge_status(status, str(installation.settings.store_path))
    elif failure is not None:
        yield error(
            "agent.answer",
            f"the agent does not answer: {failure.partition('; ')[0]}",
            "see its log; restart it (`systemctl --user restart agentd`), or stop and start it by hand",
        )
    else:
        starts_by_itself = installation.is_enabled or installation.is_taken
        first = "the first connection starts it" if starts_by_itself else "`agentd serve` starts it"
        yield note("agent.answer", f"no agent runs here; {first}")
    if installation.is_enabled and installation.unit == SERVICE_UNIT:
        yield ok("agent.supervisor", f"systemd runs the agent ({SERVICE_UNIT})")
    elif installation.is_enabled and installation.unit is not None:
        yield warning(
            "agent.supervisor",
            f"the agent ({_named(serving)}) was started by hand, and agentd.socket is enabled too",
            f"stop it (`kill {serving[0]}`) and run `systemctl --user start agentd.socket`",
        )


def _judge_alone(installation: Installation) -> Iterator[Finding]:
    serving, storing = installation.serving, installation.storing
    store_path = installation.settings.store_path
    if serving and set(serving) == set(storing):
        yield ok("agent.alone", f"one agent ({_named(serving)}) has both the socket and the store")
    elif serving and storing:
        yield error(
            "agent.alone",
            f"two agents: {_named(serving)} has the socket, and {_named(storing)} the store {store_path}",
            f"stop both (`kill {' '.join(map(str, [*serving, *storing]))}`), and start one",
        )
    elif storing:
        yield error(
            "agent.alone",
            f"another agent ({_named(storing)}) uses the store {store_path}, and serves "
            + (installation.storing_at or "another socket"),
            f"stop it (`kill {storing[0]}`), or set AGENTD_SOCKET to the socket that it serves",
        )


def _judge_status(status: Status, store_path: str) -> Iterator[Finding]:
    if status.version == __version__:
        yield ok("agent.version", f"the agent is agentd {status.version}, as this is")
    else:
        yield warning(
            "agent.version",
            f"the agent is agentd {status.version}, and this is {__version__}",
            "restart it: `systemctl --user restart agentd`, or stop it and start it by hand",
        )
    if status.store_path == store_path:
        yield ok("agent.places", f"the agent uses the store {store_path}, as the settings say")
    else:
        yield warning(
            "agent.places",
            f"the agent uses the store {status.store_path}, and the settings here say {store_path}",
            "restart it, or run the doctor with the --state, --config and XDG_STATE_HOME that it has",
        )
    if status.locked:
        yield note("agent.lock", f"the agent is locked ({status.lock_reason}); `agentctl unlock` unlocks it")
    elif status.protected:
        yield ok("agent.lock", "the agent is unlocked; `agentctl lock` locks it")
    else:
        yield ok("agent.lock", "the agent is unlocked, and cannot be locked without a passphrase")


def _named(pids: list[int]) -> str:
    return "process " + ", ".join(map(str, pids))
