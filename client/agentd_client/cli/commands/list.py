"""`agentctl list` and `agentctl audit`: the sessions, and what happened to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import click

from ...protocol.limits import MAX_PAGE_AUDIT, MAX_PAGE_SESSIONS
from ...protocol.methods import to_wire
from ...protocol.results import EVENT_KINDS, AuditEntry, PeerIdentity, SessionInfo
from ..current_token import session_id
from ..options import AgentctlCommand, Settings
from ..output import can_show, colour, printable, show, tab_separated
from ..parameters import conditions, moment
from ..table import Column, table, terminal_width
from ..wording import (
    ago,
    brief_end,
    brief_moment,
    clock,
    day,
    listed,
    process_name,
    request_named,
    what_and_why,
)

T = TypeVar("T")

DEFAULT_SESSIONS = 20
DEFAULT_ENTRIES = 50

_SHORTEST_ID = 8
_UNKNOWN = PeerIdentity(0, 0)
_SESSION_COLUMNS = (
    Column("ID"),
    Column("LABEL", 8),
    Column("OPENED", rank=4),
    Column("ENDS"),
    Column("USED", rank=3),
    Column("LEFT", rank=2),
    Column("BY", 6, rank=1),
)
_WIDE_COLUMNS = (*_SESSION_COLUMNS, Column("UNIT"), Column("SCOPES"), Column("AUDIENCE"))
_AUDIT_COLUMNS = (
    Column("TIME"),
    Column("WHAT"),
    Column("SESSION", rank=1),
    Column("LABEL", 6, rank=3),
    Column("WHY", 8),
    Column("BY", 6, rank=2),
)


@click.command("list", cls=AgentctlCommand)
@conditions
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_SESSIONS,
    show_default=True,
    metavar="N",
    help="Show at most so many.",
)
@click.option("--wide", is_flag=True, help="Show full ids and texts, however wide, and more columns.")
@click.pass_obj
def list_command(settings: Settings, /, limit: int, wide: bool, **chosen: Any) -> None:
    """Show the sessions, newest first.

    Child sessions are shown below their parents, or marked if the parent is not shown. LEFT is how many more
    times a session with limited uses can be verified. A narrow terminal gets fewer columns.

    In a pipe it prints one line for each session, with these fields separated by tabs:

    \b
        id, label, state, createdAt, expiresAt, lastUsedAt, usesLeft,
        parent, uid, pid, exe, unit

    Times are seconds since 1970; missing values are empty. --json prints all fields.
    """  # noqa: D301 - the \b is meant: click keeps the lines that follow
    with settings.connect() as agent:
        sessions = newest(partial(agent.list_sessions, **chosen), limit, MAX_PAGE_SESSIONS)
    show(
        settings,
        {"sessions": [to_wire(session) for session in sessions]},
        human=lambda: _session_table(sessions, settings.now(), limit=limit, wide=wide),
        plain=(_session_line(session) for session in sessions),
    )


def _session_table(sessions: Sequence[SessionInfo], now: float, *, limit: int, wide: bool) -> Iterator[str]:
    if not sessions:
        yield "no sessions"
        return
    signs = branches()
    drawn = list(as_tree(sessions, signs))
    ids = short_ids([session.id for session in sessions], _SHORTEST_ID)
    rows = [
        [
            *_session_row(session, sign, session.id if wide else ids[session.id], now),
            *(_more(session) if wide else ()),
        ]
        for sign, session in drawn
    ]
    yield from table(_WIDE_COLUMNS, rows, None) if wide else table(_SESSION_COLUMNS, rows, terminal_width())
    if any(sign == signs.orphan for sign, _ in drawn):
        yield f"{signs.orphan}below a session that is not shown"
    if len(sessions) == limit:
        yield f"the newest {limit}; --limit shows more"


def _session_row(session: SessionInfo, sign: str, shown_id: str, now: float) -> tuple[str, ...]:
    opener = session.opened_by or _UNKNOWN
    return (
        printable(shown_id),
        sign + printable(session.label),
        brief_moment(session.created_at, now),
        brief_end(session, now),
        ago(session.last_used_at, now),
        "" if session.uses_left is None else str(session.uses_left),
        process_name(opener.pid or None, opener.exe),
    )


def _more(session: SessionInfo) -> tuple[str, ...]:
    opener = session.opened_by or _UNKNOWN
    return (printable(opener.unit or ""), listed(session.scopes, "all"), listed(session.audience, "anyone"))


def _session_line(session: SessionInfo) -> str:
    opener = session.opened_by
    by = (None, None, None, None) if opener is None else (opener.uid, opener.pid, opener.exe, opener.unit)
    return tab_separated(
        session.id,
        session.label,
        session.state,
        session.created_at,
        session.expires_at,
        session.last_used_at,
        session.uses_left,
        session.parent,
        *by,
    )


@click.command("audit", cls=AgentctlCommand)
@click.option(
    "--since",
    callback=moment,
    metavar="1h|2d|TIME|DATE",
    help="Leave out older entries. A date may have a time, 2030-01-31T09:30; printed times are accepted too.",
)
@click.option(
    "--kind",
    type=click.Choice(EVENT_KINDS),
    metavar="KIND",
    help="Only entries of this kind, such as used, refused or created.",
)
@click.option(
    "--session",
    metavar="ID",
    callback=session_id,
    help="Only entries of this session; the beginning of the id is enough.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_ENTRIES,
    show_default=True,
    metavar="N",
    help="Show at most so many, the newest.",
)
@click.pass_obj
def audit_command(settings: Settings, /, limit: int, **chosen: Any) -> None:
    """Show the audit log.

    It shows the newest entries, the oldest of them first. Refusals of one process are counted, not repeated:
    "x 12 until 15:20". So are its uses of a session, if the agent's setting audit_uses has them recorded. An
    answer to a request names the request and the program that had asked. In a pipe it prints one line for
    each entry, with these fields separated by tabs:

    \b
        at, until, kind, sessionId, label, reason, uid, pid, exe, times,
        unit, requestId, askedByUid, askedByPid, askedByExe

    Times are seconds since 1970; missing values are empty.
    """  # noqa: D301 - the \b is meant: click keeps the lines that follow
    with settings.connect() as agent:
        entries = newest(partial(agent.list_audit, **chosen), limit, MAX_PAGE_AUDIT)
    entries.reverse()
    show(
        settings,
        {"entries": [to_wire(entry) for entry in entries]},
        human=lambda: _entry_table(entries),
        plain=(_entry_line(entry) for entry in entries),
    )


def _entry_table(entries: Sequence[AuditEntry]) -> Iterator[str]:
    if not entries:
        yield "no entries"
        return
    ids = short_ids([entry.session_id for entry in entries if entry.session_id is not None], _SHORTEST_ID)
    heading, *lines = table(_AUDIT_COLUMNS, [_entry_row(entry, ids) for entry in entries], terminal_width())
    yield heading
    before = None
    for entry, line in zip(entries, lines, strict=True):
        if day(entry.at) != before:
            before = day(entry.at)
            yield colour(f"-- {before} --", "cyan")
        yield line


def _entry_row(entry: AuditEntry, ids: dict[str, str]) -> tuple[str, ...]:
    return (
        clock(entry.at),
        what_and_why(entry.kind, entry.reason)[0],
        "" if entry.session_id is None else printable(ids[entry.session_id]),
        printable(entry.label),
        _why(entry),
        process_name(entry.peer_pid, entry.peer_exe),
    )


def _why(entry: AuditEntry) -> str:
    _, reason = what_and_why(entry.kind, entry.reason)
    why = "; ".join(filter(None, (reason, request_named(entry.request_id, entry.asked_by))))
    if entry.times == 1:
        return why
    since, until = clock(entry.at)[:5], clock(entry.until)[:5]
    return f"{why} x {entry.times}{'' if until == since else f' until {until}'}".lstrip()


def _entry_line(entry: AuditEntry) -> str:
    asker = entry.asked_by
    return tab_separated(
        entry.at,
        entry.until,
        entry.kind,
        entry.session_id,
        entry.label,
        entry.reason,
        entry.peer_uid,
        entry.peer_pid,
        entry.peer_exe,
        entry.times,
        entry.peer_unit,
        entry.request_id,
        *((None, None, None) if asker is None else (asker.uid, asker.pid, asker.exe)),
    )


def newest(ask: Callable[..., tuple[list[T], str | None]], limit: int, most: int) -> list[T]:
    """The newest `limit`, or all if there are fewer.

    Args:
        ask: returns a page and where to continue; takes `after` and `limit`. A page may be empty and not the
            last.
        limit: how many are wanted.
        most: how many one page holds.
    """
    found: list[T] = []
    after: str | None = None
    while True:
        page, after = ask(after=after, limit=min(limit - len(found), most))
        found += page
        if after is None or len(found) >= limit:
            return found[:limit]


class Branches(NamedTuple):
    """What is drawn before a session; all of the same width."""

    child: str
    last_child: str
    past: str
    nothing: str
    orphan: str


_DRAWN = Branches("├─ ", "└─ ", "│  ", "   ", "┄─ ")
_ASCII = Branches("|- ", "`- ", "|  ", "   ", ".- ")


def branches() -> Branches:
    """Box drawing characters, or ASCII if standard output's encoding does not have them."""
    return _DRAWN if can_show("".join(_DRAWN)) else _ASCII


