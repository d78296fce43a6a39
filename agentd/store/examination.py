"""A store looked at from outside: its structure, its seals, how new it is. Changes nothing, locks nothing.

For whoever asks while the agent serves, from another process. LMDB reads a copy, once its structure was
verified. Time and memory are bounded: by `MAX_COPIED_BYTES` for the structure, by `MAX_OPENED` for the seals.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lmdb

from agentd_client.errors import StoreDamagedError, StoreError

from .environment import ENGINE
from .errors import lmdb_errors_translated
from .files import DATA_NAME
from .inspection import Meta, structural_problems
from .keypath import HEADER, KeyPath, decode_key, key_range, readable
from .on_disk import check_header
from .reader import scan
from .sealing import ReadOnlyKeys, Unsealer
from .snapshot import OvertakenError, snapshot
from .stop_mark import check_not_older, read_mark
from .view import Path as EntryPath

MAX_OPENED = 100_000
"""Values that are opened, about a second; of more than that, some drawn at random."""

MAX_NAMED = 3
"""Problems of one kind that are told one by one; there may be as many as values."""


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
    problems: of the structure, in LMDB's terms; None where nothing was looked at, for its size.
    refusal_of_key: the keys do not fit the store, or the store is older than its last stop.
    seals: None where there were no keys, or nothing was looked at.
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
    keys: ReadOnlyKeys | None,
    *,
    newest_below: Sequence[KeyPath] = (),
    max_opened: int = MAX_OPENED,
) -> Examined:
    """Look at the store in `folder`.

    Args:
        folder: of the store.
        keys: what opens the values; None leaves them closed.
        newest_below: prefixes whose last path is wanted.
        max_opened: how many values to open at the most.

    Raises:
        OSError: there is no data file, or it cannot be read.
    """
    try:
        with snapshot(folder / DATA_NAME) as found:
            if not found.path:
                return Examined(found.meta)
            problems = structural_problems(found.path)
            if problems:
                return Examined(found.meta, problems=problems)
            with (
                lmdb_errors_translated(),
                lmdb.open(
                    found.path, subdir=False, readonly=True, create=False, lock=False, lib_version=ENGINE
                ) as environment,
                environment.begin() as txn,
            ):
                return _examine(folder, found.meta, txn, keys, newest_below, max_opened)
    except OvertakenError:
        return Examined(overtaken=True)
    except StoreError as error:
        return Examined(refusal=error)


def _examine(
    folder: Path,
    meta: Meta,
    txn: lmdb.Transaction[bytes],
    keys: ReadOnlyKeys | None,
    newest_below: Sequence[KeyPath],
    max_opened: int,
) -> Examined:
    newest = [path for prefix in newest_below for path in _newest(txn, prefix)]
    examined = Examined(meta, problems=[], newest=tuple(newest))
    if keys is None:
        return examined
    sealer = Unsealer(keys)
    try:
        check_header(folder, txn.get(HEADER), sealer, keys.agent_id)
        check_not_older(folder / DATA_NAME, read_mark(folder, sealer), meta.transaction)
    except StoreError as error:
        return examined._replace(refusal_of_key=error)
    return examined._replace(seals=_seals(txn, sealer, max_opened))


def _newest(txn: lmdb.Transaction[bytes], prefix: KeyPath) -> Iterator[EntryPath]:
    for key, _ in scan(txn, key_range(prefix), reverse=True, limit=1):
        yield decode_key(key)


def _seals(txn: lmdb.Transaction[bytes], sealer: Unsealer, max_opened: int) -> Seals:
    of = txn.stat()["entries"]
    # Every run draws others.
    drawn = set(random.sample(range(of), max_opened)) if of > max_opened else range(of)
    broken = 0
    named: list[str] = []
    for place, (key, sealed) in enumerate(txn.cursor()):
        if place in drawn:
            try:
                sealer.open(key, sealed)
            except StoreDamagedError:
                broken += 1
                if len(named) < MAX_NAMED:
                    named.append(readable(key))
    return Seals(len(drawn), of, broken, named)
