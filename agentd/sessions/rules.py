"""The rules of sessions: how long they last, and what they may be used for.

Pure: records and times come in as arguments.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from msgspec.structs import replace

from agentd_client.durations import format_duration
from agentd_client.errors import (
    AgentdError,
    InvalidAudienceError,
    InvalidExpiryError,
    InvalidGraceError,
    InvalidLabelError,
    InvalidScopesError,
    InvalidUsesError,
    NotWithinParentError,
)
from agentd_client.protocol import reasons
from agentd_client.protocol.limits import (
    MAX_AUDIENCE_CHARACTERS,
    MAX_AUDIENCES,
    MAX_EXPIRY_SECONDS,
    MAX_GRACE_SECONDS,
    MAX_LABEL_CHARACTERS,
    MAX_SCOPE_CHARACTERS,
    MAX_SCOPES,
    MAX_USES,
)
from agentd_client.protocol.methods import NEVER
from agentd_client.shown_text import name_of, unshown_character

if TYPE_CHECKING:
    from .clock import Instant
    from .records import KeyRecord, SessionRecord

SecondsT = TypeVar("SecondsT", int, float)

EXPIRY_LEEWAY_SECONDS = 1.0
"""A token is valid while now < created + ttl + 1 s, so that a ttl of 0 can be used at all."""

OVERLAP_SECONDS = 10.0
"""How long a token stays valid after the first use of its successor: longer than any program takes from
reading the token file to sending the token."""

MAX_OVERLAPS = 8
"""Generations before the last two that a record remembers while they are valid. Renewing more often than
that within `OVERLAP_SECONDS` drops the oldest at once, because a record's size is limited."""

# RFC 6749, 3.3: NQCHAR, the characters of a scope token. Audiences take the same: both end up in terminals.
_NAME_CHARACTERS = frozenset(map(chr, (0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F))))


# --- time ---


class Lifetimes(NamedTuple):
    """The manager's settings for how long sessions last, in whole seconds.

    default_ttl: if the request gives no expiry; None is never.
    default_max: how long a session can be renewed if the request gives no maximum; None is without end.
    limit: no session lasts longer, renewed or not; None is without limit.
    """

    default_ttl: int | None
    default_max: int | None
    limit: int | None

    def of_new_session(self, expiry: object, max_lifetime: object) -> tuple[int | None, int | None]:
        """The ttl and the maximum lifetime of a new session; `InvalidExpiryError` if one is unusable.

        A request beyond the limit is refused, because the caller would rely on it. A default is cut short.
        """
        ttl = checked_ttl(expiry, self.default_ttl)
        if expiry is not None:
            self._check_limit("expiry", ttl)
        if max_lifetime is not None:
            max_ttl = checked_ttl(max_lifetime, None)
            self._check_limit("hard maximum", max_ttl)
            return earliest(ttl, self.limit, max_ttl), earliest(max_ttl, self.limit)
        ttl = earliest(ttl, self.limit)
        if ttl is None or self.default_max is None:
            return ttl, self.limit
        return ttl, earliest(max(ttl, self.default_max), self.limit)

    def _check_limit(self, name: str, seconds: int | None) -> None:
        if self.limit is not None and (seconds is None or seconds > self.limit):
            asked = NEVER if seconds is None else format_duration(seconds)
            raise InvalidExpiryError(
                f"the {name} {asked!r} exceeds the agent's limit of {format_duration(self.limit)} "
                "(session_max_lifetime); ask for less, or leave it out"
            )


def checked_ttl(expiry: object, default: int | None) -> int | None:
    """A lifetime in whole seconds, or None for never.

    Args:
        expiry: a whole number of seconds, `NEVER`, or None for the default.
        default: None for never.

    Raises:
        InvalidExpiryError: negative, fractional, not a number, a boolean, or over a hundred years.
    """
    if expiry is None:
        return default
    if expiry == NEVER and isinstance(expiry, str):
        return None
    if isinstance(expiry, bool) or not isinstance(expiry, int):
        raise InvalidExpiryError(
            f"an expiry is a whole number of seconds or {NEVER!r}, not {type(expiry).__name__}"
        )
    if not 0 <= expiry <= MAX_EXPIRY_SECONDS:
        raise InvalidExpiryError(f"an expiry is from 0 to {MAX_EXPIRY_SECONDS} seconds (100 years)")
    return expiry


def checked_grace(grace: object) -> int:
    """How many seconds the replaced key is still accepted; None is 0. Raises `InvalidGraceError`."""
    if grace is None:
        return 0
    if isinstance(grace, bool) or not isinstance(grace, int) or not 0 <= grace <= MAX_GRACE_SECONDS:
        raise InvalidGraceError
    return grace


def to_milliseconds(seconds: float) -> float:
    """A time as records and tokens hold it: rounded down to whole milliseconds."""
    return int(seconds * 1000) / 1000


