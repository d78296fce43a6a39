"""Is this token valid? The one place that decides it.

Opening a token costs some twenty microseconds, so opened tokens are kept: which record a genuine token
names, and what that record's bytes mean, which can never change. As long as nothing was committed to the
store since (its generation is the same), the record is known too. Otherwise the key's record and the
session's are read again, in one transaction, and their bytes compared. So a revoke, a reset or
a changed record cannot be missed, whoever wrote it. Time is asked anew every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agentd_client.protocol import reasons
from agentd_client.protocol.calls import is_sendable_token
from agentd_client.protocol.results import Opener, SessionInfo, Verification

from ..tokens import Claims, TokenError, key_id_of, open_token
from .records import KEY_PATH, KeyRecord, SessionRecord, session_path
from .rules import GRACE_SECONDS, has_expired

if TYPE_CHECKING:
    from ..store import DB, KeyPath
    from .clock import Clock, Instant
    from .key_holder import KeyHolder
    from .session_key import SessionKey

MAX_OPENED_TOKENS = 4096
"""Opened tokens that are kept, about 1 KiB each; the oldest goes first."""

_MALFORMED = Verification(False, reasons.MALFORMED, None)
_KEY_RESET = Verification(False, reasons.KEY_RESET, None)

SessionPath = tuple[str, str, str]


class Readable(Protocol):
    """What finding a token's record needs: the store itself, or a transaction."""

    def get(self, path: KeyPath) -> bytes | None:
        """The value, or None where there is none."""
        ...


class _OpenedToken:
    __slots__ = ("answer", "claims", "generation", "key_id", "path", "record", "sealed")

    def __init__(self, key_id: str, claims: Claims) -> None:
        self.key_id = key_id
        self.claims = claims
        self.path = session_path(key_id, claims.jti)
        self.generation: int | None = None
        self.sealed: bytes | None = None
        self.record: SessionRecord | None = None
        self.answer: Verification | None = None

    def read(self, record: SessionRecord) -> None:
        self.record = record
        self.answer = Verification(True, None, describe(record))


def describe(record: SessionRecord) -> SessionInfo:
    """A record as callers see it."""
    opened_by = None
    if record.opened_uid is not None and record.opened_pid is not None:
        opened_by = Opener(record.opened_uid, record.opened_pid)
    return SessionInfo(record.session_id, record.label, record.made, record.expires, opened_by)


class Verifier:
    """Judges tokens against the store; never waits and never writes."""

    def __init__(self, db: DB, keys: KeyHolder, implicit: bytes, clock: Clock) -> None:
        self._db = db
        self._keys = keys
        self._implicit = implicit
        self._clock = clock
        self._opened: dict[str, _OpenedToken] = {}
        self.seen_expired: set[SessionPath] = set()
        """What was once seen expired stays so, wherever the clock goes; emptied as records are deleted."""

    def forget(self) -> None:
        """Drop every opened token."""
        self._opened.clear()

    def judge(self, token: object) -> Verification:
        """Whether a token is valid, and why not; raises only where that cannot be known."""
        # Exactly str: a class of somebody's own may compare equal to a token that it is not.
        if type(token) is not str:
            return _MALFORMED
        opened = self._opened.get(token)
        generation = self._db.generation
        if opened is not None and opened.generation == generation is not None:
            return self._decide(opened, opened.record)
        if opened is None:
            if not is_sendable_token(token):
                return _MALFORMED
            found = self._open(token, self._keys.current(self._db.sealed(KEY_PATH)[0]))
            if isinstance(found, Verification):
                return found
            opened = self._keep(token, found)
        key_sealed, sealed = self._db.sealed(KEY_PATH, opened.path)
        key = self._keys.current(key_sealed)
        if key is None or key.id != opened.key_id:
            self._opened.pop(token, None)
            return _KEY_RESET
        if sealed is None:
            opened.sealed = opened.record = None
        elif sealed != opened.sealed:
            opened.read(SessionRecord.decode(self._db.unseal(opened.path, sealed)))
            opened.sealed = sealed
        opened.generation = generation
        return self._decide(opened, opened.record)

    def judge_through(self, view: Readable, token: object) -> Verification:
        """The same, as a transaction sees it."""
        if type(token) is not str or not is_sendable_token(token):
            return _MALFORMED
        opened = self._open_through(view, token)
        if isinstance(opened, Verification):
            return opened
        stored = view.get(opened.path)
        record = None if stored is None else SessionRecord.decode(stored)
        if record is not None:
            opened.read(record)
        return self._decide(opened, record)

    def find(self, view: Readable, token: str) -> SessionPath | None:
        """The path of the session that a genuine token names, whether or not it is still there."""
        opened = self._open_through(view, token)
        return None if isinstance(opened, Verification) else opened.path

    def _open_through(self, view: Readable, token: str) -> _OpenedToken | Verification:
        stored = view.get(KEY_PATH)
        return self._open(token, None if stored is None else self._keys.of(KeyRecord.decode(stored)))

    def _open(self, token: str, key: SessionKey | None) -> _OpenedToken | Verification:
        try:
            if key is None or key_id_of(token) != key.id:
                return _KEY_RESET
            with key as secret:
                return _OpenedToken(key.id, open_token(secret, token, implicit=self._implicit))
        except TokenError:
            return _MALFORMED

    def _keep(self, token: str, opened: _OpenedToken) -> _OpenedToken:
        if len(self._opened) >= MAX_OPENED_TOKENS:
            del self._opened[next(iter(self._opened))]
        self._opened[token] = opened
        return opened

    def _decide(self, opened: _OpenedToken, record: SessionRecord | None) -> Verification:
        now = self._clock.read()
        if record is None or record.generation != opened.claims.gen:
            return _gone(opened.claims, now)
        if opened.path in self.seen_expired or has_expired(record, now):
            self.seen_expired.add(opened.path)
            return Verification(False, reasons.EXPIRED, describe(record))
        assert opened.answer is not None
        return opened.answer


def _gone(claims: Claims, now: Instant) -> Verification:
    # Records of expired sessions are swept; the token still tells that this one ended by itself.
    expired = claims.exp is not None and now.wall >= claims.exp + GRACE_SECONDS
    return Verification(False, reasons.EXPIRED if expired else reasons.REVOKED, None)
