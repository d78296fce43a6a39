"""Listing sessions and the audit log in pages, by scans that share the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from trio.lowlevel import checkpoint

from agentd_client.errors import InvalidParamsError
from agentd_client.protocol.limits import MAX_EXAMINED, MAX_PAGE_AUDIT, MAX_PAGE_SESSIONS
from agentd_client.protocol.results import (
    ACTIVE,
    EVENT_KINDS,
    EXPIRED,
    AuditEntry,
    AuditPage,
    SessionInfo,
    SessionPage,
)

from .counting import LONGEST_SECONDS
from .journal import CHUNK_RECORDS
from .records import (
    AUDIT_RANDOM_BYTES,
    AUDIT_TIME_BYTES,
    SessionPath,
    SessionRecord,
    accepted_key_ids,
    find_live_session,
    seconds_of_entry,
    session_path,
    sessions_of_key,
)

if TYPE_CHECKING:
    from ..store import DB
    from .clock import Clock, Instant
    from .journal import Journal
    from .verifier import Verifier

SLICE_SECONDS = 0.001
"""How long a scan may hold the event loop. It is a time and not a number of records, because one record takes
from ten to two hundred microseconds, depending on its ancestors and on the label pattern."""

STEP_RECORDS = 64
"""Records examined before those that match are deleted in one write."""

_MAX_CURSOR_CHARACTERS = 128
_MAX_SECONDS = 2**63  # neither infinite nor beyond the range of a float


class Slices:
    """One scan's share of the event loop. Create it after a checkpoint, where its first slice begins.

    Args:
        clock: a monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._until = clock() + SLICE_SECONDS

    async def pause_if_over(self) -> bool:
        """If the slice is used up, yield to other tasks and begin another; whether it did.

        After a pause, what was read from the store may be out of date, and the store may be closed.
        """
        if self._clock() < self._until:
            return False
        await checkpoint()
        self._until = self._clock() + SLICE_SECONDS
        return True


async def find_matching(
    db: DB,
    folder: tuple[str, ...],
    matches: Callable[[SessionPath, bytes], bool],
    after: tuple[bytes, ...] | None,
) -> tuple[list[SessionPath], tuple[bytes, ...] | None]:
    """One step of a search for sessions: those found, and after what the next step goes on; None at the end.

    Between two steps the caller may delete what was found.
    """
    await checkpoint()
    slices = Slices()
    found = db.iterate(folder, after=after, limit=STEP_RECORDS)
    matching: list[SessionPath] = []
    for stored_path, stored in found:
        path = session_path(stored_path[1].decode(), stored_path[2].decode())
        if matches(path, stored):
            matching.append(path)
        await slices.pause_if_over()
    return matching, found[-1][0] if len(found) == STEP_RECORDS else None


class LabelPattern:
    """A pattern in which * stands for any text and ? for any character; brackets stand for themselves.

    Matching takes time linear in the label's length, whatever the pattern: it simulates the pattern's
    automaton, with one state for each character to match, held as the bits of an integer. A peer cannot force
    backtracking, and no cache of compiled expressions grows, as the one behind `fnmatch` does.
    """

    __slots__ = ("_after", "_any", "_end", "_loops", "_plain")

    def __init__(self, pattern: str) -> None:
        # Bit i of a set of states: the first i characters of the pattern have been matched.
        self._plain = None if "*" in pattern or "?" in pattern else pattern
        self._after: dict[str, int] = {}  # the states that a character advances
        self._any = 0  # the states that any character advances
        self._loops = 0  # the states that a * keeps for any character
        place = 1
        for character in pattern:
            if character == "*":
                self._loops |= place
                continue
            if character == "?":
                self._any |= place
            else:
                self._after[character] = self._after.get(character, 0) | place
            place <<= 1
        self._end = place

    def matches(self, label: str) -> bool:
        """Whether the whole label matches."""
        if self._plain is not None:
            return label == self._plain
        after, any_character, loops = self._after.get, self._any, self._loops
        states = 1
        for character in label:
            states = (states & loops) | ((states & (after(character, 0) | any_character)) << 1)
            if not states:
                return False
        return bool(states & self._end)


class Selection(NamedTuple):
    """Conditions on sessions; None matches all."""

    state: str | None
    label: LabelPattern | None
    pid: int | None
    parent: str | None

    def matches(self, record: SessionRecord, state: str) -> bool:
        """Whether a record in that state meets all of them."""
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


def _checked_limit(limit: object, most: int) -> int:
    """The length of a page, `most` if None; or `InvalidParamsError`."""
    if limit is None:
        return most
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidParamsError(f"limit is a whole number from 1 to {most}")
    return limit


def _checked_since(since: object) -> float | None:
    """A time in seconds since 1970, or `InvalidParamsError`."""
    if since is None:
        return None
    if isinstance(since, int | float) and not isinstance(since, bool) and abs(since) < _MAX_SECONDS:
        return since
    raise InvalidParamsError("since is a number of seconds since 1970")


