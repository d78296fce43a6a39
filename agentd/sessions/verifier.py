"""Is this token valid? The only module that decides it.

Decrypting a token takes some ten microseconds, so genuine tokens are cached: which record a token names, and
what that record's bytes mean, neither of which can change. While the store's revision is the same, so is the
record. After a commit, the records of the key, the session and its ancestors are read again in one
transaction, and their bytes compared. So no revoke, reset or change can be missed. Time is always checked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from agentd_client.protocol import reasons
from agentd_client.protocol.limits import MAX_TOKEN_CHARACTERS
from agentd_client.protocol.results import (
    EXPIRED,
    SESSION_EXPIRED,
    CachedVerification,
    SessionInfo,
    Verification,
)

from ..tokens import Claims, SealedToken, TokenError, parse_token
from .records import (
    KEY_PATH,
    Readable,
    SessionPath,
    SessionRecord,
    accepted_key_ids,
    find_live_session,
    find_path,
    read_key_record,
    session_info,
    session_path,
)
from .renewer import Uses
from .rules import EXPIRY_LEEWAY_SECONDS, denial_reason, has_expired, is_superseded, supersede_previous

if TYPE_CHECKING:
    from ..store import DB, Transaction, View
    from .clock import Clock, Instant
    from .issuer import SessionKeys
    from .journal import Journal
    from .session_key import SessionKey

MAX_CACHED_TOKENS = 4096
"""About 1 KiB each; the oldest is dropped first."""

ANSWER_SECONDS = 1.0
"""How long verifications return the same object, with the `last_used_at` of the first one. Creating and
encoding a new one each time would cost more than the rest of a verification."""

_MALFORMED = Verification(False, reasons.MALFORMED, None)
_KEY_RESET = Verification(False, reasons.KEY_RESET, None)
_OTHER_AGENT = Verification(False, reasons.OTHER_AGENT, None)


class CachedToken(Struct, eq=False):
    """A genuine token: its claims, and what is known of its session at a revision of the store.

    record: None if the session is not live.
    sealed: the stored bytes of the session's record and its ancestors', to notice a change.
    cacheable: nothing but a commit can change what is known, so it holds for the whole revision.
    fast_path: only time can make the token invalid, and there is nothing to note beyond its last use.
    answer, answered_at: what verifications return, and the wall time for which it was made.
    """

    key_id: str
    claims: Claims
    path: SessionPath
    revision: int | None = None
    ancestor_paths: list[SessionPath] = []
    sealed: list[bytes | None] = []
    record: SessionRecord | None = None
    answer: CachedVerification | None = None
    answered_at: float = math.inf
    cacheable: bool = False
    fast_path: bool = False

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

    def make_answer(self, wall: float, ends_at: float | None = None) -> CachedVerification:
        """A new answer, for a verification at this time, of a session that ends then at the latest."""
        assert self.record is not None
        self.answer = CachedVerification(True, None, session_info(self.record, wall, ends_at))
        self.answered_at = wall
        return self.answer


class Verifier:
    """Verifies tokens against the store."""

    def __init__(self, db: DB, keys: SessionKeys, journal: Journal, clock: Clock) -> None:
        self._db = db
        self._keys = keys
        self._journal = journal
        self._clock = clock
        self._cache: dict[str, CachedToken] = {}
        self.uses = Uses(db)
        self.known_expired: set[SessionPath] = set()
        """Once found expired, a session stays expired even if the clock is set back."""

    def clear_cache(self) -> None:
        """Drop every cached token."""
        self._cache.clear()

    def verify(self, token: object, audience: str | None, scopes: list[str] | None) -> Verification | None:
        """Verify a token, without waiting; None if this would take one of the session's limited uses.

        Raises only if the answer cannot be known.
        """
        now = self._clock.read()
        cached = self._look_up(token, now)
        if isinstance(cached, Verification):
            return cached
        record = cached.record
        if (
            cached.fast_path
            and record is not None
            and not (cached.path in self.known_expired or has_expired(record, now))
        ):
            self.uses.last_uses[cached.path] = now.wall
        else:
            rejection = self._rejection(cached.path, cached.claims, record, now)
            if rejection is not None:
                return rejection
            assert record is not None
            denial = denial_reason(record, audience, scopes)
            if denial is not None:
                return Verification(False, denial, self.describe(cached.path, record))
            if record.uses_left is not None:
                return None
            self.uses.note(cached.path, record, cached.claims.gen, now)
        if cached.answered_at <= now.wall < cached.answered_at + ANSWER_SECONDS:
            return cached.answer
        # Cacheable is what is under the current key, which has no end.
        return cached.make_answer(now.wall, None if cached.cacheable else self._keys.grace_end(cached.key_id))

    async def consume(self, token: object, audience: str | None, scopes: list[str] | None) -> Verification:
        """Verify a token of a session with limited uses: valid once the use is durable.

        A crash may lose a use, but never allows one more.
        """
        opened = self.open(self._db, token)
        if isinstance(opened, Verification):
            return opened
        return await self._db.write(lambda view: self._consume(view, opened, audience, scopes), reserved=True)

    def consume_through(
        self, tran: Transaction, token: object, audience: str | None, scopes: list[str] | None
    ) -> Verification:
        """The same, in a transaction."""
        opened = self.open(tran, token)
        return opened if isinstance(opened, Verification) else self._consume(tran, opened, audience, scopes)

    def _consume(
        self, view: View, opened: CachedToken, audience: str | None, scopes: list[str] | None
    ) -> Verification:
        record = self.live_record(view, opened)
        if isinstance(record, Verification):
            return record
        denial = denial_reason(record, audience, scopes)
        if denial is not None:
            return Verification(False, denial, self.describe(opened.path, record))
        uses_left = record.uses_left
        if uses_left is not None:
            now = self._clock.read()
            if opened.claims.gen == record.generation > 0 and record.superseded_at is None:
                record = supersede_previous(record, now)
            record = replace(record, uses_left=uses_left - 1, last_used_at=now.wall)
            view.put(opened.path, record.encode())
        return Verification(True, None, session_info(record, ends_at=self._keys.grace_end(opened.key_id)))

    def inspect(self, token: object, audience: str | None, scopes: list[str] | None) -> Verification:
        """What `verify` would answer, with all that is known. It does not count as a use."""
        now = self._clock.read()
        cached = self._look_up(token, now)
        if isinstance(cached, Verification):
            return cached
        return self._inspected(cached.path, cached.claims, cached.record, now, audience, scopes)

    def inspect_id(self, session_id: str, audience: str | None, scopes: list[str] | None) -> Verification:
        """The same of a session, as if the newest token were verified."""
        now = self._clock.read()
        path = find_path(self._db, session_id, now)
        live = None if path is None else find_live_session(self._db, path, now)
        if path is None or live is None:
            return Verification(False, reasons.REVOKED, None)
        record = live.record
        claims = Claims("", "", session_id, record.created_at, record.expires_at, record.generation)
        return self._inspected(path, claims, record, now, audience, scopes)

    def inspect_through(self, tran: Transaction, token: object) -> Verification:
        """What a transaction sees of a token."""
        opened = self.open(tran, token)
        if isinstance(opened, Verification):
            return opened
        record = self.live_record(tran, opened)
        if isinstance(record, Verification):
            return record
        return self._permission(opened.path, record, None, None)

    def live_record(self, view: Readable, opened: CachedToken) -> Verification | SessionRecord:
        """The record of a token that is valid as an operation sees it, or why it is not."""
        now = self._clock.read()
        if opened.key_id not in accepted_key_ids(view, now):  # replaced since the token was opened
            return _KEY_RESET
        live = find_live_session(view, opened.path, now)
        record = None if live is None else live.record
        # An operation may run more than once, so it remembers and announces nothing.
        rejection = self._rejection(opened.path, opened.claims, record, now, remember=False)
        if rejection is not None:
            return rejection
        assert record is not None
        return record

    def open(self, view: Readable, token: object) -> CachedToken | Verification:
        """Open a genuine token by the key record in `view`, or say why it is not one. Nothing is cached."""
        sealed = _parsed(token)
        if sealed is None:
            return _MALFORMED
        record = read_key_record(view)
        key = None if record is None else self._keys.accepted_by(record, sealed.key_id, self._clock.read())
        if key is None:
            return self._without_key(sealed)
        return self._opened(key, sealed) or _MALFORMED

    def describe(self, path: SessionPath, record: SessionRecord) -> SessionInfo:
        """A record as callers see it, with its last use."""
        return session_info(record, self.uses.last_uses.get(path), self._keys.grace_end(path[1]))

    def is_over(
        self, path: SessionPath, record: SessionRecord, now: Instant, *, remember: bool = False
    ) -> bool:
        """Whether a session has expired, or is known to have expired, itself or an ancestor.

        With `remember`, an expiry that is found now is final and published to subscribers.
        """
        ancestors = (session_path(path[1], ancestor) for ancestor in record.ancestors)
        if path in self.known_expired or any(each in self.known_expired for each in ancestors):
            return True
        if not has_expired(record, now):
            return False
        if remember:
            self.known_expired.add(path)
            self._journal.publish(SESSION_EXPIRED, record)
        return True

    # --- the cache ---

    def _look_up(self, token: object, now: Instant) -> CachedToken | Verification:
        """The token with its session's record as it is now, or why it is not genuine."""
        # Exactly str: an object of a subclass may compare equal to a token that it is not.
        if type(token) is not str:
            return _MALFORMED
        cached = self._cache.get(token)
        revision = self._db.revision
        if cached is None:
            opened = self._open_fast(token, now)
            if isinstance(opened, Verification):
                return opened
            cached = opened
            if len(self._cache) >= MAX_CACHED_TOKENS:
                del self._cache[next(iter(self._cache))]
            self._cache[token] = cached
        elif cached.revision == revision is not None and cached.cacheable:
            return cached
        return self._refreshed(token, cached, revision, now)

    def _refreshed(
        self, token: str, cached: CachedToken, revision: int | None, now: Instant
    ) -> CachedToken | Verification:
        key_sealed, *sealed = self._db.sealed(KEY_PATH, cached.path, *cached.ancestor_paths)
        current = self._keys.current_for(key_sealed)
        is_under_current_key = current is not None and cached.key_id == current.id
        if not is_under_current_key and self._keys.accepted(cached.key_id, now) is None:
            self._cache.pop(token, None)
            return _KEY_RESET
        if None in sealed:
            cached.mark_gone(is_under_current_key=is_under_current_key)
        elif sealed != cached.sealed:
            own = sealed[0]
            assert own is not None
            record = SessionRecord.decode(self._db.unseal(cached.path, own))
            cached.update(record, is_under_current_key=is_under_current_key)
            cached.sealed = sealed
            if record.ancestors:
                # If they were not known before, a second and later read. Ids are never reused, so an ancestor
                # that exists now existed then.
                cached.ancestor_paths = [session_path(cached.key_id, id) for id in record.ancestors]
                stored = self._db.sealed(*cached.ancestor_paths)
                if None in stored:
                    cached.mark_gone(is_under_current_key=is_under_current_key)
                else:
                    cached.sealed = [own, *stored]
        elif cached.cacheable and not is_under_current_key:
            # The key was replaced with grace, whose end has to be checked from now on.
            cached.fast_path = cached.cacheable = False
        cached.revision = revision
        return cached

    def _open_fast(self, token: str, now: Instant) -> CachedToken | Verification:
        """Open a genuine token with a key in memory, before reading whether that key is still accepted.

        The caller reads the key's record together with the session's (`_refreshed`).
        """
        sealed = _parsed(token)
        if sealed is None:
            return _MALFORMED
        known = self._keys.in_memory(sealed.key_id)
        opened = None if known is None else self._opened(known, sealed)
        if opened is not None:
            return opened
        self._keys.current()
        key = self._keys.accepted(sealed.key_id, now)
        if key is None:
            return self._without_key(sealed)
        return (None if key is known else self._opened(key, sealed)) or _MALFORMED

    def _opened(self, key: SessionKey, sealed: SealedToken) -> CachedToken | None:
        claims = self._keys.open_token(key, sealed)
        return None if claims is None else CachedToken(key.id, claims, session_path(key.id, claims.jti))

    def _without_key(self, token: SealedToken) -> Verification:
        return _OTHER_AGENT if self._keys.is_of_another_agent(token.key_id) else _KEY_RESET

    # --- judging ---

    def _inspected(
        self,
        path: SessionPath,
        claims: Claims,
        record: SessionRecord | None,
        now: Instant,
        audience: str | None,
        scopes: list[str] | None,
    ) -> Verification:
        rejection = self._rejection(path, claims, record, now)
        if rejection is not None:
            return rejection
        assert record is not None
        return self._permission(path, record, audience, scopes)

    def _rejection(
        self,
        path: SessionPath,
        claims: Claims,
        record: SessionRecord | None,
        now: Instant,
        *,
        remember: bool = True,
    ) -> Verification | None:
        """Why a token is not valid, whatever it is used for; None if it is, and then there is a record."""
        if record is None or claims.gen > record.generation:
            # Records of expired sessions are swept, but the token still shows that this one expired.
            expired = claims.exp is not None and now.wall >= claims.exp + EXPIRY_LEEWAY_SECONDS
            return Verification(False, reasons.EXPIRED if expired else reasons.REVOKED, None)
        if self.is_over(path, record, now, remember=remember):
            info = self.describe(path, record)._replace(state=EXPIRED)
            return Verification(False, reasons.EXPIRED, info)
        if is_superseded(self.uses.with_first_use(path, record), claims.gen, now):
            return Verification(False, reasons.SUPERSEDED, self.describe(path, record))
        return None

    def _permission(
        self, path: SessionPath, record: SessionRecord, audience: str | None, scopes: list[str] | None
    ) -> Verification:
        """Whether a session permits this use."""
        reason = denial_reason(record, audience, scopes)
        return Verification(reason is None, reason, self.describe(path, record))


def _parsed(token: object) -> SealedToken | None:
    # Exactly str, as in `_look_up`.
    if type(token) is not str or len(token) > MAX_TOKEN_CHARACTERS:
        return None
    try:
        return parse_token(token)
    except TokenError:
        return None
