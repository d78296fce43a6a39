"""Which sessions somebody means, and a page of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trio.lowlevel import checkpoint

from agentd_client.errors import InvalidParamsError
from agentd_client.protocol.limits import MAX_LOOKED_AT, MAX_PAGE_SESSIONS
from agentd_client.protocol.results import ACTIVE, EXPIRED, SessionInfo, SessionPage

from .label_pattern import LabelPattern
from .records import SessionPath, SessionRecord, session_path, sessions_of_key
from .slices import CHUNK_RECORDS, Slices
from .standing import keys_that_count, standing

if TYPE_CHECKING:
    from ..store import DB
    from .clock import Clock, Instant
    from .verifier import Verifier


class Selection(NamedTuple):
    """Conditions, None where anything fits."""

    state: str | None
    label: LabelPattern | None
    pid: int | None
    parent: str | None

    def fits(self, record: SessionRecord, state: str) -> bool:
        """Whether a record that is in that state fits all of them."""
        return (
            (self.state is None or self.state == state)
            and (self.label is None or self.label.matches(record.label))
            and (self.pid is None or self.pid == record.opened_pid)
            and (self.parent is None or self.parent in record.ancestors)
        )


def checked_selection(state: object, label: object, pid: object, parent: object) -> Selection:
    """The conditions, or `InvalidParamsError`, which names the one that is wrong."""
    if state not in (None, ACTIVE, EXPIRED):
        raise InvalidParamsError(f"state is {ACTIVE!r} or {EXPIRED!r}")
    if label is not None and not isinstance(label, str):
        raise InvalidParamsError("label is text")
    if pid is not None and (isinstance(pid, bool) or not isinstance(pid, int)):
        raise InvalidParamsError("pid is the number of a process")
    if parent is not None and not isinstance(parent, str):
        raise InvalidParamsError("parent is a session's id")
    pattern = None if label is None else LabelPattern(label)
    return Selection(None if state is None else str(state), pattern, pid, parent)


def checked_limit(limit: object, most: int) -> int:
    """How many at the most; None is as many as there may be. Raises `InvalidParamsError`."""
    if limit is None:
        return most
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidParamsError(f"limit is a whole number from 1 to {most}")
    return limit


def state_of(verifier: Verifier, path: SessionPath, record: SessionRecord, now: Instant) -> str:
    """The state of a session, as whoever verifies a token of it is told."""
    return EXPIRED if verifier.is_over(path, record, now) else ACTIVE


async def page(
    db: DB, verifier: Verifier, clock: Clock, selection: Selection, after: object, limit: object
) -> SessionPage:
    """Some of the sessions that fit, newest first, those of the present key before those of the earlier.

    It looks at a bounded number of records, in slices, and may end with fewer than asked for, with a place to
    go on.
    """
    most = checked_limit(limit, MAX_PAGE_SESSIONS)
    place = _place(after)
    await checkpoint()
    slices = Slices()
    found: list[SessionInfo] = []
    looked_at = 0
    key_id = None if place is None else place[1]
    while True:
        # Read anew after each pause: keys may have been replaced meanwhile, and the store closed.
        now = clock.read()
        key_ids = keys_that_count(db, now)
        key_id = key_id or next(iter(key_ids), None)
        if key_id is None or key_id not in key_ids:
            return SessionPage(found, None)
        entries = db.iterate(sessions_of_key(key_id), after=place, reverse=True, limit=CHUNK_RECORDS)
        for path, stored in entries:
            looked_at += 1
            place = session_path(key_id, path[2].decode())
            record = SessionRecord.decode(stored)
            state = state_of(verifier, place, record, now)
            if selection.fits(record, state) and _counts(db, place, record, now):
                found.append(verifier.describe(place, record)._replace(state=state))
            if len(found) == most or looked_at >= MAX_LOOKED_AT:
                return SessionPage(found, _cursor(place))
            if await slices.pause_if_over():
                break
        else:
            if len(entries) < CHUNK_RECORDS:
                later = key_ids[key_ids.index(key_id) + 1 :]
                if not later:
                    return SessionPage(found, None)
                key_id, place = later[0], None


def _counts(db: DB, path: SessionPath, record: SessionRecord, now: Instant) -> bool:
    return not record.ancestors or standing(db, path, now) is not None


def _cursor(path: SessionPath) -> str:
    return f"{path[1]}.{path[2]}"


def _place(after: object) -> SessionPath | None:
    if after is None:
        return None
    if isinstance(after, str):
        key_id, dot, session_id = after.partition(".")
        if key_id and dot and session_id and len(after) <= 128 and "\0" not in after:
            return session_path(key_id, session_id)
    raise InvalidParamsError("after is the `next` of the page before")
