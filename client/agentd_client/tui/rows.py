"""The lines of the view: sessions, requests and what happened, as printable texts of a given width."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ..cli.commands.list import Branches, as_tree
from ..cli.request_view import lasts, program_name, quoted, says, scopes_in_brief
from ..cli.table import Column, fitted, line
from ..cli.wording import ago, brief_end, clock, listed, process_name, what_and_why
from ..durations import format_duration
from ..protocol.results import (
    EXPIRED,
    LOCKED,
    MISSED,
    REFUSED,
    REQUESTED,
    WAITING,
    PeerIdentity,
    RequestInfo,
    SessionInfo,
)
from ..shown_text import printable
from .model import Happening

SHORT_ID = 13
"""The part of an id that is its time, as `agentctl watch` shows it."""

URGENT_SECONDS = 60

PLAIN, QUIET, NOTABLE, ALARMING = "", "dim", "yellow", "red"
"""Styles of a line."""

_NOBODY = PeerIdentity(0, 0)


class Line(NamedTuple):
    """A printable text, and its style."""

    text: str
    style: str = PLAIN


class Table(NamedTuple):
    """Columns that keep their widths, whatever rows there are: each row can be drawn alone.

    widest: how wide each would like to be. The first gets what is left.
    """

    columns: tuple[Column, ...]
    widest: tuple[int, ...]

    def widths(self, width: int) -> dict[int, int]:
        """The width of each column that is shown in a line of so much room."""
        found = fitted(self.columns, dict(enumerate(self.widest)), width)
        left = width - sum(found.values()) - 2 * (len(found) - 1)
        found[0] = max(found[0] + left, 1)
        return found

    def heading(self, width: int) -> str:
        """The names of the columns."""
        return line([column.heading for column in self.columns], _widths(self, width))

    def row(self, texts: Sequence[str], width: int) -> str:
        """A line."""
        return line(texts, _widths(self, width))


@lru_cache(maxsize=32)
def _widths(table: Table, width: int) -> dict[int, int]:
    return table.widths(width)


SESSIONS = Table(
    (
        Column("SESSION", 18),
        Column("SCOPES", 12, rank=3),
        Column("ENDS"),
        Column("USED", rank=4),
        Column("LEFT", rank=5),
        Column("BY", 12, rank=6),
        Column("ID", rank=7),
    ),
    (36, 24, 9, 10, 4, 20, SHORT_ID),
)
REQUESTS = Table(
    (
        Column("ASKS", 12),
        Column("FOR", 16),
        Column("LASTS", 6),
        Column("SAYS", 12, rank=2),
        Column("UNTIL", rank=1),
    ),
    (24, 22, 11, 40, 9),
)
HAPPENINGS = Table(
    (
        Column("WHAT", 10),
        Column("TIME"),
        Column("WHY", 8, rank=2),
        Column("LABEL", 8, rank=3),
        Column("ABOUT", rank=4),
        Column("BY", 8, rank=5),
    ),
    (14, 8, 24, 30, SHORT_ID, 14),
)


def tree(sessions: Sequence[SessionInfo], signs: Branches, wanted: str) -> list[tuple[str, SessionInfo]]:
    """The sessions in the order in which they are shown, with what is drawn before each.

    With `wanted`, only those in whose label, scopes, id, program or unit it occurs, in any case.
    """
    if wanted:
        sought = wanted.casefold()
        sessions = [session for session in sessions if sought in _searched(session)]
    return list(as_tree(sessions, signs))


def _searched(session: SessionInfo) -> str:
    opener = session.opened_by or _NOBODY
    texts = (session.label, session.id, opener.exe or "", opener.unit or "", *(session.scopes or ()))
    return "\n".join(texts).casefold()


def session_line(sign: str, session: SessionInfo, now: float, width: int) -> Line:
    """A session."""
    opener = session.opened_by or _NOBODY
    texts = (
        sign + (printable(session.label) or printable(session.id[:SHORT_ID])),
        listed(session.scopes, "all"),
        brief_end(session, now),
        ago(session.last_used_at, now),
        "" if session.uses_left is None else str(session.uses_left),
        process_name(opener.pid or None, opener.exe),
        printable(session.id[:SHORT_ID]),
    )
    return Line(SESSIONS.row(texts, width), _session_style(session, now))


def _session_style(session: SessionInfo, now: float) -> str:
    if session.state == EXPIRED or (session.expires_at is not None and session.expires_at < now):
        return QUIET
    is_urgent = session.expires_at is not None and session.expires_at - now < URGENT_SECONDS
    return NOTABLE if is_urgent else PLAIN


def request_line(request: RequestInfo, now: float, width: int) -> Line:
    """A request that waits, or an approval that is remembered. It is too short to decide by."""
    is_waiting = request.state == WAITING
    texts = (
        f"{request.asker.pid} {program_name(request.asker)}",
        scopes_in_brief(request),
        lasts(request),
        says(request) if is_waiting else "remembered",
        f"in {format_duration(request.until - now, units=1)}",
    )
    return Line(REQUESTS.row(texts, width), NOTABLE if is_waiting else PLAIN)


_STYLES = {REFUSED: ALARMING, MISSED: ALARMING, LOCKED: NOTABLE, REQUESTED: NOTABLE}


def happening_line(happening: Happening, width: int) -> Line:
    """An event, or several of the same."""
    word, why = what_and_why(happening.kind, happening.reason)
    times = "" if happening.times == 1 else f" x {happening.times}"
    label = quoted(happening.label) if happening.request else printable(happening.label)
    texts = (
        word + times,
        clock(happening.at),
        why,
        label if happening.label else "",
        printable(happening.about[:SHORT_ID]),
        process_name(happening.pid, happening.exe),
    )
    return Line(HAPPENINGS.row(texts, width), _STYLES.get(happening.kind, PLAIN))
