"""What stands at a path, as lstat(2) tells it: nothing is opened, no link is followed unless that is said."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .finding import Finding, error, ok

FOLDER, FILE, SOCKET, OTHER = "folder", "regular file", "socket", "something else"

_OTHERS = 0o077
_MODES = {FOLDER: 0o700, FILE: 0o600, SOCKET: 0o600}


class Node(NamedTuple):
    """kind: None where nothing is there. unreadable: why it cannot be told, empty where it can."""

    path: str
    kind: str | None = None
    uid: int = 0
    mode: int = 0
    device: int = 0
    inode: int = 0
    unreadable: str = ""


def look(path: str | os.PathLike[str], *, follow: bool = False) -> Node:
    """The node at a path, or with `follow` the one that a symbolic link there leads to; raises nothing."""
    name = os.fspath(path)
    try:
        found = os.stat(name, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return Node(name)
    except OSError as failure:
        return Node(name, OTHER, unreadable=failure.strerror or "it cannot be looked at")
    return Node(
        name, _kind(found.st_mode), found.st_uid, stat.S_IMODE(found.st_mode), found.st_dev, found.st_ino
    )


def nearest(path: str | os.PathLike[str]) -> str:
    """The path itself, or the nearest one above it where anything stands."""
    name = os.path.abspath(path)
    while not os.path.lexists(name):
        name = os.path.dirname(name)
    return name


def look_into(folder: Path) -> list[Node]:
    """The nodes in a folder, by name; none where there is no folder or it cannot be read."""
    try:
        return [look(path) for path in sorted(folder.iterdir())]
    except OSError:
        return []


def judge_private(name: str, what: str, node: Node, kind: str, uid: int) -> Finding:
    """Whether a node is of that kind, that user's own and closed to all others. It is there."""
    faults = list(_faults(what, node, kind, uid))
    if faults:
        return faults[0]._replace(name=name)
    return ok(name, f"{node.path} is yours alone (mode {node.mode:04o})")


def _faults(what: str, node: Node, kind: str, uid: int) -> Iterator[Finding]:
    if node.unreadable:
        yield error(
            "", f"{node.path} cannot be looked at: {node.unreadable}", "see who owns the folders above"
        )
    elif node.kind != kind:
        yield error("", f"{node.path}, {what}, is not a {kind}", "move it away")
    elif node.uid != uid:
        yield error(
            "",
            f"{node.path}, {what}, belongs to uid {node.uid}, not to you (uid {uid})",
            "have it given to you, or choose a path of your own",
        )
    elif node.mode & _OTHERS:
        yield error(
            "",
            f"{node.path}, {what}, is open to others (mode {node.mode:04o})",
            f"run `chmod {_MODES[kind]:o} {shlex.quote(node.path)}`",
        )


def _kind(mode: int) -> str:
    for is_kind, kind in ((stat.S_ISDIR, FOLDER), (stat.S_ISREG, FILE), (stat.S_ISSOCK, SOCKET)):
        if is_kind(mode):
            return kind
    return OTHER
