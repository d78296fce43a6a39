"""The rules about a session's time. Pure: records and times come in as arguments."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agentd_client.errors import InvalidExpiryError, InvalidGraceError
from agentd_client.protocol.limits import MAX_EXPIRY_SECONDS, MAX_GRACE_SECONDS
from agentd_client.protocol.methods import NEVER

if TYPE_CHECKING:
    from .clock import Instant
    from .records import KeyRecord, SessionRecord

EXPIRY_LEEWAY_SECONDS = 1.0
"""A token is valid while now < made + expiry + 1 s, so that an expiry of 0 can be used at all."""

OVERLAP_SECONDS = 10.0
"""For which a token stays good after its successor was seen: longer than any program takes from reading the
token file to sending what it read."""

MAX_OVERLAPS = 8
"""Generations before the last two that a record remembers while they are good. Whoever renews more often than
that within `OVERLAP_SECONDS` lets the oldest go at once; a record has a size."""


def expiry_seconds(expiry: object, default: int | None) -> int | None:
    """How long a session lasts: whole seconds, or None for never.

    Args:
        expiry: a whole number of seconds, `NEVER`, or None for the default.
        default: the manager's own, None for never.

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


def grace_seconds(grace: object) -> int:
    """For how long the earlier key still counts; None is 0. Raises `InvalidGraceError`."""
    if grace is None:
        return 0
    if isinstance(grace, bool) or not isinstance(grace, int) or not 0 <= grace <= MAX_GRACE_SECONDS:
        raise InvalidGraceError
    return grace


def millisecond(seconds: float) -> float:
    """A time as records and tokens hold it: whole milliseconds, rounded down."""
    return int(seconds * 1000) / 1000


def ends_after(lasts: float | None, now: Instant) -> tuple[float | None, float | None]:
    """The end of a time that begins now, on the wall clock and on the boot's; None for never."""
    return (None, None) if lasts is None else (millisecond(now.wall) + lasts, now.boot + lasts)


def earlier(*ends: float | None) -> float | None:
    """The earliest of some ends; None, which is never, is later than all."""
    return min((end for end in ends if end is not None), default=None)


def is_over(
    wall_end: float | None, boot_end: float | None, boot_id: str, now: Instant, tolerance: float = 0.0
) -> bool:
    """Whether either clock says that an end has come; the boot clock speaks within its boot only."""
    if wall_end is None:
        return False
    if now.wall >= wall_end + tolerance:
        return True
    return boot_end is not None and boot_id == now.boot_id != "" and now.boot >= boot_end + tolerance


def has_expired(record: SessionRecord, now: Instant) -> bool:
    """Whether the session's time is over."""
    return is_over(record.expires, record.boot_expires, record.boot_id, now, EXPIRY_LEEWAY_SECONDS)


def counts_as_earlier(record: KeyRecord, key_id: str, now: Instant) -> bool:
    """Whether tokens of a key that was replaced with grace still verify."""
    if not key_id or key_id != record.earlier_key_id:
        return False
    return not is_over(record.earlier_until, record.earlier_boot_until, record.earlier_boot_id, now)


def is_superseded(record: SessionRecord, generation: int, now: Instant) -> bool:
    """Whether a token of that generation is no longer good, because a later one took its place.

    Each is good until the one after it was seen, and `OVERLAP_SECONDS` more: programs that share a token file
    may have read it just before it was rewritten, however often it is.
    """
    behind = record.generation - generation
    if behind <= 0:
        return False
    if behind == 1:
        since = record.superseded
        return since is not None and _is_past_overlap(
            since, record.superseded_boot_id, record.superseded_boot, now
        )
    remembered = record.overlaps[behind - 2 : behind - 1]
    return not remembered or _is_past_overlap(*remembered[0], now)


def _is_past_overlap(wall: float, boot_id: str, boot: float, now: Instant) -> bool:
    is_past_on_boot = now.boot >= boot + OVERLAP_SECONDS
    if now.wall < wall:  # the clock was set back: how long ago it was is not known
        return boot_id != now.boot_id or is_past_on_boot
    return now.wall >= wall + OVERLAP_SECONDS or (boot_id == now.boot_id != "" and is_past_on_boot)


def _overlaps(record: SessionRecord, now: Instant) -> list[tuple[float, str, float]]:
    """What a new generation remembers of those that it leaves two and more behind, the latest first."""
    if record.generation == 0:
        return []
    seen = first_seen(record, now) if record.superseded is None else record  # to renew with it is to see it
    assert seen.superseded is not None
    times = [(seen.superseded, seen.superseded_boot_id, seen.superseded_boot), *record.overlaps]
    # The older, the earlier superseded: from the first that is over on, all are.
    return list(takewhile(lambda since: not _is_past_overlap(*since, now), times))[:MAX_OVERLAPS]


def first_seen(record: SessionRecord, now: Instant) -> SessionRecord:
    """The record once the newest generation has been seen."""
    return replace(record, superseded=now.wall, superseded_boot_id=now.boot_id, superseded_boot=now.boot)


def renewed(
    record: SessionRecord, parent: SessionRecord | None, now: Instant, limit: int | None = None
) -> SessionRecord:
    """The record with a new generation, whose lifetime begins now.

    It goes no further than the hard maximum, than `limit` seconds from its opening (a setting, perhaps newer
    than the session), and than the parent's present end.
    """
    lasts = record.lasts
    if lasts is None and record.expires is not None and not record.ancestors:  # of a form that did not tell
        lasts = record.expires - record.made
    wall, boot = ends_after(lasts, now)
    same_boot = record.boot_id == now.boot_id
    ends: list[float | None] = [wall, record.max_expires, None if limit is None else record.made + limit]
    boot_ends: list[float | None] = [boot, record.boot_max_expires if same_boot else None]
    if parent is not None:
        ends.append(parent.expires)
        boot_ends.append(parent.boot_expires if parent.boot_id == now.boot_id else None)
    expires = earlier(*ends)
    boot_ends.append(None if expires is None else now.boot + max(0.0, expires - now.wall))
    return replace(
        record,
        generation=record.generation + 1,
        renewed=millisecond(now.wall),
        expires=expires,
        boot_id=now.boot_id,
        boot_expires=None if expires is None else earlier(*boot_ends),
        boot_max_expires=record.boot_max_expires if same_boot else None,
        superseded=None,
        superseded_boot_id="",
        superseded_boot=0.0,
        overlaps=_overlaps(record, now),
    )
