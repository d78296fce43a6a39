"""Is this token valid? The one place that decides it.

Opening a token costs some ten microseconds, so opened tokens are kept: which record a genuine token
names, and what that record's bytes mean, which can never change. As long as nothing was committed to the
store since (its revision is the same), the record is known too. Otherwise the key's record, the session's
and those above it are read again, in one transaction, and their bytes compared. So a revoke, a reset or
a changed record cannot be missed, whoever wrote it. Time is asked anew every time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agentd_client.protocol import reasons
from agentd_client.protocol.limits import MAX_TOKEN_CHARACTERS
from agentd_client.protocol.results import EXPIRED, SessionInfo, Verification

from ..tokens import Claims, SealedToken, TokenError, open_token, parse_token
from .grants import misfit
from .opened_token import ANSWER_SECONDS, OpenedToken, describe
from .records import KEY_PATH, SessionPath, SessionRecord, session_path
from .rules import EXPIRY_LEEWAY_SECONDS, first_seen, has_expired, is_superseded
from .standing import Readable, keys_that_count, present_key, standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store import DB
    from .clock import Clock, Instant
    from .key_holder import KeyHolder
    from .session_key import SessionKey

MAX_OPENED_TOKENS = 4096
"""Opened tokens that are kept, about 1 KiB each; the oldest goes first."""

_MALFORMED = Verification(False, reasons.MALFORMED, None)
_KEY_RESET = Verification(False, reasons.KEY_RESET, None)
_OTHER_AGENT = Verification(False, reasons.OTHER_AGENT, None)


class Verifier:
    """Judges tokens against the store; never waits. What it notes is written by whoever it tells.

    Args:
        db, keys, implicit, clock: what tokens are judged by.
        on_first_seen: told of the path of a session whose newest token was seen for the first time.
        on_expired: told of a session that was seen expired for the first time.
    """

    def __init__(
        self,
        db: DB,
        keys: KeyHolder,
        implicit: bytes,
        clock: Clock,
        *,
        on_first_seen: Callable[[SessionPath, int], None],
        on_expired: Callable[[SessionRecord], None],
    ) -> None:
        self._db = db
        self._keys = keys
        self._implicit = implicit
        self._clock = clock
        self._on_first_seen = on_first_seen
        self._on_expired = on_expired
        self._opened: dict[str, OpenedToken] = {}
        self._seen: dict[SessionPath, tuple[int, Instant]] = {}
        self.seen_expired: set[SessionPath] = set()
        """What was once seen expired stays so, wherever the clock goes; emptied as records are deleted."""
        self.used: dict[SessionPath, float] = {}
        """When sessions were last used, as far as that is not in their records yet."""

    def forget(self) -> None:
        """Drop every opened token."""
        self._opened.clear()

    def verify(self, token: object, audience: str | None, scopes: list[str] | None) -> Verification | None:
        """Whether a token is valid, as a use of it; None where the use has to be counted in the store.

        Raises only where it cannot be known.
        """
        now = self._clock.read()
        opened = self._current(token, now)
        if isinstance(opened, Verification):
            return opened
        record = opened.record
        if (
            opened.is_plain
            and record is not None
            and not (opened.path in self.seen_expired or has_expired(record, now))
        ):
            wall = self.used[opened.path] = now.wall
            if not opened.answered_at <= wall < opened.answered_at + ANSWER_SECONDS:
                opened.answer_use(wall)
            return opened.answer
        refusal = self._refusal(opened, record, now, partial(misfit, audience=audience, scopes=scopes))
        if refusal is not None:
            return refusal
        assert record is not None
        if record.uses_left is not None:
            return None
        self.note_use(opened.path, record, opened.claims.gen, now)
        if not opened.answered_at <= now.wall < opened.answered_at + ANSWER_SECONDS:
            opened.answer_use(now.wall)
        return opened.answer

    def inspect(self, token: object, audience: str | None, scopes: list[str] | None) -> Verification:
        """What `verify` would say, with all that is known; looking is no use and changes nothing."""
        now = self._clock.read()
        opened = self._current(token, now)
        if isinstance(opened, Verification):
            return opened
        fits = partial(misfit, audience=audience, scopes=scopes)
        refusal = self._refusal(opened, opened.record, now, fits)
        if refusal is not None:
            return refusal
        assert opened.record is not None
        return Verification(True, None, self.describe(opened.path, opened.record))

    def inspect_record(
        self, path: SessionPath, record: SessionRecord, audience: str | None, scopes: list[str] | None
    ) -> Verification:
        """The same of a record, as if a token of its newest generation were asked about."""
        claims = Claims("", "", record.session_id, record.made, record.expires, record.generation)
        fits = partial(misfit, audience=audience, scopes=scopes)
        refusal = self._refusal(OpenedToken(path[1], claims), record, self._clock.read(), fits)
        return refusal or Verification(True, None, self.describe(path, record))

    def judge_through(
        self, view: Readable, token: object, audience: str | None = None, scopes: list[str] | None = None
    ) -> Verification:
        """The same, as a transaction sees it."""
        opened = self.open(view, token)
        if isinstance(opened, Verification):
            return opened
        found = self.found_in(view, opened, partial(misfit, audience=audience, scopes=scopes))
        return (
            found
            if isinstance(found, Verification)
            else Verification(True, None, self.describe(opened.path, found))
        )

    def found_in(
        self,
        view: Readable,
        opened: OpenedToken,
        fits: Callable[[SessionRecord], str | None] = lambda record: None,
    ) -> Verification | SessionRecord:
        """The record of a token that is valid as an operation sees it, or why it is not.

        Args:
            view: of the operation that is carried out.
            opened: the token.
            fits: why a session that goes on is not good for what is wanted; None where it is.
        """
        now = self._clock.read()
        if opened.key_id not in keys_that_count(view, now):  # it was replaced since the token was opened
            return _KEY_RESET
        found = standing(view, opened.path, now)
        record = None if found is None else found.record
        refusal = self._refusal(opened, record, now, fits, is_telling=False)
        if refusal is not None:
            return refusal
        assert record is not None
        return record

    def open(self, view: Readable, token: object) -> OpenedToken | Verification:
        """A genuine token opened, or why it is none."""
        sealed = _parsed(token)
        if sealed is None:
            return _MALFORMED
        record = present_key(view)
        key = None if record is None else self._keys.of_id(record, sealed.key_id, self._clock.read())
        if key is None:
            return self._of_no_key(sealed)
        return self._open(key, sealed) or _MALFORMED

    def note_use(self, path: SessionPath, record: SessionRecord, generation: int, now: Instant) -> None:
        """A valid token was used."""
        self.used[path] = now.wall
        if generation == record.generation > 0 and record.superseded is None:
            known = self._seen.get(path)
            if known is None or known[0] != generation:
                self._seen[path] = (generation, now)
                self._on_first_seen(path, generation)

    @property
    def first_sights(self) -> list[tuple[SessionPath, int]]:
        """The sessions whose newest token was seen for the first time, as far as that is kept in memory."""
        return [(path, generation) for path, (generation, _) in self._seen.items()]

    def first_seen_is_stored(self, path: SessionPath, generation: int) -> None:
        """The record says it now, or there is none any more."""
        if self._seen.get(path, (None,))[0] == generation:
            del self._seen[path]

    def _as_seen(self, path: SessionPath, record: SessionRecord) -> SessionRecord:
        """The record, with what was seen of it and is still on its way to the store."""
        generation, when = self._seen.get(path, (None, None))
        if when is None or generation != record.generation or record.superseded is not None:
            return record
        return first_seen(record, when)

    def describe(self, path: SessionPath, record: SessionRecord) -> SessionInfo:
        """A record as callers see it, with its last use."""
        return describe(record, self.used.get(path))

    def is_over(
        self, path: SessionPath, record: SessionRecord, now: Instant, *, is_telling: bool = False
    ) -> bool:
        """Whether a session's time is over, or was once seen to be; one above it may have taken it along.

        With `is_telling`, on the event loop's thread, what is seen now stays so and subscribers hear of it.
        """
        above = (session_path(path[1], ancestor) for ancestor in record.ancestors)
        if path in self.seen_expired or any(each in self.seen_expired for each in above):
            return True
        if not has_expired(record, now):
            return False
        if is_telling:
            self.seen_expired.add(path)
            self._on_expired(record)
        return True

    def _current(self, token: object, now: Instant) -> OpenedToken | Verification:
        """The token opened, with its record as it is now; `record` is None where that does not count."""
        # Exactly str: a class of somebody's own may compare equal to a token that it is not.
        if type(token) is not str:
            return _MALFORMED
        opened = self._opened.get(token)
        revision = self._db.revision
        if opened is None:
            found = self._open_present(token, now)
            if isinstance(found, Verification):
                return found
            opened = found
            if len(self._opened) >= MAX_OPENED_TOKENS:
                del self._opened[next(iter(self._opened))]
            self._opened[token] = opened
        elif opened.revision == revision is not None and opened.is_settled:
            return opened
        return self._refreshed(token, opened, revision, now)

    def _refreshed(
        self, token: str, opened: OpenedToken, revision: int | None, now: Instant
    ) -> OpenedToken | Verification:
        key_sealed, *sealed = self._db.sealed(KEY_PATH, opened.path, *opened.above)
        current = self._keys.current(key_sealed)
        is_under_present_key = current is not None and opened.key_id == current.id
        if not is_under_present_key and self._keys.accepting(opened.key_id, now) is None:
            self._opened.pop(token, None)
            return _KEY_RESET
        if None in sealed:
            opened.lose(is_under_present_key=is_under_present_key)
        elif sealed != opened.sealed:
            own = sealed[0]
            assert own is not None
            record = SessionRecord.decode(self._db.unseal(opened.path, own))
            opened.read(record, is_under_present_key=is_under_present_key)
            opened.sealed = sealed
            if record.ancestors:
                # Those above it, if they were not known before: a second reading, later than its own. Ids are
                # never used again, so what is there now was there then.
                opened.above = [session_path(opened.key_id, ancestor) for ancestor in record.ancestors]
                stored = self._db.sealed(*opened.above)
                if None in stored:
                    opened.lose(is_under_present_key=is_under_present_key)
                else:
                    opened.sealed = [own, *stored]
        elif opened.is_settled and not is_under_present_key:
            # The key was replaced with grace: from now on its end has to be watched.
            opened.is_plain = opened.is_settled = False
        opened.revision = revision
        return opened

    def _open_present(self, token: str, now: Instant) -> OpenedToken | Verification:
        """A genuine token opened, or why it is none, by the key's record as it is now.

        A key that is in memory opens it before the record is asked whether that key still counts: whoever
        goes on reads the record with the session's (`_refreshed`).
        """
        sealed = _parsed(token)
        if sealed is None:
            return _MALFORMED
        known = self._keys.in_memory(sealed.key_id)
        opened = None if known is None else self._open(known, sealed)
        if opened is not None:
            return opened
        self._keys.current(self._db.sealed(KEY_PATH)[0])
        key = self._keys.accepting(sealed.key_id, now)
        if key is None:
            return self._of_no_key(sealed)
        return (None if key is known else self._open(key, sealed)) or _MALFORMED

    def _open(self, key: SessionKey, token: SealedToken) -> OpenedToken | None:
        try:
            with key.secret as secret:
                return OpenedToken(key.id, open_token(secret, token, implicit=self._implicit))
        except TokenError:
            return None

    def _of_no_key(self, token: SealedToken) -> Verification:
        return _OTHER_AGENT if self._keys.is_of_another_agent(token.key_id) else _KEY_RESET

    def _refusal(
        self,
        opened: OpenedToken,
        record: SessionRecord | None,
        now: Instant,
        fits: Callable[[SessionRecord], str | None],
        *,
        is_telling: bool = True,
    ) -> Verification | None:
        """Why a token is not valid; None where it is."""
        path, generation = opened.path, opened.claims.gen
        if record is None or generation > record.generation:
            return _gone(opened.claims, now)
        if self.is_over(path, record, now, is_telling=is_telling):
            return Verification(False, reasons.EXPIRED, describe(record, self.used.get(path), EXPIRED))
        if is_superseded(self._as_seen(path, record), generation, now):
            return Verification(False, reasons.SUPERSEDED, self.describe(path, record))
        reason = fits(record)
        return None if reason is None else Verification(False, reason, self.describe(path, record))


def _parsed(token: object) -> SealedToken | None:
    # Exactly str, as in `_current`.
    if type(token) is not str or len(token) > MAX_TOKEN_CHARACTERS:
        return None
    try:
        return parse_token(token)
    except TokenError:
        return None


def _gone(claims: Claims, now: Instant) -> Verification:
    # Records of expired sessions are swept; the token still tells that this one ended by itself.
    expired = claims.exp is not None and now.wall >= claims.exp + EXPIRY_LEEWAY_SECONDS
    return Verification(False, reasons.EXPIRED if expired else reasons.REVOKED, None)
