"""The socket in the file system: its path, its folder, the file, and whether anybody listens behind it."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from collections.abc import Iterator
from typing import NamedTuple

from ..server import MAX_PATH_BYTES
from .finding import Finding, error, note, ok, warning
from .node import FOLDER, SOCKET, Node, judge_private, look
from .scene import Scene

PATH, FOLDER_NAME, FILE, LISTENER = "socket.path", "socket.folder", "socket.file", "socket.listener"
NAMES = (PATH, FOLDER_NAME, FILE, LISTENER)


class Facts(NamedTuple):
    """What there is of the socket.

    listeners: sockets bound to the path that accept connections. serving: processes that hold its lock.
    refuses: whether a connection was refused; None where none was tried, because somebody listens.
    """

    path: str
    folder: Node
    file: Node
    listeners: int
    serving: list[int]
    refuses: bool | None
    is_enabled: bool
    uid: int


def gather(scene: Scene) -> Facts:
    """Look at the path; connect only where nobody is known to listen, which starts no agent."""
    path = scene.settings.socket_path
    file = look(path)
    is_silent = file.kind == SOCKET and not scene.listeners and not scene.serving
    refuses = _refuses(path) if is_silent else None
    return Facts(
        path,
        look(os.path.dirname(path)),
        file,
        scene.listeners,
        scene.serving,
        refuses,
        scene.is_enabled,
        scene.uid,
    )


def judge(facts: Facts) -> Iterator[Finding]:
    """A finding for each of the four."""
    yield _judge_path(facts.path)
    yield _judge_folder(facts)
    yield from _judge_file(facts)
    yield _judge_listener(facts)


def _judge_path(path: str) -> Finding:
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        return error(
            PATH,
            f"{path} has {length} bytes, and a socket's path at most {MAX_PATH_BYTES}",
            "set AGENTD_SOCKET to a shorter one",
        )
    return ok(PATH, f"{path} has {length} bytes of at most {MAX_PATH_BYTES}")


def _judge_folder(facts: Facts) -> Finding:
    if facts.folder.kind is None:
        return note(FOLDER_NAME, f"{facts.folder.path} is not there yet; whoever listens first makes it")
    return judge_private(FOLDER_NAME, "the socket's folder", facts.folder, FOLDER, facts.uid)


def _judge_file(facts: Facts) -> Iterator[Finding]:
    if facts.file.kind is not None:
        yield judge_private(FILE, "the agent's socket", facts.file, SOCKET, facts.uid)


def _judge_listener(facts: Facts) -> Finding:
    path, remove = facts.path, f"rm {shlex.quote(facts.path)}"
    restart = (
        "restart the agent: `systemctl --user restart agentd.socket`, or stop `agentd serve` and start it"
    )
    if facts.file.kind is None:
        if facts.serving or facts.listeners:
            return error(LISTENER, f"an agent listens, but its socket {path} was removed", restart)
        start = (
            "start it with `systemctl --user start agentd.socket`" if facts.is_enabled else "`agentd serve`"
        )
        return note(LISTENER, f"nobody listens at {path}: no agent runs", start)
    if facts.listeners > 1:
        return error(
            LISTENER,
            f"{facts.listeners} programs listen at {path}, and only the last one can be reached",
            f"stop all agents, run `{remove}`, and start one",
        )
    if facts.refuses:
        return warning(
            LISTENER,
            f"{path} is stale: it was left behind, and nobody listens",
            f"start the agent, which replaces it, or run `{remove}`",
        )
    if facts.listeners or facts.refuses is False:
        return ok(LISTENER, f"somebody listens at {path}")
    # The lock is held, and no listener is in this network namespace: starting, stopping, or in a container.
    return note(LISTENER, f"an agent has {path}, and does not listen where this shell could see it")


def _refuses(path: str) -> bool | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            result = probe.connect_ex(path)
        except OSError:  # a path that is too long
            return None
    return True if result == errno.ECONNREFUSED else False if result in (0, errno.EAGAIN) else None
