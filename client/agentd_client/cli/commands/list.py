"""`agentctl list`: the sessions, newest first, children below their parents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import click

from ...protocol.limits import MAX_PAGE_SESSIONS
from ...protocol.methods import to_wire
from ...protocol.results import PeerIdentity, SessionInfo
from ..listing import as_tree, branches, newest, short_ids
from ..options import AgentctlCommand, Settings
from ..output import printable, show, tab_separated
from ..parameters import conditions
from ..table import Column, table, terminal_width
from ..wording import ago, brief_end, brief_moment, listed, process_name

DEFAULT_LIMIT = 20

_SHORTEST_ID = 8
_HEADINGS = ("ID", "LABEL", "OPENED", "ENDS", "USED", "LEFT", "BY")
_FLEXIBLE = {"LABEL": 8, "BY": 6}
_RANKS = {"OPENED": 4, "USED": 3, "LEFT": 2, "BY": 1}
_WIDE_HEADINGS = (*_HEADINGS, "UNIT", "SCOPES", "AUDIENCE")


@click.command("list", cls=AgentctlCommand)
@conditions
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
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
        human=lambda: _for_people(sessions, settings.now(), limit=limit, wide=wide),
        plain=(_for_pipe(session) for session in sessions),
    )


def _for_people(sessions: Sequence[SessionInfo], now: float, *, limit: int, wide: bool) -> Iterator[str]:
    if not sessions:
        yield "no sessions"
        return
    signs = branches()
    drawn = list(as_tree(sessions, signs))
    ids = short_ids([session.id for session in sessions], _SHORTEST_ID)
    headings = _WIDE_HEADINGS if wide else _HEADINGS
    rows = [
        [
            *_row(session, sign, session.id if wide else ids[session.id], now),
            *(_more(session) if wide else ()),
        ]
        for sign, session in drawn
    ]
    columns = [Column(heading, _FLEXIBLE.get(heading), _RANKS.get(heading)) for heading in headings]
    yield from table(columns, rows, None if wide else terminal_width())
    if any(sign == signs.orphan for sign, _ in drawn):
        yield f"{signs.orphan}below a session that is not shown"
    if len(sessions) == limit:
        yield f"the newest {limit}; --limit shows more"


def _row(session: SessionInfo, sign: str, shown_id: str, now: float) -> tuple[str, ...]:
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


def _for_pipe(session: SessionInfo) -> str:
    opener = session.opened_by
    by = (None, None, None, None) if opener is None else (opener.uid, opener.pid, opener.exe, opener.unit)
    return tab_separated(
        (
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
    )


_UNKNOWN = PeerIdentity(0, 0)
