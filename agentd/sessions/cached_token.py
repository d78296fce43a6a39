"""A genuine token in the verifier's cache, and its session as callers see it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agentd_client.protocol.results import CachedVerification, PeerIdentity, SessionInfo

from .records import SessionPath, SessionRecord, session_path

if TYPE_CHECKING:
    from ..tokens import Claims

ANSWER_SECONDS = 1.0
"""How long verifications return the same object, with the `last_used_at` of the first one. Creating and
encoding a new one each time would cost more than the rest of a verification."""


class CachedToken:
    """A genuine token: its claims, and what is known of its session at a revision of the store.

    record: None if the session is not live.
    sealed: the stored bytes of the session's record and its ancestors', to notice a change.
    cacheable: nothing but a commit can change what is known, so it holds for the whole revision.
    fast_path: only time can make the token invalid, and there is nothing to note beyond its last use.
    answer, answered_at: what verifications return, and the wall time for which it was made.
    """

    __slots__ = (
        "ancestor_paths",
        "answer",
        "answered_at",
        "cacheable",
        "claims",
        "fast_path",
        "key_id",
        "path",
        "record",
        "revision",
        "sealed",
    )

    def __init__(self, key_id: str, claims: Claims) -> None:
        self.key_id = key_id
        self.claims = claims
        self.path = session_path(key_id, claims.jti)
        self.revision: int | None = None
        self.ancestor_paths: list[SessionPath] = []
        self.sealed: list[bytes | None] = []
        self.record: SessionRecord | None = None
        self.answer: CachedVerification | None = None
        self.answered_at = math.inf
        self.cacheable = False
        self.fast_path = False

    def update(self, record: SessionRecord, *, is_under_current_key: bool) -> None:
        """Take over the record of a live session."""
        self.record, self.ancestor_paths = record, []
        self.cacheable = is_under_current_key
        self.answered_at = math.inf
        self.fast_path = (
            is_under_current_key
            and record.generation == self.claims.gen
            and (record.generation == 0 or record.superseded_at is not None)
            and (record.audience, record.scopes, record.uses_left) == (None, None, None)
            and not record.ancestors
        )

    def mark_gone(self, *, is_under_current_key: bool) -> None:
        """The session is not live any more. Ids are never reused, so this is final."""
        self.sealed, self.record, self.ancestor_paths = [], None, []
        self.cacheable, self.fast_path = is_under_current_key, False

    def make_answer(self, wall: float) -> CachedVerification:
        """A new answer, for a verification at this time."""
        assert self.record is not None
        self.answer = CachedVerification(True, None, session_info(self.record, wall))
        self.answered_at = wall
        return self.answer


def session_info(record: SessionRecord, last_used_at: float | None = None) -> SessionInfo:
    """A record as callers see it."""
    opened_by = None
    if record.opened_uid is not None and record.opened_pid is not None:
        opened_by = PeerIdentity(record.opened_uid, record.opened_pid, record.opened_exe, record.opened_unit)
    return SessionInfo(
        id=record.session_id,
        label=record.label,
        created_at=record.created_at,
        expires_at=record.expires_at,
        opened_by=opened_by,
        renewed_at=record.created_at if record.renewed_at is None else record.renewed_at,
        max_expires_at=record.max_expires_at,
        last_used_at=record.last_used_at if last_used_at is None else last_used_at,
        audience=record.audience,
        scopes=record.scopes,
        uses_left=record.uses_left,
        parent=record.ancestors[-1] if record.ancestors else None,
        generation=record.generation,
        bound_pid=record.bound_pid,
    )
