"""Ending sessions: one, those that a selection matches, or all by a reset of the key."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from agentd_client.errors import AgentdError, InvalidParamsError, StoreFullError
from agentd_client.protocol.methods import token_text
from agentd_client.protocol.results import KEY_RESET, REVOKED, PeerIdentity, Verification

from .listing import Selection, find_matching, state_of
from .records import (
    KeyRecord,
    Readable,
    SessionPath,
    SessionRecord,
    accepted_key_ids,
    bound_path,
    find_path,
    read_session,
    sessions_of_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store import Transaction, View
    from .manager_lifecycle import Context

T = TypeVar("T")

MAX_ID_CHARACTERS = 64


class Revoker:
    """Ends sessions by deleting their records. Descendants end with them, and are swept later.

    It works on a full store too. If there is no room even for the audit entry, the entry is left out and
    logged instead, because revoking must not fail.
    """

    def __init__(self, context: Context) -> None:
        self._db, self._keys, self._verifier, self._journal, self._clock = context

    async def revoke(
        self, token: object, id: object, *, by: PeerIdentity | None, tran: Transaction | None = None
    ) -> bool:
        """End the session of a token or an id; whether there was one."""
        check_token_or_id(token, id)
        if id is None and (type(token) is not str or token_text(token) is None):
            return False
        view: Readable = self._db if tran is None else tran
        if token is None:
            path = find_path(view, str(id), self._clock.read())
        else:
            opened = self._verifier.open(view, token)
            path = None if isinstance(opened, Verification) else opened.path
        if path is None:
            return False
        if tran is not None:
            return self._delete(tran, path, by, None) is not None
        # The path contains the key's id, so it still means this session after a concurrent reset.
        return await self.end(path, by=by)

    async def end(self, path: SessionPath, *, by: PeerIdentity | None, reason: str | None = None) -> bool:
        """End the session at a path; whether there was one."""
        record = await self._write(
            REVOKED, by, lambda view, audited: self._delete(view, path, by, reason, audited=audited)
        )
        if record is not None:
            self._journal.publish(REVOKED, record, by=by, reason=reason)
        return record is not None

    def end_soon(self, session_id: str, reason: str) -> None:
        """End a session without waiting; the store logs a failure."""
        path = find_path(self._db, session_id, self._clock.read())
        if path is None:
            return
        record: SessionRecord | None = None

        def delete(view: View) -> None:
            nonlocal record
            record = self._delete(view, path, None, reason)

        def publish() -> None:
            if record is not None:
                self._journal.publish(REVOKED, record, reason=reason)

        with suppress(AgentdError):  # the store reports its own failure
            self._db.submit(delete, on_durable=publish)

    async def revoke_selected(self, selection: Selection, by: PeerIdentity | None) -> int:
        """End every session that a selection matches; how many.

        In steps, each durable by itself. A session opened during this may stay.
        """
        ended = 0

        def matches(path: SessionPath, stored: bytes) -> bool:
            record = SessionRecord.decode(stored)
            return selection.matches(record, state_of(self._verifier, path, record, self._clock.read()))

        for key_id in accepted_key_ids(self._db, self._clock.read()):
            after = None
            while True:
                paths, after = await find_matching(self._db, sessions_of_key(key_id), matches, after)
                if paths:
                    records = await self._write(REVOKED, by, partial(self._delete_all, paths, by))
                    for record in records:
                        self._journal.publish(REVOKED, record, by=by)
                    ended += len(records)
                if after is None:
                    break
        return ended

    async def reset_key(self, grace_seconds: int, by: PeerIdentity | None) -> KeyRecord:
        """Replace the session key. This writes one record, however many sessions there are."""
        record = await self._write(
            KEY_RESET,
            by,
            lambda view, audited: self._replace_key(view, grace_seconds, by, audited=audited),
            on_durable=self._drop_replaced_key,
        )
        self._journal.publish(KEY_RESET, by=by)
        return record

    def reset_key_through(self, tran: Transaction, grace_seconds: int, by: PeerIdentity | None) -> KeyRecord:
        """The same, in a transaction."""
        tran.on_durable(self._drop_replaced_key)
        return self._replace_key(tran, grace_seconds, by)

    def _replace_key(
        self, view: View, grace_seconds: int, by: PeerIdentity | None, *, audited: bool = True
    ) -> KeyRecord:
        record = self._keys.replace(view, grace_seconds)
        if audited:
            self._journal.write(view, KEY_RESET, by=by)
        return record

    def _drop_replaced_key(self) -> None:
        self._verifier.clear_cache()
        with suppress(AgentdError):  # manager and store may have stopped by now
            self._keys.current()

    async def _write(
        self,
        kind: str,
        by: PeerIdentity | None,
        function: Callable[[View, bool], T],
        *,
        on_durable: Callable[[], object] | None = None,
    ) -> T:
        try:
            # The reserve is for the operation itself, not for its audit entry.
            return await self._db.write(lambda view: function(view, True), on_durable=on_durable)
        except StoreFullError:
            result = await self._db.write(
                lambda view: function(view, False), reserved=True, on_durable=on_durable
            )
            self._journal.missed(kind, by)
            return result

    def _delete_all(
        self, paths: list[SessionPath], by: PeerIdentity | None, view: View, audited: bool
    ) -> list[SessionRecord]:
        deleted = [self._delete(view, path, by, None, audited=audited) for path in paths]
        return [record for record in deleted if record is not None]

    def _delete(
        self,
        view: View,
        path: SessionPath,
        by: PeerIdentity | None,
        reason: str | None,
        *,
        audited: bool = True,
    ) -> SessionRecord | None:
        record = read_session(view, path)
        if record is None:
            return None
        view.delete(path)
        if record.bound_pid is not None:
            view.delete(bound_path(path))
        if audited:
            self._journal.write(view, REVOKED, record, by=by, reason=reason)
        return record


def check_token_or_id(token: object, id: object) -> None:
    """Raise `InvalidParamsError` unless there is exactly one of the two, and the id could be one."""
    if (token is None) == (id is None):
        raise InvalidParamsError("give either a token or an id")
    if id is not None and not (isinstance(id, str) and 0 < len(id) <= MAX_ID_CHARACTERS):
        raise InvalidParamsError("an id is the text that createToken returned as `id`")
