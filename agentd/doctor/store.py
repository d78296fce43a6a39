"""The store: its file, its structure, the seals of its values, its key, and the room on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from ..store import MIN_GROWTH_BYTES, OfflineCheck, Seals
from .findings import Finding, error, note, ok, refused, warning
from .installation import Check, Installation, StoreFacts
from .system import nearest

FILE, STRUCTURE, KEY, SEALS, ROOM = "store.file", "store.structure", "store.key", "store.seals", "store.room"

_MIB = 1024 * 1024

NEEDED_BYTES = 16 * _MIB
"""The size of a new store, and the least that it grows by."""

_RESTORE = "stop the agent; restore the store from a copy, or start over with `agentd init --fresh`"


class Store(Check, frozen=True):
    """The store. free_bytes: of the file system that it is or would be on; None if that is not known.

    has_file_left: whether another file can be made there.
    """

    path: str
    facts: StoreFacts
    free_bytes: int | None
    has_file_left: bool = True

    NAMES: ClassVar = (FILE, STRUCTURE, KEY, SEALS, ROOM)

    @classmethod
    def gather(cls, installation: Installation) -> Store:
        """Examine the store and its file system."""
        path = installation.settings.store_path
        try:
            disk = os.statvfs(nearest(path))
        except OSError:
            return cls(str(path), installation.store, None)
        # A file system without a fixed number of something says 0 of 0 (tmpfs without a limit, btrfs).
        free_bytes = disk.f_bavail * disk.f_frsize if disk.f_blocks else None
        return cls(str(path), installation.store, free_bytes, disk.f_favail > 0 or not disk.f_files)

    def judge(self) -> Iterator[Finding]:
        """Findings about the file and its content; one if there is no store."""
        if self.facts.failure is not None:
            yield error(FILE, f"the store cannot be read: {self.facts.failure}", "see who owns it")
        elif self.facts.examined is None:
            yield note(FILE, f"there is no store in {self.path} yet; the first start makes it")
        else:
            yield from _judge_examined(self.path, self.facts.examined)
            if self.facts.examined.meta is not None and not self.facts.examined.problems:
                yield from _judge_key(self.facts.examined, self.facts)
        if self.free_bytes is not None:
            yield self._judge_room(self.free_bytes)

    def _judge_room(self, free_bytes: int) -> Finding:
        has_store = self.facts.examined is not None or self.facts.failure is not None
        if not has_store and free_bytes < MIN_GROWTH_BYTES:
            return error(
                ROOM,
                f"the disk has {free_bytes // 1024} KiB left for {self.path}, and a new store takes "
                f"{MIN_GROWTH_BYTES // 1024} KiB",
                "free some space",
            )
        if not self.has_file_left:
            return error(ROOM, f"the disk of {self.path} has no room for another file", "remove some files")
        left = f"the disk of {self.path} has {free_bytes // _MIB} MiB left"
        if free_bytes < NEEDED_BYTES:
            return warning(ROOM, f"{left}: a full store opens no sessions", "free some space")
        return ok(ROOM, left)


def _judge_examined(path: str, found: OfflineCheck) -> Iterator[Finding]:
    if found.error is not None:
        yield refused(FILE, found.error.sentence)
        return
    if found.overtaken or found.meta is None:
        yield note(
            STRUCTURE,
            "the agent wrote faster than the store could be read, so structure and seals were not checked",
            "run the doctor again when the agent is less busy",
        )
        return
    yield ok(FILE, f"the store in {path} is whole up to its last page ({found.meta.file_bytes // 1024} KiB)")
    yield _judge_structure(found)


def _judge_key(found: OfflineCheck, facts: StoreFacts) -> Iterator[Finding]:
    if found.key_error is not None:
        yield refused(KEY, found.key_error.sentence)
    elif found.seals is not None:
        yield ok(KEY, "the store was sealed with the key in the key file")
    if found.seals is not None:
        yield _judge_seals(found.seals)
    elif facts.sealed is not None:
        says = f"the seals were not checked: {facts.sealed.partition('; ')[0]}"
        if facts.is_passphrase_refused:
            yield warning(SEALS, says, "give the passphrase of the key file, or none if it has none")
        else:
            yield note(SEALS, says, "give --passphrase-file or --passphrase-fd, or fix the key file")


def _judge_structure(found: OfflineCheck) -> Finding:
    assert found.meta is not None
    if found.problems is None:
        mebibytes = found.meta.file_bytes // _MIB
        return note(STRUCTURE, f"the store is too large to be verified ({mebibytes} MiB)")
    if found.problems:
        more = f" and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        return error(STRUCTURE, f"the store is damaged inside: {found.problems[0]}{more}", _RESTORE)
    return ok(STRUCTURE, f"every page of the store is in its place ({found.meta.last_page + 1} pages)")


def _judge_seals(seals: Seals) -> Finding:
    how_many = (
        f"{seals.opened} values" if seals.opened == seals.of else f"{seals.opened} of {seals.of} values"
    )
    if seals.broken:
        named = ", ".join(seals.examples) + (", …" if seals.broken > len(seals.examples) else "")
        return error(
            SEALS,
            f"{seals.broken} of {how_many} were not sealed there by this agent: {named}",
            _RESTORE,
        )
    drawn = "" if seals.opened == seals.of else ", drawn at random,"
    return ok(SEALS, f"{how_many}{drawn} are genuine")
