"""Which sessions somebody means, and a page of them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from agentd_client.errors import InvalidParamsError
from agentd_client.protocol.limits import MAX_PAGE_SESSIONS
from agentd_client.protocol.results import ACTIVE, EXPIRED, SessionInfo, SessionPage

from .records import SessionPath, SessionRecord, session_path, sessions_of_key
from .standing import keys_that_count, standing

if TYPE_CHECKING:
    from ..store import DB
    from .clock import Clock, Instant
    from .verifier import Verifier

STEP_RECORDS = 64
MAX_RECORDS_LOOKED_AT = 256
"""For one answer: some milliseconds of the event loop, in steps."""


class Selection(NamedTuple):
    """Conditions, None where anything fits; `label` may hold * for any text and ? for any character."""

    state: str | None
    label: str | None
    pid: int | None
    parent: str | None

    def fits(self, record: SessionRecord, state: str) -> bool:
        """Whether a record that is in that state fits all of them."""
        return (
            (self.state is None or self.state == state)
            and (self.label is None or fnmatchcase(record.label, self.label.replace("[", "[[]")))
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
    return Selection(None if state is None else str(state), label, pid, parent)


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


def page(
    db: DB, verifier: Verifier, clock: Clock, selection: Selection, after: object, limit: object
) -> SessionPage:
    """Some of the sessions that fit, newest first, those of the present key before those of the earlier.

    It looks at a bounded number of records and may end with fewer than asked for, with a place to go on.
    """
    most = checked_limit(limit, MAX_PAGE_SESSIONS)
    now = clock.read()
    key_ids = keys_that_count(db, now)
    start = _place(after)
    if start is not None:
        key_ids = key_ids[key_ids.index(start[1]) :] if start[1] in key_ids else []
    found: list[SessionInfo] = []
    looked_at = 0
    for key_id in key_ids:
        place = start if start is not None and start[1] == key_id else None
        while True:
            if place is not None and looked_at >= MAX_RECORDS_LOOKED_AT:
                return SessionPage(found, _cursor(place))
            entries = db.iterate(sessions_of_key(key_id), after=place, reverse=True, limit=STEP_RECORDS)
            for path, stored in entries:
                looked_at += 1
                place = session_path(key_id, path[2].decode())
                record = SessionRecord.decode(stored)
                state = state_of(verifier, place, record, now)
                if selection.fits(record, state) and _counts(db, place, record, now):
                    found.append(verifier.describe(place, record)._replace(state=state))
                    if len(found) == most:
                        return SessionPage(found, _cursor(place))
            if len(entries) < STEP_RECORDS:
                break
    return SessionPage(found, None)


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