def as_tree(sessions: Sequence[SessionInfo], signs: Branches) -> Iterator[tuple[str, SessionInfo]]:
    """Each session once, with what is drawn before it; siblings keep their order.

    A child whose parent is not among them is marked as an orphan.
    """
    known = {session.id for session in sessions}
    below: dict[str | None, list[SessionInfo]] = {}
    for session in sessions:
        below.setdefault(session.parent if session.parent in known else None, []).append(session)
    # In reverse, because it is used as a stack.
    waiting = [
        (signs.orphan if session.parent else "", "", session) for session in reversed(below.pop(None, []))
    ]
    while waiting:
        sign, before, session = waiting.pop()
        yield before + sign, session
        if sign in (signs.child, signs.last_child):
            before += signs.nothing if sign == signs.last_child else signs.past
        for place, child in enumerate(reversed(below.pop(session.id, []))):
            waiting.append((signs.child if place else signs.last_child, before, child))
    # Sessions that name each other as parent are shown too, though no honest agent sends them.
    for rest in below.values():
        for session in rest:
            yield signs.orphan, session


def short_ids(ids: Sequence[str], least: int) -> dict[str, str]:
    """The shortest unique prefix of each id, of at least so many characters."""
    shortened = {}
    ordered = sorted(set(ids))
    for place, this in enumerate(ordered):
        neighbours = ordered[max(0, place - 1) : place] + ordered[place + 1 : place + 2]
        shared = max((_shared(this, other) for other in neighbours), default=0)
        shortened[this] = this[: max(least, shared + 1)]
    return shortened


def _shared(one: str, other: str) -> int:
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count
