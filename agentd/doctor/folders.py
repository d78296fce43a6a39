"""The folders of keys and store, and the files in them: yours, and closed to all others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .finding import Finding, note, ok, warning
from .node import FILE, FOLDER, Node, judge_private, look, look_into
from .scene import Scene

STATE, KEYS, STORE, STORE_FILES = "state.folder", "keys.folder", "store.folder", "store.files"
NAMES = (STATE, KEYS, STORE, STORE_FILES)

_STORE_FILES = ("data.mdb", "lock.mdb", "agentd.lock", "stopped")
_WRITABLE_BY_OTHERS = 0o022


class Facts(NamedTuple):
    """files: those of the store that are there."""

    state: Node
    keys: Node
    store: Node
    files: list[Node]
    uid: int


def gather(scene: Scene) -> Facts:
    """Look at each."""
    settings = scene.settings
    files = [node for node in look_into(settings.store_path) if node.path.rpartition("/")[2] in _STORE_FILES]
    return Facts(
        look(settings.state_path, follow=True),  # as the agent does
        look(settings.keys_path),
        look(settings.store_path),
        files,
        scene.uid,
    )


def judge(facts: Facts) -> Iterator[Finding]:
    """A finding for each folder, and one for the files of the store."""
    if facts.state.kind is None:
        yield note(STATE, f"{facts.state.path} is not there yet; the first start makes it")
        return
    yield _judge_state(facts.state, facts.uid)
    for name, what, node in (
        (KEYS, "the folder of the key file", facts.keys),
        (STORE, "the store's folder", facts.store),
    ):
        if node.kind is not None:
            yield judge_private(name, what, node, FOLDER, facts.uid)
    judged = [
        judge_private(STORE_FILES, "a file of the store", node, FILE, facts.uid) for node in facts.files
    ]
    faults = [finding for finding in judged if finding.remedy]
    yield from faults
    if judged and not faults:
        yield ok(STORE_FILES, f"the {len(judged)} files of the store are yours alone")


def _judge_state(node: Node, uid: int) -> Finding:
    # The agent itself asks no more of it than that nobody can put another folder in the place of the two.
    if node.kind == FOLDER and node.uid == uid and not node.unreadable:
        if node.mode & _WRITABLE_BY_OTHERS:
            return judge_private(STATE, "the state folder", node, FOLDER, uid)
        if node.mode & 0o077:
            return warning(
                STATE,
                f"{node.path}, the state folder, can be entered by others (mode {node.mode:04o})",
                f"run `chmod 700 {node.path}`",
            )
    return judge_private(STATE, "the state folder", node, FOLDER, uid)