def _checked_audit_cursor(after: object) -> bytes | None:
    if after is None:
        return None
    with suppress(ValueError):
        key = bytes.fromhex(after) if isinstance(after, str) else b""
        if len(key) == AUDIT_TIME_BYTES + AUDIT_RANDOM_BYTES:
            return key
    raise InvalidParamsError("after is the `next` of the previous page")


def _checked_kind(kind: object) -> str | None:
    if kind is None or (isinstance(kind, str) and kind in EVENT_KINDS):
        return kind
    raise InvalidParamsError(f"kind is one of {', '.join(EVENT_KINDS)}")


def _checked_session(session: object) -> str | None:
    if session is None or (isinstance(session, str) and session):
        return session
    raise InvalidParamsError("session is a session's id, or how it begins")


def _checked_cursor(after: object) -> SessionPath | None:
    if after is None:
        return None
    if isinstance(after, str) and len(after) <= _MAX_CURSOR_CHARACTERS and "\0" not in after:
        key_id, dot, session_id = after.partition(".")
        if key_id and dot and session_id:
            return session_path(key_id, session_id)
    raise InvalidParamsError("after is the `next` of the previous page")


def _cursor(path: SessionPath) -> str:
    return f"{path[1]}.{path[2]}"


def state_of(verifier: Verifier, path: SessionPath, record: SessionRecord, now: Instant) -> str:
    """The state of a session, in agreement with what a verification answers."""
    return EXPIRED if verifier.is_over(path, record, now) else ACTIVE


async def session_page(
    db: DB, verifier: Verifier, clock: Clock, selection: Selection, after: object, limit: object
) -> SessionPage:
    """Some of the selected sessions, newest first; those of the current key before those of the earlier one.

    It examines a limited number of records, in slices, and may return fewer than asked for and a cursor.
    """
    most = _checked_limit(limit, MAX_PAGE_SESSIONS)
    place = _checked_cursor(after)
    await checkpoint()
    slices = Slices()
    found: list[SessionInfo] = []
    examined = 0
    key_id = None if place is None else place[1]
    while True:
        # Read again after each pause: a key may have been replaced, or the store closed.
        now = clock.read()
        key_ids = accepted_key_ids(db, now)
        key_id = key_id or next(iter(key_ids), None)
        if key_id is None or key_id not in key_ids:
            return SessionPage(found, None)
        entries = db.iterate(sessions_of_key(key_id), after=place, reverse=True, limit=CHUNK_RECORDS)
        for path, stored in entries:
            examined += 1
            place = session_path(key_id, path[2].decode())
            record = SessionRecord.decode(stored)
            state = state_of(verifier, place, record, now)
            if selection.matches(record, state) and _is_live(db, place, record, now):
                found.append(verifier.describe(place, record)._replace(state=state))
            if len(found) == most or examined >= MAX_EXAMINED:
                return SessionPage(found, _cursor(place))
            if await slices.pause_if_over():
                break
        else:
            if len(entries) < CHUNK_RECORDS:
                later = key_ids[key_ids.index(key_id) + 1 :]
                if not later:
                    return SessionPage(found, None)
                key_id, place = later[0], None


def _is_live(db: DB, path: SessionPath, record: SessionRecord, now: Instant) -> bool:
    return not record.ancestors or find_live_session(db, path, now) is not None


async def audit_page(
    journal: Journal,
    since: object = None,
    after: object = None,
    limit: object = None,
    kind: object = None,
    session: object = None,
) -> AuditPage:
    """Some entries that ended no earlier than `since`, newest first; counted ones by the first's time.

    Only those of this kind, and of the sessions whose ids begin like that.

    Like `session_page`, it may return fewer than asked for and a cursor.
    """
    most, earliest = _checked_limit(limit, MAX_PAGE_AUDIT), _checked_since(since)
    cursor, wanted, beginning = _checked_audit_cursor(after), _checked_kind(kind), _checked_session(session)
    await checkpoint()
    slices = Slices()
    entries: list[AuditEntry] = []
    last = b""
    for examined, (key, record) in enumerate(journal.newest_first(cursor, wanted)):
        if len(entries) == most or examined >= MAX_EXAMINED:
            return AuditPage(entries, last.hex())
        # The key's time is never before the entry's `at`: all further entries ended before `since`.
        if earliest is not None and seconds_of_entry(key) < earliest - LONGEST_SECONDS:
            break
        last = key
        if (
            (earliest is None or record.until >= earliest)
            and (wanted is None or record.kind == wanted)
            and (beginning is None or (record.session_id or "").startswith(beginning))
        ):
            entries.append(AuditEntry._make(getattr(record, field) for field in AuditEntry._fields))
        await slices.pause_if_over()
    return AuditPage(entries, None)
