"""A genuine token opened, and a record as callers see it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agentd_client.protocol.results import CachedVerification, PeerIdentity, SessionInfo

from .records import SessionPath, SessionRecord, session_path

if TYPE_CHECKING:
    from ..tokens import Claims

ANSWER_SECONDS = 1.0
"""For so long verifications are answered with the same object, whose `last_used_at` is the first one's:
making another one, and encoding it, would cost each of them more than the rest of its work."""


class OpenedToken:
    """A genuine token: what it names, and what was last known of that."""

    __slots__ = (
        "above",
        "answer",
        "answered_at",
        "claims",
        "is_plain",
        "is_settled",
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
        self.above: list[SessionPath] = []  # the sessions that it ends with, as far as they are known
        self.sealed: list[bytes | None] = []
        self.record: SessionRecord | None = None
        # What verifications are answered, and the wall time of the one that it was made for.
        self.answer: CachedVerification | None = None
        self.answered_at = math.inf
        # As long as the store is the same, so is what is known here.
        self.is_settled = False
        # Nothing but time can make it invalid, and nothing is to be noted of its session.
        self.is_plain = False

    def read(self, record: SessionRecord, *, is_under_present_key: bool) -> None:
        """Take in the record, which counts."""
        self.record, self.above = record, []
        self.is_settled = is_under_present_key
        self.answered_at = math.inf
        self.is_plain = (
            is_under_present_key
            and record.generation == self.claims.gen
            and (record.generation == 0 or record.superseded is not None)
            and (record.audience, record.scopes, record.uses_left) == (None, None, None)
            and not record.ancestors
        )

    def answer_use(self, wall: float) -> None:
        """Make the answer of a verification at this time."""
        assert self.record is not None
        self.answer, self.answered_at = CachedVerification(True, None, describe(self.record, wall)), wall

    def lose(self, *, is_under_present_key: bool) -> None:
        """The record does not count any more: ids are never used again, so that stays so."""
        self.sealed, self.record, self.above = [], None, []
        self.is_settled, self.is_plain = is_under_present_key, False


def describe(record: SessionRecord, last_used: float | None = None, state: str | None = None) -> SessionInfo:
    """A record as callers see it."""
    opened_by = None
    if record.opened_uid is not None and record.opened_pid is not None:
        opened_by = PeerIdentity(record.opened_uid, record.opened_pid, record.opened_exe, record.opened_unit)
    info = SessionInfo(
        id=record.session_id,
        label=record.label,
        created_at=record.made,
        expires_at=record.expires,
        opened_by=opened_by,
        renewed_at=record.made if record.renewed is None else record.renewed,
        max_expires_at=record.max_expires,
        last_used_at=record.last_used if last_used is None else last_used,
        audience=record.audience,
        scopes=record.scopes,
        uses_left=record.uses_left,
        parent=record.ancestors[-1] if record.ancestors else None,
        generation=record.generation,
        bound_pid=record.bound_pid,
    )
    return info if state is None else info._replace(state=state)
