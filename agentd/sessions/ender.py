"""Ending sessions: one, those that fit, or all."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from agentd_client.errors import AgentdError, InvalidParamsError, StoreFullError
from agentd_client.protocol.calls import token_text
from agentd_client.protocol.results import KEY_RESET, REVOKED, PeerIdentity, Verification

from .records import (
    KEY_PATH,
    KeyRecord,
    SessionPath,
    SessionRecord,
    bound_path,
    session_path,
    sessions_of_key,
)
from .selection import Selection, state_of
from .slices import Slices
from .standing import Readable, keys_that_count, record_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..store import DB, Entry, Transaction, View
    from .clock import Clock
    from .journal import Journal
    from .key_holder import KeyHolder
    from .verifier import Verifier

T = TypeVar("T")

MAX_ID_CHARACTERS = 64
STEP_RECORDS = 64
"""Records that are looked at, in slices, before those of them that fit are ended in one go."""


class Ender:
    """Ends sessions. Ending one is deleting its record; those below it end with it, and are swept later.

    It works on a full store too. Where there is no room left even for the audit log's entry, that is left
    out, counted and logged: what a person wants ended ends.
    """

    def __init__(self, db: DB, keys: KeyHolder, verifier: Verifier, journal: Journal, clock: Clock) -> None:
        self._db = db
        self._keys = keys
        self._verifier = verifier
        self._journal = journal
        self._clock = clock

    async def revoke(
        self,
        token: object,
        id: object,
        *,
        by: PeerIdentity | None,
        reason: str | None = None,
        tran: Transaction | None = None,
    ) -> bool:
        """End the session of a token or an id; whether there was one."""
        check_one(token, id)
        if id is None and (type(token) is not str or token_text(token) is None):
            return False
        if tran is not None:
            path = self._path_in(tran, token, id)
            return path is not None and self._end(tran, path, by, reason) is not None
        # The path names the key that the token was made with, so it means the same whatever runs beside.
        path = self._path_in(self._db, token, id)
        return path is not None and await self.end(path, by=by, reason=reason)

    async def end(self, path: SessionPath, *, by: PeerIdentity | None, reason: str | None = None) -> bool:
        """End the session at a path; whether there was one."""
        record = await self._write(
            REVOKED, by, lambda view, noting: self._end(view, path, by, reason, noting=noting)
        )
        if record is not None:
            self._journal.tell(REVOKED, record, by=by, reason=reason)
        return record is not None

    def end_soon(self, session_id: str, reason: str) -> None:
        """End a session without anybody waiting for it; a failure is logged by the store."""
        path = path_of(self._db, session_id, self._clock)
        if path is not None:
            with suppress(AgentdError):  # a store that refuses has said so itself
                self._db.submit(lambda view: self._end(view, path, None, reason))

    async def revoke_those(self, selection: Selection, by: PeerIdentity | None) -> int:
        """End every session that fits; how many fitted.

        In steps, each on the disk by itself. One that is opened meanwhile may stay.
        """
        ended = 0
        for key_id in keys_that_count(self._db, self._clock.read()):
            after: SessionPath | None = None
            while True:
                await trio.lowlevel.checkpoint()  # also where none of the many fits
                found = self._db.iterate(sessions_of_key(key_id), after=after, limit=STEP_RECORDS)
                paths = await self._those_that_fit(selection, key_id, found)
                if paths:
                    records = await self._write(REVOKED, by, partial(self._end_all, paths, by))
                    for record in records:
                        self._journal.tell(REVOKED, record, by=by)
                    ended += len(records)
                if len(found) < STEP_RECORDS:
                    break
                after = session_path(key_id, found[-1][0][2].decode())
        return ended

    async def _those_that_fit(
        self, selection: Selection, key_id: str, found: Iterable[Entry]
    ) -> list[SessionPath]:
        slices = Slices()
        fitting: list[SessionPath] = []
        for at, stored in found:
            path = session_path(key_id, at[2].decode())
            record = SessionRecord.decode(stored)
            if selection.fits(record, state_of(self._verifier, path, record, self._clock.read())):
                fitting.append(path)
            await slices.pause_if_over()
        return fitting

    async def reset_key(self, grace_seconds: int, by: PeerIdentity | None) -> KeyRecord:
        """Replace the session key. One record is written, however many sessions there are."""
        record = await self._write(
            KEY_RESET,
            by,
            lambda view, noting: self._reset_key(view, grace_seconds, by, noting=noting),
            on_durable=self._drop_replaced,
        )
        self._journal.tell(KEY_RESET, by=by)
        return record

    def reset_key_through(self, tran: Transaction, grace_seconds: int, by: PeerIdentity | None) -> KeyRecord:
        """The same, in a transaction."""
        tran.on_durable(self._drop_replaced)
        return self._reset_key(tran, grace_seconds, by)

    def _reset_key(
        self, view: View, grace_seconds: int, by: PeerIdentity | None, *, noting: bool = True
    ) -> KeyRecord:
        record = self._keys.replace(view, grace_seconds)
        if noting:
            self._journal.write(view, KEY_RESET, by=by)
        return record

    def _drop_replaced(self) -> None:
        self._verifier.forget()
        with suppress(AgentdError):  # manager and store may have been stopped meanwhile
            self._keys.current(self._db.sealed(KEY_PATH)[0])  # wipes the one that was replaced

    async def _write(
        self,
        kind: str,
        by: PeerIdentity | None,
        function: Callable[[View, bool], T],
        *,
        on_durable: Callable[[], object] | None = None,
    ) -> T:
        try:
            # The reserve is for what has to be done, not for telling of it.
            return await self._db.write(lambda view: function(view, True), on_durable=on_durable)
        except StoreFullError:
            result = await self._db.write(
                lambda view: function(view, False), reserved=True, on_durable=on_durable
            )
            self._journal.audit.missed(kind, by=by)
            return result

    def _end_all(
        self, paths: list[SessionPath], by: PeerIdentity | None, view: View, noting: bool
    ) -> list[SessionRecord]:
        ended = [self._end(view, path, by, None, noting=noting) for path in paths]
        return [record for record in ended if record is not None]

    def _end(
        self,
        view: View,
        path: SessionPath,
        by: PeerIdentity | None,
        reason: str | None,
        *,
        noting: bool = True,
    ) -> SessionRecord | None:
        record = record_at(view, path)
        if record is None:
            return None
        view.delete(path)
        if record.bound_pid is not None:
            view.delete(bound_path(path))
        if noting:
            self._journal.write(view, REVOKED, record, by=by, reason=reason)
        return record

    def _path_in(self, view: Readable, token: object, id: object) -> SessionPath | None:
        if token is not None:
            opened = self._verifier.open(view, token)
            return None if isinstance(opened, Verification) else opened.path
        return path_of(view, str(id), self._clock)


def check_one(token: object, id: object) -> None:
    """Raise `InvalidParamsError` unless there is exactly one of the two, and the id could be one."""
    if (token is None) == (id is None):
        raise InvalidParamsError("it takes either a token or an id")
    if id is not None and not (isinstance(id, str) and 0 < len(id) <= MAX_ID_CHARACTERS):
        raise InvalidParamsError("an id is the text that createToken answered")


def path_of(view: Readable, session_id: str, clock: Clock) -> SessionPath | None:
    """Where the session of that id stands, under a key that counts; None where there is none."""
    for key_id in keys_that_count(view, clock.read()):
        path = session_path(key_id, session_id)
        if view.get(path) is not None:
            return path
    return None
