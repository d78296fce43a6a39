"""The agent's socket, and the agent behind it: whether it answers, is the only one, and is supervised."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import ClassVar

from agentd_client.protocol.results import Status

from .. import __version__
from ..server import MAX_PATH_BYTES
from .findings import Finding, error, note, ok, warning
from .installation import SERVICE_UNIT, Check, Installation
from .system import FOLDER, SOCKET, Node, node_at, read_proc, unit_of

PATH, SOCKET_FOLDER, SOCKET_FILE, LISTENER = "socket.path", "socket.folder", "socket.file", "socket.listener"
ANSWER, VERSION, PLACES, ALONE = "agent.answer", "agent.version", "agent.places", "agent.alone"
LOCK, SUPERVISOR = "agent.lock", "agent.supervisor"


class SocketPlace(Check, frozen=True):
    """The socket in the file system.

    listeners: sockets bound to the path that accept connections. serving: processes that hold its lock.
    is_taken: whether a socket is bound to the file; None if that cannot be known.
    """

    path: str
    folder: Node
    file: Node
    listeners: int
    serving: list[int]
    is_taken: bool | None
    is_enabled: bool

    NAMES: ClassVar = (PATH, SOCKET_FOLDER, SOCKET_FILE, LISTENER)

    @classmethod
    def gather(cls, installation: Installation) -> SocketPlace:
        """Examine the path, and ask the kernel for listeners, without a connection."""
        path = installation.settings.socket_path
        return cls(
            path,
            node_at(os.path.dirname(path)),
            node_at(path),
            installation.listeners,
            installation.serving,
            installation.is_taken,
            installation.is_enabled,
        )

    def judge(self) -> Iterator[Finding]:
        """A finding for path, folder, file and listener."""
        length = len(os.fsencode(self.path))
        if length > MAX_PATH_BYTES:
            yield error(
                PATH,
                f"{self.path} has {length} bytes, and the path of a socket at most {MAX_PATH_BYTES}",
                "set AGENTD_SOCKET to a shorter one",
            )
        else:
            yield ok(PATH, f"{self.path} has {length} bytes of at most {MAX_PATH_BYTES}")
        if self.folder.kind is None:
            yield note(SOCKET_FOLDER, f"{self.folder.path} does not exist yet; the first listener makes it")
        else:
            yield self.folder.judge_private(SOCKET_FOLDER, "the socket's folder", FOLDER)
        if self.file.kind is not None:
            yield self.file.judge_private(SOCKET_FILE, "the agent's socket", SOCKET)
        yield self._judge_listener()

    def _judge_listener(self) -> Finding:
        path, remove = self.path, f"rm {shlex.quote(self.path)}"
        if self.file.kind is None:
            if self.serving or self.listeners:
                return error(
                    LISTENER,
                    f"an agent listens, but its socket {path} was removed",
                    "restart the agent: `systemctl --user restart agentd.socket`, or stop `agentd serve` and "
                    "start it",
                )
            start = "`systemctl --user start agentd.socket`" if self.is_enabled else "`agentd serve`"
            return note(LISTENER, f"nothing listens at {path}: no agent runs", f"start it with {start}")
        if self.listeners > 1:
            return error(
                LISTENER,
                f"{self.listeners} programs listen at {path}, and only the last one can be reached",
                f"stop all agents, run `{remove}`, and start one",
            )
        if self.is_taken is False and not self.serving:
            return warning(
                LISTENER,
                f"{path} is stale: it was left behind, and nothing listens",
                f"start the agent, which replaces it, or run `{remove}`",
            )
        if self.is_taken:
            return ok(LISTENER, f"a process listens at {path}")
        if self.is_taken is None:
            return note(LISTENER, f"whether a process listens at {path} cannot be known from here")
        return note(LISTENER, f"an agent has {path}, and does not listen at it: it is starting or stopping")


class RunningAgent(Check, frozen=True):
    """The agent that runs.

    serving, storing: the processes that hold the lock of the socket and of the store.
    storing_at: the socket that the latter says it serves; empty if it does not say.
    unit: the systemd unit of the one that serves; empty for none, None if that cannot be known.
    is_awaited: a process listens at the socket.
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

    NAMES: ClassVar = (ANSWER, VERSION, PLACES, ALONE, LOCK, SUPERVISOR)

    @classmethod
    def gather(cls, installation: Installation) -> RunningAgent:
        """See who holds the locks, and ask the agent if there is one."""
        cgroup = read_proc(str(installation.serving[0]), "cgroup") if installation.serving else ""
        settings = installation.settings
        return cls(
            settings.socket_path,
            str(settings.store_path),
            installation.serving,
            installation.storing,
            installation.answer.status,
            installation.answer.failure,
            unit_of(cgroup) if cgroup else None,
            installation.is_enabled,
            installation.storing_at,
            bool(installation.is_taken),
        )

    def judge(self) -> Iterator[Finding]:
        """Findings about what runs; one if nothing does."""
        yield from self._judge_alone()
        if self.status is not None:
            yield ok(ANSWER, f"the agent (process {self.status.pid}) answers at {self.socket_path}")
            yield from self._judge_status(self.status)
        elif self.failure is not None:
            yield error(
                ANSWER,
                f"the agent does not answer: {self.failure.partition('; ')[0]}",
                "see its log; restart it (`systemctl --user restart agentd`), or stop and start it by hand",
            )
        else:
            starts_by_itself = self.is_enabled or self.is_awaited
            first = "the first connection starts it" if starts_by_itself else "`agentd serve` starts it"
            yield note(ANSWER, f"no agent runs here; {first}")
        if self.serving and self.is_enabled and self.unit is not None:
            yield self._judge_supervisor()

    def _judge_alone(self) -> Iterator[Finding]:
        serving, storing = _named(self.serving), _named(self.storing)
        if not self.serving and not self.storing:
            return
        if set(self.serving) == set(self.storing):
            yield ok(ALONE, f"one agent ({serving}) has both the socket and the store")
        elif self.serving and self.storing:
            yield error(
                ALONE,
                f"two agents: {serving} has the socket, and {storing} the store {self.store_path}",
                f"stop both (`kill {' '.join(map(str, [*self.serving, *self.storing]))}`), and start one",
            )
        elif self.storing:
            yield error(
                ALONE,
                f"another agent ({storing}) uses the store {self.store_path}, and serves "
                + (self.storing_at or "another socket"),
                f"stop it (`kill {self.storing[0]}`), or set AGENTD_SOCKET to the socket that it serves",
            )

    def _judge_status(self, status: Status) -> Iterator[Finding]:
        if status.version == __version__:
            yield ok(VERSION, f"the agent is agentd {status.version}, as this is")
        else:
            yield warning(
                VERSION,
                f"the agent is agentd {status.version}, and this is {__version__}",
                "restart it: `systemctl --user restart agentd`, or stop it and start it by hand",
            )
        if status.store_path == self.store_path:
            yield ok(PLACES, f"the agent uses the store {status.store_path}, as the settings say")
        else:
            yield warning(
                PLACES,
                f"the agent uses the store {status.store_path}, and the settings here say {self.store_path}",
                "restart it, or run the doctor with the --state, --config and XDG_STATE_HOME that it has",
            )
        if status.locked:
            yield note(LOCK, f"the agent is locked ({status.lock_reason}); `agentctl unlock` unlocks it")
        elif status.protected:
            yield ok(LOCK, "the agent is unlocked; `agentctl lock` locks it")
        else:
            yield ok(LOCK, "the agent is unlocked, and cannot be locked without a passphrase")

    def _judge_supervisor(self) -> Finding:
        if self.unit == SERVICE_UNIT:
            return ok(SUPERVISOR, f"systemd runs the agent ({self.unit})")
        return warning(
            SUPERVISOR,
            f"the agent ({_named(self.serving)}) was started by hand, and agentd.socket is enabled too",
            f"stop it (`kill {self.serving[0]}`) and run `systemctl --user start agentd.socket`",
        )


def _named(pids: list[int]) -> str:
    return "process " + ", ".join(map(str, pids))