def ends_after(ttl: float | None, now: Instant) -> tuple[float | None, float | None]:
    """The end of a lifetime that begins now, on the wall clock and on the boot clock; None for never."""
    return (None, None) if ttl is None else (to_milliseconds(now.wall) + ttl, now.boot + ttl)


def earliest(*ends: SecondsT | None) -> SecondsT | None:
    """The smallest of the values given; None means never, which is later than all."""
    return min((end for end in ends if end is not None), default=None)


def _is_over(
    wall_end: float | None, boot_end: float | None, boot_id: str, now: Instant, tolerance: float = 0.0
) -> bool:
    """Whether either clock has reached an end. The boot clock counts in its own boot only."""
    if wall_end is None:
        return False
    if now.wall >= wall_end + tolerance:
        return True
    return boot_end is not None and boot_id == now.boot_id != "" and now.boot >= boot_end + tolerance


def has_expired(record: SessionRecord, now: Instant) -> bool:
    """Whether the session's own time is over."""
    return _is_over(record.expires_at, record.boot_expires, record.boot_id, now, EXPIRY_LEEWAY_SECONDS)


def is_in_grace(record: KeyRecord, key_id: str, now: Instant) -> bool:
    """Whether this is the previous key and its tokens still verify."""
    if not key_id or key_id != record.earlier_key_id:
        return False
    return not _is_over(record.earlier_until, record.earlier_boot_until, record.earlier_boot_id, now)


def is_superseded(record: SessionRecord, generation: int, now: Instant) -> bool:
    """Whether a token of that generation is no longer valid because a later one took its place.

    A token is valid until the next one was first used and `OVERLAP_SECONDS` more, because programs that share
    a token file may have read it just before it was rewritten.
    """
    behind = record.generation - generation
    if behind <= 0:
        return False
    if behind == 1:
        since = record.superseded_at
        return since is not None and _is_past_overlap(
            since, record.superseded_boot_id, record.superseded_boot, now
        )
    remembered = record.overlaps[behind - 2 : behind - 1]
    return not remembered or _is_past_overlap(*remembered[0], now)


def _is_past_overlap(wall: float, boot_id: str, boot: float, now: Instant) -> bool:
    is_past_on_boot = now.boot >= boot + OVERLAP_SECONDS
    if now.wall < wall:  # the clock was set back, so the wall time that has passed is unknown
        return boot_id != now.boot_id or is_past_on_boot
    return now.wall >= wall + OVERLAP_SECONDS or (boot_id == now.boot_id != "" and is_past_on_boot)


def _overlaps(record: SessionRecord, now: Instant) -> list[tuple[float, str, float]]:
    """When older generations were superseded, as a new generation remembers it, the latest first."""
    if record.generation == 0:
        return []
    # Renewing with the newest token uses it.
    used = supersede_previous(record, now) if record.superseded_at is None else record
    assert used.superseded_at is not None
    times = [(used.superseded_at, used.superseded_boot_id, used.superseded_boot), *record.overlaps]
    # Older generations were superseded earlier: after the first one that is over, all are.
    return list(takewhile(lambda since: not _is_past_overlap(*since, now), times))[:MAX_OVERLAPS]


def supersede_previous(record: SessionRecord, now: Instant) -> SessionRecord:
    """The record once the newest token has been used, which starts the overlap of the previous one."""
    return replace(record, superseded_at=now.wall, superseded_boot_id=now.boot_id, superseded_boot=now.boot)


def renewed(
    record: SessionRecord, parent: SessionRecord | None, now: Instant, limit: int | None = None
) -> SessionRecord:
    """The record with a new generation, whose lifetime begins now.

    It ends no later than its maximum, its parent, and `limit` seconds after its creation, a setting that may
    be newer than the session.
    """
    ttl = record.ttl
    if ttl is None and record.expires_at is not None and not record.ancestors:  # a record without a ttl
        ttl = record.expires_at - record.created_at
    wall, boot = ends_after(ttl, now)
    is_same_boot = record.boot_id == now.boot_id
    ends: list[float | None] = [wall, record.max_expires_at]
    ends.append(None if limit is None else record.created_at + limit)
    boot_ends: list[float | None] = [boot, record.boot_max_expires if is_same_boot else None]
    if parent is not None:
        ends.append(parent.expires_at)
        boot_ends.append(parent.boot_expires if parent.boot_id == now.boot_id else None)
    expires_at = earliest(*ends)
    boot_ends.append(None if expires_at is None else now.boot + max(0.0, expires_at - now.wall))
    return replace(
        record,
        generation=record.generation + 1,
        renewed_at=to_milliseconds(now.wall),
        expires_at=expires_at,
        boot_id=now.boot_id,
        boot_expires=None if expires_at is None else earliest(*boot_ends),
        boot_max_expires=record.boot_max_expires if is_same_boot else None,
        superseded_at=None,
        superseded_boot_id="",
        superseded_boot=0.0,
        overlaps=_overlaps(record, now),
    )


# --- what a session may be used for ---


