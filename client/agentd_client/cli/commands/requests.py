"""`agentctl requests`: what waits for a person, and which approvals are remembered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import click

from ...durations import format_duration
from ...protocol.methods import to_wire
from ...protocol.results import WAITING, RequestInfo
from ..options import AgentctlCommand, Settings
from ..output import show, tab_separated
from ..request_list import all_requests
from ..request_view import lasts, other_user, program_name, says, scopes_in_brief, word
from ..table import Column, table, terminal_width

_COLUMNS = (
    Column("ID"),
    Column("STATE", rank=2),
    Column("USER", 6, rank=3),
    Column("BY", 6),
    Column("SCOPES", 8),
    Column("LASTS", rank=4),
    Column("ENDS", rank=5),
    Column("SAYS", 8, rank=1),
)


@click.command("requests", cls=AgentctlCommand)
@click.pass_obj
def requests_command(settings: Settings) -> None:
    """Show what waits for approval, and what is remembered.

    SAYS is the reason that the program gives, in its own words. LASTS is how long the session would last, and
    ENDS when the request does: one that nobody answers is denied. USER is only shown for another user.
    `agentctl approve ID` shows a request in full and asks; `agentctl deny ID` denies it, or forgets an
    approval that is remembered.

    In a pipe it prints one line for each request, with these fields separated by tabs:

    \b
        id, state, askedAt, until, uid, pid, exe, unit, socket, scopes,
        audience, expiry, maxUses, bound, label, reason

    Times are seconds since 1970, and expiry is in seconds; missing values are empty: all scopes, anyone, no
    end, no limit. --json prints all fields.
    """  # noqa: D301 - the \b is meant: click keeps the lines that follow
    with settings.connect() as agent:
        found = all_requests(agent)
    show(
        settings,
        {"requests": [to_wire(request) for request in found]},
        human=lambda: _request_table(found, settings.now()),
        plain=(_request_line(request) for request in found),
    )


def _request_table(found: Sequence[RequestInfo], now: float) -> Iterator[str]:
    if not found:
        yield "no requests"
        return
    yield from table(_COLUMNS, [_row(request, now) for request in found], terminal_width())
    if any(request.state == WAITING for request in found):
        yield "`agentctl approve ID` shows a request in full, and asks"


def _row(request: RequestInfo, now: float) -> tuple[str, ...]:
    return (
        word(request.id),
        word(request.state),
        other_user(request.asker),
        f"{request.asker.pid} {program_name(request.asker)}",
        scopes_in_brief(request),
        lasts(request),
        f"in {format_duration(math.ceil(request.until - now), units=1)}",
        says(request),
    )


def _request_line(request: RequestInfo) -> str:
    return tab_separated(
        request.id,
        request.state,
        request.asked_at,
        request.until,
        request.asker.uid,
        request.asker.pid,
        request.asker.exe,
        request.asker.unit,
        request.socket,
        request.scopes,
        request.audience,
        request.expiry,
        request.max_uses,
        request.bound,
        request.label,
        request.reason,
    )
