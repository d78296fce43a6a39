"""From a folder to an open environment and back. All of it blocks on the disk: call it in a worker thread.

The header record says which format a store has, and whose it is. It is the first thing sealed into a new
store and the first thing opened at every start, so a store that was sealed with another root key is refused
before anything could be generated over it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import AgentdError, StoreDamagedError, StoreError, StoreKeyMismatchError

from .environment import Environment
from .errors import os_errors_translated
from .files import StoreFolder
from .inspection import inspect
from .keypath import HEADER
from .sealing import KeyRing, Sealer, Unsealer
from .stop_mark import mark_of, read_mark, write_mark

FORMAT_VERSION = 1
"""Raised by a change that an older agentd would misread."""

_PREFIX = "agentd store"


class OnDiskStore(NamedTuple):
    """What it takes to open a store."""

    folder: StoreFolder
    key_ring: KeyRing
    map_bytes: int
    max_map_bytes: int
    clock: Callable[[], float]
    logger: logging.Logger

    def open(self, fresh: bool) -> Environment:
        """Lock the folder, make a store where there is none (or `fresh`), and open it.

        Whatever fails, all that was opened is closed again and the lock released. Raises what
        `DB.start` names.
        """
        with os_errors_translated(), ExitStack() as undo:
            self.folder.acquire()
            undo.callback(self.folder.release)
            if fresh:
                self.folder.remove_data()
            if not self.folder.has_data():
                self._create()
            self.folder.check_files()
            sealer = Sealer(self.key_ring)
            inspect(self.folder.data_file, read_mark(self.folder.path, sealer), self.logger)
            environment = self._environment(self.folder.path)
            undo.callback(environment.close)
            (header,) = environment.reader().get((HEADER,))
            check_header(self.folder.path, header, sealer, self.key_ring.agent_id)
            self.folder.remove_stop_mark()
            undo.pop_all()
            return environment

    def close(self, environment: Environment, *, is_clean: bool) -> None:
        """Undo `open`; no transaction may be open. `is_clean`: every commit went as it should."""
        try:
            transaction = environment.transaction if is_clean else None
            environment.close()
            if transaction is not None:
                self._leave_mark(transaction)
        finally:
            self.folder.release()

    def _leave_mark(self, transaction: int) -> None:
        try:
            mark = mark_of(self.folder.data_file, transaction)
            write_mark(self.folder.path, mark, Sealer(self.key_ring))
        except (OSError, AgentdError) as error:
            # A full disk, or a folder or a key ring that is gone: the next start has more to do, that is all.
            self.logger.info("no mark of this stop: %s", error)

    def remove(self) -> None:
        """Remove the store's files and its folder, under its lock."""
        if not os.path.lexists(self.folder.path):
            return
        with self.folder.locked():
            if not self.folder.remove_folder():
                self.logger.warning("%s stays: it holds files that are not the store's", self.folder.path)

    def _create(self) -> None:
        header = sealed_header(Sealer(self.key_ring), self.key_ring.agent_id)
        with self.folder.creating() as made, closing(self._environment(made, is_new=True)) as environment:
            environment.write_first(HEADER, header)

    def _environment(self, folder: Path, *, is_new: bool = False) -> Environment:
        return Environment(
            folder,
            map_bytes=self.map_bytes,
            max_map_bytes=self.max_map_bytes,
            is_new=is_new,
            clock=self.clock,
            logger=self.logger,
        )


def sealed_header(sealer: Sealer, agent_id: str) -> bytes:
    """The header of a new store, sealed."""
    return sealer.seal(HEADER, f"{_PREFIX} {FORMAT_VERSION}\n{agent_id}".encode())


def check_header(path: Path, sealed: bytes | None, sealer: Unsealer, agent_id: str) -> None:
    """Whether this store is one that this agent can use.

    Raises:
        StoreDamagedError: there is no header.
        StoreKeyMismatchError: it was sealed with another root key.
        StoreError: it is of another format version.
    """
    if sealed is None:
        raise StoreDamagedError(
            f"{path} holds a data file without a header; restore it, or begin anew with `agentd init --fresh`"
        )
    mismatch = StoreKeyMismatchError(
        f"{path} was sealed with another root key; put back the key file that it was made with, "
        "or begin anew with `agentd init --fresh`"
    )
    try:
        header = sealer.open(HEADER, sealed)
    except StoreDamagedError:
        raise mismatch from None
    described, _, owner = header.decode(errors="replace").partition("\n")
    if described != f"{_PREFIX} {FORMAT_VERSION}":
        raise StoreError(f"{path} is of a format unknown to this agentd ({described!r}); update agentd")
    if owner != agent_id:
        raise mismatch
