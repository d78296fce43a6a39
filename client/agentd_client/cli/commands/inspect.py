"""`agentctl inspect`: a session's record, or why a token is not valid."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ...durations import format_duration
from ...protocol.methods import to_wire
from ...protocol.reasons import REVOKED, sentence
from ...protocol.results import SessionInfo, Verification
from ..current_token import require_token, stdin_or_id, token_from_stdin
from ..options import AgentctlCommand, Settings
from ..output import Row, aligned, colour, printable, show
from ..parameters import asked_audience, asked_scopes, names
from ..wording import ends, listed, moment, why_not

_NO_SUCH_ID = "no session has this id: it has ended, or never existed"
"""The agent keeps nothing of ended sessions, so a typing error looks the same."""


@click.command("inspect", cls=AgentctlCommand)
@click.argument("which", metavar="[- | ID]", required=False, callback=stdin_or_id)
@asked_audience
@asked_scopes
@click.pass_obj
def inspect_command(
    settings: Settings, which: str | None, audience: str | None, scopes: tuple[str, ...]
) -> None:
    """Show all that the agent knows about a token or session.

    It shows the session of the current token, with `-` that of the token on standard input, or with an ID,
    which is not secret, that session. It exits with 0 whenever the agent answers, valid or not; `agentctl
    verify` is the test. Inspecting does not count as a use, does not renew the session and changes nothing.
    """
    token: str | None = None
    if which is None:
        token = require_token(settings).text
    elif which == "-":
        token = token_from_stdin()
    with settings.connect() as agent:
        answer = agent.inspect_token(
            token, id=which if token is None else None, audience=audience, scopes=names(scopes)
        )
    no_such_id = which not in (None, "-") and answer.reason == REVOKED and answer.session is None
    explanation = _NO_SUCH_ID if no_such_id else None if answer.reason is None else sentence(answer.reason)
    show(
        settings,
        to_wire(answer) | {"explanation": explanation},
        human=lambda: aligned(_rows(answer, no_such_id, settings.now())),
    )


def _rows(answer: Verification, no_such_id: bool, now: float) -> Iterator[Row]:
    yield ("valid", colour("yes", "green") if answer.valid else colour("no", "red"))
    if not answer.valid:
        yield ("why", f"{_NO_SUCH_ID} ({REVOKED})" if no_such_id else why_not(answer.reason))
    if answer.session is not None:
        yield from session_rows(answer.session, now)


def session_rows(session: SessionInfo, now: float) -> Iterator[Row]:
    """All that is known of a session."""
    yield ("session", printable(session.id))
    yield ("label", printable(session.label))
    yield ("opened", _when(session.created_at, now))
    if session.opened_by is not None:
        yield ("by", f"process {session.opened_by.pid} of user {session.opened_by.uid}")
        if session.opened_by.exe is not None:
            yield ("program", printable(session.opened_by.exe))
        if session.opened_by.unit is not None:
            yield ("unit", printable(session.opened_by.unit))
    when = "" if session.expires_at is None else f"{moment(session.expires_at)}, "
    yield ("end", f"{when}{ends(session.expires_at, now)}")
    if session.max_expires_at is not None:
        yield ("at most", f"{moment(session.max_expires_at)}, which renewing cannot exceed")
    if session.bound_pid is not None:
        yield ("bound", f"ends with process {session.bound_pid}")
    if session.parent is not None:
        yield ("parent", f"{printable(session.parent)}; ends with it")
    times = "once" if session.generation == 1 else f"{session.generation} times"
    yield ("renewed", f"{_when(session.renewed_at, now)}; {times}" if session.generation else "never")
    yield ("used", "not yet" if session.last_used_at is None else _when(session.last_used_at, now))
    yield ("uses", "unlimited" if session.uses_left is None else f"{session.uses_left} left")
    yield ("scopes", listed(session.scopes, "all"))
    yield ("audience", listed(session.audience, "anyone"))


def _when(seconds: float, now: float) -> str:
    return f"{moment(seconds)}, {format_duration(now - seconds)} ago"
