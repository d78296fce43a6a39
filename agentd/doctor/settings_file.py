"""The settings file: whether it can be used, and whether somebody else could write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .finding import Finding, note, ok, refused, warning
from .node import Node, look
from .scene import Scene

FILE = "settings.file"
NAMES = (FILE,)

_WRITABLE_BY_OTHERS = 0o022


class Facts(NamedTuple):
    """failure: why the agent would refuse the settings; None where it would not."""

    node: Node
    failure: str | None
    uid: int


def gather(scene: Scene) -> Facts:
    """Look at the file; what it says was read with the settings."""
    return Facts(look(scene.config_path), scene.config_failure, scene.uid)


def judge(facts: Facts) -> Iterator[Finding]:
    """One finding."""
    node = facts.node
    if facts.failure is not None:
        yield refused(FILE, f"{facts.failure}; mend that line: until then the agent does not start")
    elif node.kind is None:
        yield note(FILE, f"{node.path} is not there, so the defaults count")
    elif node.uid not in (facts.uid, 0):
        yield warning(
            FILE, f"{node.path} belongs to uid {node.uid}, who can change it", "make it a file of your own"
        )
    elif node.mode & _WRITABLE_BY_OTHERS:
        yield warning(
            FILE,
            f"{node.path} can be written by others (mode {node.mode:04o})",
            f"run `chmod go-w {node.path}`",
        )
    else:
        yield ok(FILE, f"{node.path} can be used")
