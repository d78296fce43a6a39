"""The store on disk: creating, opening, closing and removing it. All of it blocks: use a worker thread.

The header record holds the store's format and the id of the agent it belongs to. It is the first value sealed
into a new store and the first one opened at every start, so a store sealed with another root key is refused
before anything is written to it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import AgentdError, StoreDamagedError, StoreError, StoreKeyMismatchError

from .data_file import mark_of, read_mark, verify_data_file, write_mark
from .environment import Environment
from .errors import RESTORE, os_errors_translated
from .files import StoreFolder
from .keypath import HEADER
from .sealing import KeyRing, Sealer, Unsealer

FORMAT_VERSION = 1
"""Incremented by any change that an older agentd would misread."""

_PREFIX = "agentd store"


class OnDiskStore(NamedTuple):
    """One store's files and how to open them."""

    folder: StoreFolder
    key_ring: KeyRing
    map_bytes: int
    max_map_bytes: int
    clock: Callable[[], float]
    logger: logging.Logger

    def open(self, fresh: bool) -> Environment:
        """Lock the folder, create a store if there is none (or `fresh`), and open it.

        On failure, everything is closed again and the lock released. Raises what `DB.start` lists.
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
            verify_data_file(self.folder.data_file, read_mark(self.folder.path, sealer), self.logger)
            environment = self._environment(self.folder.path)
            undo.callback(environment.close)
            (header,) = environment.reader().get((HEADER,))
            check_header(self.folder.path, header, sealer, self.key_ring.agent_id)
            self.folder.remove_stop_mark()
            undo.pop_all()
            return environment

    def close(self, environment: Environment, *, is_clean: bool) -> None:
        """Undo `open`; no transaction may be open. `is_clean`: no commit has failed."""
        try:
            transaction = environment.transaction if is_clean else None
            environment.close()
            if transaction is not None:
                self._write_mark(transaction)
        finally:
            self.folder.release()

    def _write_mark(self, transaction: int) -> None:
        try:
            mark = mark_of(self.folder.data_file, transaction)
            write_mark(self.folder.path, mark, Sealer(self.key_ring))
        except (OSError, AgentdError) as error:
            # A full disk, or a folder or key ring that is gone. The next start takes longer, nothing more.
            self.logger.info("could not mark this stop as clean: %s", error)

    def remove(self) -> None:
        """Remove the store's files and its folder, under its lock."""
        if not os.path.lexists(self.folder.path):
            return
        with self.folder.locked():
            if not self.folder.remove_folder():
                self.logger.warning("%s was not removed: it holds other files", self.folder.path)

    def _create(self) -> None:
        header = f"{_PREFIX} {FORMAT_VERSION}\n{self.key_ring.agent_id}".encode()
        with self.folder.creating() as made, closing(self._environment(made, is_new=True)) as environment:
            environment.write_first(HEADER, Sealer(self.key_ring).seal(HEADER, header))

    def _environment(self, folder: Path, *, is_new: bool = False) -> Environment:
        return Environment(
            folder,
            map_bytes=self.map_bytes,
            max_map_bytes=self.max_map_bytes,
            is_new=is_new,
            clock=self.clock,
            logger=self.logger,
        )


def check_header(path: Path, sealed: bytes | None, sealer: Unsealer, agent_id: str) -> None:
    """Check that this agent can use the store.

    Raises:
        StoreDamagedError: there is no header.
        StoreKeyMismatchError: it was sealed with another root key.
        StoreError: it has another format version.
    """
    if sealed is None:
        raise StoreDamagedError(f"{path} holds a data file without a header; {RESTORE}")
    mismatch = StoreKeyMismatchError(
        f"{path} was sealed with another root key; put back the key file it was created with, "
        "or start over with `agentd init --fresh`"
    )
    try:
        header = sealer.open(HEADER, sealed)
    except StoreDamagedError:
        raise mismatch from None
    described, _, owner = header.decode(errors="replace").partition("\n")
    if described != f"{_PREFIX} {FORMAT_VERSION}":
        raise StoreError(f"{path} has a format unknown to this agentd ({described!r}); update agentd")
    if owner != agent_id:
        raise mismatch
