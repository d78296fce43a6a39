"""A store looked at from outside: its structure, its seals, how new it is. Changes nothing, locks nothing.

For whoever asks while the agent serves, from another process. Of a store as large as can be the time and the
memory are bounded: by `MAX_PAGES` for the structure, by `MAX_OPENED` for the seals.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import StoreDamagedError, StoreError

from .files import DATA_NAME
from .header import check_header
from .key_range import key_range
from .keypath import HEADER, KeyPath, decode_key, readable
from .meta_pages import Meta
from .sealing import KeyRing, Sealer
from .snapshot import OvertakenError, Snapshot, snapshot
from .stop_mark import check_not_older, read_mark
from .tree_pages import Pair, Tree, TreeError
from .view import Path as EntryPath

MAX_PAGES = 256 * 1024
"""A gibibyte, almost two million sessions and some ten seconds: larger files are not verified."""

MAX_OPENED = 100_000
"""Values that are opened, about a second; of more than that, those on pages drawn at random."""

MAX_NAMED = 3
"""Problems of one kind that are told one by one; there may be as many as values."""

_ATTEMPTS = 2  # for a file too large to be copied, in whose reading the agent made two commits


class Seals(NamedTuple):
    """How many values were opened, of how many, and which were not genuine (the first few, by path)."""

    opened: int
    of: int
    broken: int
    named: list[str]


class Examined(NamedTuple):
    """What was found.

    meta: of the commit that was looked at; None where nothing could be read, or the file is no store.
    refusal: why not, as the agent itself would say it.
    overtaken: the agent wrote faster than the file could be read, so that nothing is known.
    problems: of the structure, in LMDB's terms; None where it was not verified, for its size.
    refusal_of_key: the keys do not fit the store, or the store is older than its last stop.
    seals: None where there were no keys, or the structure kept them from being read.
    newest: for each prefix asked for, the last path below it.
    """

    meta: Meta | None = None
    refusal: StoreError | None = None
    overtaken: bool = False
    problems: list[str] | None = None
    refusal_of_key: StoreError | None = None
    seals: Seals | None = None
    newest: tuple[EntryPath, ...] = ()


def examine(
    folder: Path,
    key_ring: KeyRing | None,
    *,
    newest_below: Sequence[KeyPath] = (),
    max_opened: int = MAX_OPENED,
    max_pages: int = MAX_PAGES,
) -> Examined:
    """Look at the store in `folder`.

    Args:
        folder: of the store.
        key_ring: what opens the values; None leaves them closed.
        newest_below: prefixes whose last path is wanted.
        max_opened: how many values to open at the most.
        max_pages: the size up to which the structure is verified.

    Raises:
        OSError: there is no data file, or it cannot be read.
    """
    for _ in range(_ATTEMPTS):
        try:
            with snapshot(folder / DATA_NAME) as found:
                return _examine(folder, found, key_ring, newest_below, max_opened, max_pages)
        except OvertakenError:
            pass
        except StoreDamagedError as error:
            return Examined(refusal=error)
    return Examined(overtaken=True)


def _examine(
    folder: Path,
    found: Snapshot,
    key_ring: KeyRing | None,
    newest_below: Sequence[KeyPath],
    max_opened: int,
    max_pages: int,
) -> Examined:
    problems = found.problems() if found.meta.last_page < max_pages else None
    found.require_still()
    examined = Examined(found.meta, problems=problems)
    if problems:
        return examined
    tree = found.tree()
    try:
        newest = tuple(_newest(tree, newest_below))
        refusal, seals = None, None
        if key_ring is not None:
            refusal = _key_refusal(folder, found, tree, key_ring)
            if not isinstance(refusal, StoreError):
                seals = _seals(tree, Sealer(key_ring), found.entries, max_opened)
    except TreeError as error:  # of a file that was too large to be verified, or is overtaken
        found.require_still()
        return examined._replace(problems=[f"{error}"])
    found.require_still()
    return examined._replace(newest=newest, refusal_of_key=refusal, seals=seals)


def _newest(tree: Tree, prefixes: Iterable[KeyPath]) -> Iterator[EntryPath]:
    for prefix in prefixes:
        keys = key_range(prefix)
        # The range ends with a key that nothing has: it is no path.
        last = tree.last_up_to(keys.high)
        if last is not None and last[0] in keys:
            yield decode_key(last[0])


def _key_refusal(folder: Path, found: Snapshot, tree: Tree, key_ring: KeyRing) -> StoreError | None:
    sealer = Sealer(key_ring)
    try:
        check_header(folder, tree.get(HEADER), sealer, key_ring.agent_id)
        check_not_older(folder / DATA_NAME, read_mark(folder, sealer), found.meta.transaction)
    except StoreError as error:
        return error
    return None


def _seals(tree: Tree, sealer: Sealer, of: int, max_opened: int) -> Seals:
    opened = broken = 0
    named: list[str] = []
    for key, sealed in _drawn(tree, of, max_opened):
        opened += 1
        try:
            sealer.open(key, sealed)
        except StoreDamagedError:
            broken += 1
            if len(named) < MAX_NAMED:
                named.append(readable(key))
    return Seals(opened, of, broken, named)


def _drawn(tree: Tree, of: int, max_opened: int) -> Iterator[Pair]:
    leaves: Iterable[int] = tree.leaves()
    if of > max_opened:
        leaves = list(leaves)
        random.shuffle(leaves)  # every run looks somewhere else
    drawn = 0
    for leaf in leaves:
        entries = tree.entries(leaf)
        yield from entries
        drawn += len(entries)
        if drawn >= max_opened and of > max_opened:
            return