class Grant(NamedTuple):
    """What a session may be used for; None is no restriction."""

    audience: list[str] | None
    scopes: list[str] | None
    uses: int | None


def checked_label(label: object) -> str:
    """The label, or `InvalidLabelError`: labels end up in terminals, so control characters are refused.

    So are Unicode's format characters, which reorder or hide text, surrogates, and line and paragraph
    separators. Joiners are accepted where scripts and emoji need them: `shown_text`.
    """
    if label is None:
        return ""
    if not isinstance(label, str):
        raise InvalidLabelError(f"a label is text, not {type(label).__name__}")
    if len(label) > MAX_LABEL_CHARACTERS:
        raise InvalidLabelError(f"a label has at most {MAX_LABEL_CHARACTERS} characters, not {len(label)}")
    place = unshown_character(label)
    if place is not None:
        raise InvalidLabelError(
            f"a label cannot contain {name_of(label[place])} (character {place + 1}): control and format "
            "characters are refused, and joiners outside of emoji and of scripts that use them"
        )
    return label


def checked_grant(audience: object, scopes: object, uses: object) -> Grant:
    """The grant asked for, or InvalidAudienceError, InvalidScopesError, InvalidUsesError."""
    if uses is not None and (
        isinstance(uses, bool) or not isinstance(uses, int) or not 1 <= uses <= MAX_USES
    ):
        raise InvalidUsesError
    audience = _checked_names(audience, MAX_AUDIENCES, MAX_AUDIENCE_CHARACTERS, InvalidAudienceError)
    return Grant(audience, checked_scopes(scopes), uses)


def checked_scopes(scopes: object) -> list[str] | None:
    """The names of some scopes, or `InvalidScopesError`."""
    return _checked_names(scopes, MAX_SCOPES, MAX_SCOPE_CHARACTERS, InvalidScopesError)


def checked_audience(audience: object) -> str | None:
    """One audience, as a verifier names itself, or `InvalidAudienceError`."""
    if audience is None:
        return None
    checked = _checked_names([audience], 1, MAX_AUDIENCE_CHARACTERS, InvalidAudienceError)
    assert checked is not None
    return checked[0]


def grant_within(grant: Grant, parent: SessionRecord) -> Grant:
    """The grant of a child session, which inherits from its parent what the request leaves out.

    Raises:
        NotWithinParentError: it asks for more than the parent has.
    """
    if parent.uses_left is not None and (grant.uses is None or grant.uses > parent.uses_left):
        raise NotWithinParentError(
            f"the parent has {parent.uses_left} uses left, from which a child takes its own: ask for fewer"
        )
    return Grant(
        _subset(grant.audience, parent.audience, "audience"),
        _subset(grant.scopes, parent.scopes, "scopes"),
        grant.uses,
    )


def child_of(parent: SessionRecord, record: SessionRecord, grant: Grant, now: Instant) -> SessionRecord:
    """The record of a new session as a child: with this grant, and ending no later than its parent."""
    is_same_boot = parent.boot_id == record.boot_id
    expires_at = earliest(record.expires_at, parent.expires_at)
    boot_expires = earliest(
        record.boot_expires,
        parent.boot_expires if is_same_boot else None,
        None if expires_at is None else now.boot + max(0.0, expires_at - now.wall),
    )
    return replace(
        record,
        expires_at=expires_at,
        boot_expires=boot_expires,
        max_expires_at=earliest(record.max_expires_at, parent.max_expires_at),
        boot_max_expires=earliest(record.boot_max_expires, parent.boot_max_expires if is_same_boot else None),
        audience=grant.audience,
        scopes=grant.scopes,
        uses_left=grant.uses,
        ancestors=[*parent.ancestors, parent.session_id],
    )


def denial_reason(record: SessionRecord, audience: str | None, scopes: list[str] | None) -> str | None:
    """Why a session does not permit this use; None if it does.

    RFC 7519, 4.1.3: a verifier that does not name itself as one of the audience is refused.
    """
    if record.audience is not None and audience not in record.audience:
        return reasons.WRONG_AUDIENCE
    if scopes and record.scopes is not None and not set(scopes) <= set(record.scopes):
        return reasons.MISSING_SCOPE
    if record.uses_left is not None and record.uses_left <= 0:
        return reasons.USED_UP
    return None


def _subset(asked: list[str] | None, allowed: list[str] | None, what: str) -> list[str] | None:
    if asked is None or allowed is None:
        return allowed if asked is None else asked
    if excess := [name for name in asked if name not in allowed]:
        raise NotWithinParentError(f"beyond the parent's {what}: {', '.join(excess)}; nothing was stored")
    return asked


def _checked_names(names: object, most: int, longest: int, error: type[AgentdError]) -> list[str] | None:
    if names is None:
        return None
    if not isinstance(names, list | tuple) or len(names) > most:
        raise error
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= longest or not _NAME_CHARACTERS.issuperset(name):
            raise error
    if len(set(names)) != len(names):
        raise error
    return list(names)
