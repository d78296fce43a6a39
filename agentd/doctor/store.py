"""The store: the file, its structure, the seals of its values, whose it is, and whether the disk has room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from ..store import MIN_GROWTH_BYTES, OfflineCheck, Seals
from .finding import Finding, error, note, ok, refused, warning
from .node import nearest
from .scene import Scene, StoreLook

FILE, STRUCTURE, KEY, SEALS, ROOM = "store.file", "store.structure", "store.key", "store.seals", "store.room"
NAMES = (FILE, STRUCTURE, KEY, SEALS, ROOM)

_MIB = 1024 * 1024

NEEDED_BYTES = 16 * _MIB
"""What the store takes of the disk when it is made, and the least that it grows by."""

_RESTORE = "stop the agent; restore the store from a copy, or begin anew with `agentd init --fresh`"


class Facts(NamedTuple):
    """free_bytes: of the file system that the store is or would be on; None where that is not known.

    has_file_left: whether another file can be made there.
    """

    path: str
    look: StoreLook
    free_bytes: int | None
    has_file_left: bool = True


def gather(scene: Scene) -> Facts:
    """Look at the store and at its file system."""
    path = scene.settings.store_path
    try:
        disk = os.statvfs(nearest(path))
    except OSError:
        return Facts(str(path), scene.store, None)
    # A file system that has no fixed number of something says 0 of 0 (tmpfs without a limit, btrfs).
    free_bytes = disk.f_bavail * disk.f_frsize if disk.f_blocks else None
    return Facts(str(path), scene.store, free_bytes, disk.f_favail > 0 or not disk.f_files)


def judge(facts: Facts) -> Iterator[Finding]:
    """Findings about the file and what is in it; one where there is no store."""
    if facts.look.failure is not None:
        yield error(FILE, f"the store cannot be read: {facts.look.failure}", "see who owns it")
    elif facts.look.examined is None:
        yield note(FILE, f"there is no store in {facts.path} yet; the first start makes it")
    else:
        yield from _judge_examined(facts.path, facts.look.examined)
        if facts.look.examined.meta is not None and not facts.look.examined.problems:
            yield from _judge_key(facts.look.examined, facts.look)
    if facts.free_bytes is not None:
        yield _judge_room(facts, facts.free_bytes)


def _judge_examined(path: str, found: OfflineCheck) -> Iterator[Finding]:
    if found.error is not None:
        yield refused(FILE, found.error.sentence)
        return
    if found.overtaken or found.meta is None:
        yield note(
            STRUCTURE,
            "the agent wrote faster than the store could be read, so structure and seals were not checked",
            "call the doctor again when less is going on",
        )
        return
    yield ok(FILE, f"the store in {path} is whole up to its last page ({found.meta.file_bytes // 1024} KiB)")
    yield _judge_structure(found)


def _judge_key(found: OfflineCheck, look: StoreLook) -> Iterator[Finding]:
    if found.key_error is not None:
        yield refused(KEY, found.key_error.sentence)
    elif found.seals is not None:
        yield ok(KEY, "the store was sealed with the key in the key file")
    if found.seals is not None:
        yield _judge_seals(found.seals)
    elif look.sealed is not None:
        says = f"the seals were not checked: {look.sealed.partition('; ')[0]}"
        if look.is_passphrase_refused:
            yield warning(SEALS, says, "give the passphrase of the key file, or none where it has none")
        else:
            yield note(
                SEALS, says, "give --passphrase-file or --passphrase-fd, or mend what is said of the key file"
            )


def _judge_structure(found: OfflineCheck) -> Finding:
    assert found.meta is not None
    if found.problems is None:
        mebibytes = found.meta.file_bytes // _MIB
        return note(STRUCTURE, f"the store is too large to be verified ({mebibytes} MiB)")
    if found.problems:
        more = f" and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        return error(STRUCTURE, f"the store is damaged inside: {found.problems[0]}{more}", _RESTORE)
    return ok(STRUCTURE, f"every page of the store is where it should be ({found.meta.last_page + 1} pages)")


def _judge_seals(seals: Seals) -> Finding:
    how_many = (
        f"{seals.opened} values" if seals.opened == seals.of else f"{seals.opened} of {seals.of} values"
    )
    if seals.broken:
        named = ", ".join(seals.examples) + (", …" if seals.broken > len(seals.examples) else "")
        return error(
            SEALS, f"{seals.broken} of {how_many} were not sealed there by this agent: {named}", _RESTORE
        )
    drawn = "" if seals.opened == seals.of else ", drawn at random,"
    return ok(SEALS, f"{how_many}{drawn} are genuine")


def _judge_room(facts: Facts, free_bytes: int) -> Finding:
    path, has_store = facts.path, facts.look.examined is not None or facts.look.failure is not None
    if not has_store and free_bytes < MIN_GROWTH_BYTES:
        return error(
            ROOM,
            f"the disk has {free_bytes // 1024} KiB left for {path}, and a new store takes "
            f"{MIN_GROWTH_BYTES // 1024} KiB",
            "free some space",
        )
    if not facts.has_file_left:
        return error(ROOM, f"the disk of {path} has no room for another file", "remove some files")
    if free_bytes < NEEDED_BYTES:
        return warning(
            ROOM,
            f"the disk of {path} has {free_bytes // _MIB} MiB left: a store that is full opens no sessions",
            "free some space",
        )
    return ok(ROOM, f"the disk of {path} has {free_bytes // _MIB} MiB left")
