"""The store: its file, its structure, the seals of its values, its key, and the room on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agentd_client.errors import AgentdError, PassphraseError

from ..store import MIN_GROWTH_BYTES, OfflineCheck, Seals
from .findings import Finding, error, note, ok, refused, warning
from .installation import Installation, StoreFacts
from .system import nearest

_MIB = 1024 * 1024

NEEDED_BYTES = 16 * _MIB
"""The size of a new store, and the least that it grows by."""

_RESTORE = "stop the agent; restore the store from a copy, or start over with `agentd init --fresh`"


def check_store(installation: Installation) -> Iterator[Finding]:
    """The store's file and what is in it, and the room on the file system that it is or would be on."""
    path, facts = str(installation.settings.store_path), installation.store
    yield from judge_store(path, facts)
    try:
        disk = os.statvfs(nearest(path))
    except OSError:
        return
    # A file system without a fixed number of something says 0 of 0 (tmpfs without a limit, btrfs).
    if disk.f_blocks:
        has_store = facts.examined is not None or facts.failure is not None
        has_file_left = disk.f_favail > 0 or not disk.f_files
        yield judge_room(
            path, disk.f_bavail * disk.f_frsize, has_store=has_store, has_file_left=has_file_left
        )


def judge_room(path: str, free_bytes: int, *, has_store: bool, has_file_left: bool) -> Finding:
    """Whether a new store, or the growth of one, finds room; `has_file_left` is room for another file."""
    if not has_store and free_bytes < MIN_GROWTH_BYTES:
        return error(
            "store.room",
            f"the disk has {free_bytes // 1024} KiB left for {path}, and a new store takes "
            f"{MIN_GROWTH_BYTES // 1024} KiB",
            "free some space",
        )
    if not has_file_left:
        return error("store.room", f"the disk of {path} has no room for another file", "remove some files")
    left = f"the disk of {path} has {free_bytes // _MIB} MiB left"
    if free_bytes < NEEDED_BYTES:
        return warning("store.room", f"{left}: a full store opens no sessions", "free some space")
    return ok("store.room", left)


def judge_store(path: str, facts: StoreFacts) -> Iterator[Finding]:
    """The store's file, structure, key and seals; one finding if there is no store, or it cannot be read."""
    found = facts.examined
    if facts.failure is not None:
        yield error("store.file", f"the store cannot be read: {facts.failure}", "see who owns it")
    elif found is None:
        yield note("store.file", f"there is no store in {path} yet; the first start makes it")
    elif found.error is not None:
        yield refused("store.file", found.error.sentence)
    elif found.overtaken or found.meta is None:
        yield note(
            "store.structure",
            "the agent wrote faster than the store could be read, so structure and seals were not checked",
            "run the doctor again when the agent is less busy",
        )
    else:
        kibibytes = found.meta.file_bytes // 1024
        yield ok("store.file", f"the store in {path} is whole up to its last page ({kibibytes} KiB)")
        if found.problems is None:
            mebibytes = found.meta.file_bytes // _MIB
            yield note("store.structure", f"the store is too large to be verified ({mebibytes} MiB)")
        elif found.problems:
            more = f" and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
            says = f"the store is damaged inside: {found.problems[0]}{more}"
            yield error("store.structure", says, _RESTORE)
            return
        else:
            says = f"every page of the store is in its place ({found.meta.last_page + 1} pages)"
            yield ok("store.structure", says)
        yield from _judge_key(found, facts.sealed)


def _judge_key(found: OfflineCheck, sealed: AgentdError | None) -> Iterator[Finding]:
    if found.key_error is not None:
        yield refused("store.key", found.key_error.sentence)
    elif found.seals is not None:
        yield ok("store.key", "the store was sealed with the key in the key file")
    if found.seals is not None:
        yield _judge_seals(found.seals)
    elif sealed is not None:
        says = f"the seals were not checked: {sealed.sentence.partition('; ')[0]}"
        if isinstance(sealed, PassphraseError):
            yield warning("store.seals", says, "give the passphrase of the key file, or none if it has none")
        else:
            yield note("store.seals", says, "give --passphrase-file or --passphrase-fd, or fix the key file")


def _judge_seals(seals: Seals) -> Finding:
    is_sample = seals.opened != seals.of
    how_many = f"{seals.opened} of {seals.of} values" if is_sample else f"{seals.opened} values"
    if seals.broken:
        named = ", ".join(seals.examples) + (", …" if seals.broken > len(seals.examples) else "")
        says = f"{seals.broken} of {how_many} were not sealed there by this agent: {named}"
        return error("store.seals", says, _RESTORE)
    return ok("store.seals", f"{how_many}{', drawn at random,' if is_sample else ''} are genuine")
