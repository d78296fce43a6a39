"""The socket in the file system: its path, its folder, the file, and whether anybody listens behind it."""

from __future__ import annotations

import os
import shlex
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
    is_taken: whether a socket is bound to the file; None where that cannot be known.
    """

    path: str
    folder: Node
    file: Node
    listeners: int
    serving: list[int]
    is_taken: bool | None
    is_enabled: bool
    uid: int


def gather(scene: Scene) -> Facts:
    """Look at the path, and ask the kernel who listens; nobody is connected to."""
    path = scene.settings.socket_path
    return Facts(
        path,
        look(os.path.dirname(path)),
        look(path),
        scene.listeners,
        scene.serving,
        scene.is_taken,
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
    if facts.is_taken is False and not facts.serving:
        return warning(
            LISTENER,
            f"{path} is stale: it was left behind, and nobody listens",
            f"start the agent, which replaces it, or run `{remove}`",
        )
    if facts.is_taken:
        return ok(LISTENER, f"somebody listens at {path}")
    if facts.is_taken is None:
        return note(LISTENER, f"whether somebody listens at {path} cannot be known from here")
    return note(LISTENER, f"an agent has {path}, and does not listen at it: it is starting or stopping")
