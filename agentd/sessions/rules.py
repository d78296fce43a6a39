"""The rules about sessions. Pure: records and times come in as arguments."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from agentd_client.errors import InvalidExpiryError, InvalidLabelError
from agentd_client.protocol.limits import MAX_EXPIRY_SECONDS, MAX_LABEL_CHARACTERS
from agentd_client.protocol.methods import NEVER

from .records import SessionRecord

if TYPE_CHECKING:
    from .clock import Instant

GRACE_SECONDS = 1.0
"""A token is valid while now < made + expiry + 1 s, so that an expiry of 0 can be used at all."""


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


def checked_label(label: object) -> str:
    """The label, or `InvalidLabelError`: labels end up in terminals, so control characters stay out.

    Refused with them: Unicode's format characters (they reorder or hide what is shown), surrogates, and
    line and paragraph separators (The Unicode Standard, 4.5 General Category).
    """
    if label is None:
        return ""
    if not isinstance(label, str):
        raise InvalidLabelError(f"a label is text, not {type(label).__name__}")
    if len(label) > MAX_LABEL_CHARACTERS:
        raise InvalidLabelError(f"a label has at most {MAX_LABEL_CHARACTERS} characters, not {len(label)}")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in label):
        raise InvalidLabelError("a label holds no control or format characters")
    return label


_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def millisecond(seconds: float) -> float:
    """A time as records and tokens hold it: whole milliseconds, rounded down."""
    return int(seconds * 1000) / 1000


def new_record(
    session_id: str, label: str, lasts: int | None, opened_by: tuple[int, int] | None, now: Instant
) -> SessionRecord:
    """The record of a session that is opened now."""
    made = millisecond(now.wall)
    uid, pid = opened_by or (None, None)
    return SessionRecord(
        session_id=session_id,
        label=label,
        made=made,
        expires=None if lasts is None else made + lasts,
        boot_id=now.boot_id,
        boot_expires=None if lasts is None else now.boot + lasts,
        opened_uid=uid,
        opened_pid=pid,
    )


def has_expired(record: SessionRecord, now: Instant) -> bool:
    """Whether either clock says that the session is over; the boot clock speaks within its boot only."""
    if record.expires is None:
        return False
    if now.wall >= record.expires + GRACE_SECONDS:
        return True
    return (
        record.boot_expires is not None
        and record.boot_id == now.boot_id != ""
        and now.boot >= record.boot_expires + GRACE_SECONDS
    )
