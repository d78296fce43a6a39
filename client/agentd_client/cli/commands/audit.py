"""`agentctl audit`: the audit log, oldest entries first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import click

from ...protocol.limits import MAX_PAGE_AUDIT
from ...protocol.methods import to_wire
from ...protocol.results import AuditEntry
from ..listing import newest, short_ids
from ..options import AgentctlCommand, Settings
from ..output import colour, printable, show, tab_separated
from ..parameters import moment
from ..table import Column, table, terminal_width
from ..wording import clock, day, process_name, what_and_why

DEFAULT_LIMIT = 50

_SHORTEST_ID = 8
_COLUMNS = (
    Column("TIME"),
    Column("WHAT"),
    Column("SESSION", rank=1),
    Column("LABEL", 6, rank=3),
    Column("WHY", 8),
    Column("BY", 6, rank=2),
)


@click.command("audit", cls=AgentctlCommand)
@click.option(
    "--since",
    callback=moment,
    metavar="1h|2d|TIME|DATE",
    help="Leave out older entries. A date may have a time, 2030-01-31T09:30; printed times are accepted too.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="N",
    help="Show at most so many, the newest.",
)
@click.pass_obj
def audit_command(settings: Settings, since: float | None, limit: int) -> None:
    """Show the audit log.

    It shows the newest entries, the oldest of them first. Refusals of one process are counted, not repeated:
    "x 12 until 15:20". In a pipe it prints one line for each entry, with these fields separated by tabs:

    \b
        at, until, kind, sessionId, label, reason, uid, pid, exe, times

    Times are seconds since 1970; missing values are empty.
    """  # noqa: D301 - the \b is meant: click keeps the lines that follow
    with settings.connect() as agent:
        entries = newest(partial(agent.list_audit, since=since), limit, MAX_PAGE_AUDIT)
    entries.reverse()
    show(
        settings,
        {"entries": [to_wire(entry) for entry in entries]},
        human=lambda: _for_people(entries),
        plain=(_for_pipe(entry) for entry in entries),
    )


def _for_people(entries: Sequence[AuditEntry]) -> Iterator[str]:
    if not entries:
        yield "no entries"
        return
    ids = short_ids([entry.session_id for entry in entries if entry.session_id is not None], _SHORTEST_ID)
    heading, *lines = table(_COLUMNS, [_row(entry, ids) for entry in entries], terminal_width())
    yield heading
    before = None
    for entry, line in zip(entries, lines, strict=True):
        if day(entry.at) != before:
            before = day(entry.at)
            yield colour(f"-- {before} --", "cyan")
        yield line


def _row(entry: AuditEntry, ids: dict[str, str]) -> tuple[str, ...]:
    return (
        clock(entry.at),
        what_and_why(entry.kind, entry.reason)[0],
        "" if entry.session_id is None else printable(ids[entry.session_id]),
        printable(entry.label),
        _why(entry),
        process_name(entry.peer_pid, entry.peer_exe),
    )


def _why(entry: AuditEntry) -> str:
    _, why = what_and_why(entry.kind, entry.reason)
    if entry.times == 1:
        return why
    since, until = clock(entry.at)[:5], clock(entry.until)[:5]
    return f"{why} x {entry.times}{'' if until == since else f' until {until}'}".lstrip()


def _for_pipe(entry: AuditEntry) -> str:
    return tab_separated(
        (
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
        )
    )
