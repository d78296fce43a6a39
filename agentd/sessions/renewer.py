"""Renewing sessions, and when they were used: the first use of a new token supersedes the previous one.

Verifications note uses in memory, which are written to the records now and then. A crash loses what is not
written yet: a session then shows an older last use, and a superseded token is valid again until its successor
is used once more.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from agentd_client.errors import AgentdError, TokenNotValidError
from agentd_client.protocol import reasons
from agentd_client.protocol.reasons import sentence
from agentd_client.protocol.results import RENEWED, CreatedToken, PeerIdentity, Verification

from .records import SessionPath, SessionRecord, find_live_session, read_session
from .rules import renewed, supersede_previous

if TYPE_CHECKING:
    from ..store import DB, View
    from .clock import Instant
    from .manager_lifecycle import Context

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


class NotRenewedError(TokenNotValidError):
    """A token that cannot be renewed, with the answer that a verification gives."""

    def __init__(self, answer: Verification) -> None:
        assert answer.reason is not None
        super().__init__(f"{sentence(answer.reason)} ({answer.reason}); log in again")
        self.answer = answer


class Renewer:
    """Renews sessions; none lasts longer than `limit` seconds from its opening, None is without limit."""

    def __init__(self, context: Context, limit: int | None) -> None:
        self._db, self._keys, self._verifier, self._journal, self._clock = context
        self._limit = limit

    async def renew(self, token: object, by: PeerIdentity | None) -> CreatedToken:
        """A token of the next generation; durable on return.

        For the previous token, while it is valid, this makes the newest one again: a caller that lost the
        answer repeats the call.

        Raises:
            NotRenewedError: the token is not valid, or its key was replaced with grace.
        """
        opened = self._verifier.open(self._db, token)
        if isinstance(opened, Verification):
            raise NotRenewedError(opened)

        def renew_in(view: View) -> tuple[SessionRecord, bool]:
            now = self._clock.read()
            record = self._verifier.live_record(view, opened)
            if isinstance(record, Verification):
                raise NotRenewedError(record)
            live = find_live_session(view, opened.path, now)
            if live is None or not live.is_under_current_key:
                info = self._verifier.describe(opened.path, record)
                raise NotRenewedError(Verification(False, reasons.KEY_RESET, info))
            if opened.claims.gen != record.generation:
                return record, False
            record = renewed(record, live.parent, now, self._limit)
            view.put(opened.path, record.encode())
            self._journal.write(view, RENEWED, record, by=by)
            return record, True

        record, is_new = await self._db.write(renew_in)
        self._keys.current()
        now = self._clock.read()
        key = self._keys.accepted(opened.key_id, now)
        if key is None:  # replaced since the write, so the session has ended
            raise NotRenewedError(Verification(False, reasons.KEY_RESET, None))
        if is_new:
            self._verifier.uses.last_uses[opened.path] = now.wall
            self._journal.publish(RENEWED, record, by=by)
        return self._keys.make_token(key, record)
