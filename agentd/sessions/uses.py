"""When sessions were used: noted in memory by each verification, written to the records now and then.

A crash loses what is not written yet: a session then shows an older last use, and a superseded token is valid
again until its successor is used once more.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from agentd_client.errors import AgentdError

from .records import SessionPath, SessionRecord, read_session
from .rules import supersede_previous

if TYPE_CHECKING:
    from ..store import DB, View
    from .clock import Instant

_STEP_RECORDS = 64
"""Records whose last use is written at once."""


class Uses:
    """Uses that are not in the records yet."""

    def __init__(self, db: DB) -> None:
        self._db = db
        self._first_uses: dict[SessionPath, tuple[int, Instant]] = {}
        self.last_uses: dict[SessionPath, float] = {}

    def note(self, path: SessionPath, record: SessionRecord, generation: int, now: Instant) -> None:
        """Note the use of a valid token; the first use of a newest token is also written soon."""
        self.last_uses[path] = now.wall
        if generation == record.generation > 0 and record.superseded_at is None:
            known = self._first_uses.get(path)
            if known is None or known[0] != generation:
                self._first_uses[path] = (generation, now)
                self._write_first_use_soon(path, generation, now)

    def with_first_use(self, path: SessionPath, record: SessionRecord) -> SessionRecord:
        """The record, including a first use that is not written yet."""
        generation, when = self._first_uses.get(path, (None, None))
        if when is None or generation != record.generation or record.superseded_at is not None:
            return record
        return supersede_previous(record, when)

    def _write_first_use_soon(self, path: SessionPath, generation: int, now: Instant) -> None:
        def write(view: View) -> None:
            record = read_session(view, path)
            if record is not None and record.generation == generation and record.superseded_at is None:
                view.put(path, supersede_previous(record, now).encode())

        with suppress(AgentdError):  # if the store refuses, what is noted here still counts
            self._db.submit(write)

    @property
    def pending_first_uses(self) -> list[tuple[SessionPath, int]]:
        """The sessions, with their generation, whose first use is still in memory."""
        return [(path, generation) for path, (generation, _) in self._first_uses.items()]

    async def drop_persisted_first_uses(self) -> None:
        """Drop first uses that are in the records, and those of sessions that are gone."""
        for path, generation in self.pending_first_uses:
            record = read_session(self._db, path)
            is_persisted = (
                record is None or record.generation != generation or record.superseded_at is not None
            )
            if is_persisted and self._first_uses.get(path, (None,))[0] == generation:
                del self._first_uses[path]
            await trio.lowlevel.checkpoint()

    async def write_last_uses(self) -> None:
        """Write the last uses noted since the previous call."""
        pending, self.last_uses = self.last_uses, {}
        paths = sorted(pending)
        for start in range(0, len(paths), _STEP_RECORDS):
            step = {path: pending[path] for path in paths[start : start + _STEP_RECORDS]}
            try:
                await self._db.write(partial(_write_last_uses, last_uses=step))
            except BaseException:
                self.last_uses = {path: pending[path] for path in paths[start:]} | self.last_uses
                raise


def _write_last_uses(view: View, last_uses: dict[SessionPath, float]) -> None:
    for path, when in last_uses.items():
        record = read_session(view, path)
        if record is not None:
            view.put(path, replace(record, last_used_at=when).encode())
