"""`agentctl inspect`: a session's record, or why a token is not valid."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ...durations import format_duration
from ...protocol.reasons import sentence
from ...protocol.results import SessionInfo, Verification
from ...protocol.wire import to_wire
from ..current_token import only_stdin, require_token, token_from_stdin
from ..options import AgentctlCommand, Settings
from ..output import Row, aligned, colour, printable, show
from ..wording import ends, moment, why_not


@click.command("inspect", cls=AgentctlCommand)
@click.argument("from_stdin", metavar="[-]", required=False, callback=only_stdin)
@click.pass_obj
def command(settings: Settings, from_stdin: bool) -> None:
    """Show all that the agent knows of a token.

    The token is the current one, or with `-` the one on standard input; never an argument. Exits 0 whenever
    the agent answered, valid or not: `agentctl verify` is the test.
    """
    token = token_from_stdin() if from_stdin else require_token(settings).text
    with settings.connect() as agent:
        answer = agent.inspect_token(token)
    explanation = None if answer.reason is None else sentence(answer.reason)
    show(
        settings,
        to_wire(answer) | {"explanation": explanation},
        human=lambda: aligned(_rows(answer, settings.now())),
    )


def _rows(answer: Verification, now: float) -> Iterator[Row]:
    yield ("valid", colour("yes", "green") if answer.valid else colour("no", "red"))
    if not answer.valid:
        yield ("why", why_not(answer.reason))
    if answer.session is not None:
        yield from _session_rows(answer.session, now)


def _session_rows(session: SessionInfo, now: float) -> Iterator[Row]:
    yield ("session", printable(session.id))
    yield ("label", printable(session.label))
    age = format_duration(now - session.created_at)
    yield ("opened", f"{moment(session.created_at)}, {age} ago")
    if session.opened_by is not None:
        yield ("by", f"process {session.opened_by.pid} of user {session.opened_by.uid}")
    when = "" if session.expires_at is None else f"{moment(session.expires_at)}, "
    yield ("end", f"{when}{ends(session.expires_at, now)}")
