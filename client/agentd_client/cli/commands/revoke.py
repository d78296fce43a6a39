"""`agentctl revoke` and `agentctl reset-key`: end one session, those that match conditions, or all."""

from __future__ import annotations

from typing import Any

import click

from ...durations import format_duration
from ..current_token import CurrentToken, require_token, stdin_or_id, token_from_stdin
from ..exit_codes import DONE, NO
from ..options import AgentctlCommand, Settings
from ..output import printable, show
from ..parameters import conditions, seconds, yes_option
from ..report import warn


@click.command("revoke", cls=AgentctlCommand)
@click.argument("which", metavar="[- | ID]", required=False, callback=stdin_or_id)
@conditions
@yes_option
@click.pass_obj
def revoke_command(settings: Settings, /, which: str | None, yes: bool, **given: Any) -> int:
    """End a session, or many; the token file stays.

    It ends the session of the current token, with `-` that of the token on standard input, or with an ID,
    which is not secret, that session. The sessions below it end with it. It exits with 1 if there was no
    session to end. `agentctl logout` also removes the token file.

    With conditions it ends every session that matches all of them; `agentctl list` with the same conditions
    shows which. On a terminal it asks for confirmation; otherwise it needs --yes.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if not chosen:
        return _revoke_one(settings, which)
    if which is not None:
        raise click.UsageError("name a session or conditions, not both", click.get_current_context())
    return _revoke_chosen(settings, chosen, yes)


def _revoke_one(settings: Settings, which: str | None) -> int:
    found: CurrentToken | None = None
    if which is None:
        found = require_token(settings)
        token: str | None = found.text
    else:
        token = token_from_stdin() if which == "-" else None
    with settings.connect() as agent:
        revoked = agent.revoke_token(token) if token is not None else agent.revoke_token(id=which)
    ended = "the session was ended" if revoked else "there was no session to end"
    if found is not None:
        ended += f"; its token is still in {found.origin}"
    show(settings, {"revoked": revoked}, human=lambda: [ended])
    return DONE if revoked else NO


def _revoke_chosen(settings: Settings, chosen: dict[str, Any], yes: bool) -> int:
    from ..terminal import confirmed

    named = ", ".join(f"{name} {printable(str(value))}" for name, value in chosen.items())
    if not yes and not confirmed(f"End every session with {named}?"):
        warn(settings, "nothing was changed")
        return NO
    with settings.connect() as agent:
        ended = agent.revoke_sessions(**chosen)
    summary = {0: "there was no session to end", 1: "1 session was ended"}.get(
        ended, f"{ended} sessions were ended"
    )
    show(settings, {"ended": ended}, human=lambda: [summary])
    return DONE if ended else NO


@click.command("reset-key", cls=AgentctlCommand)
@click.option(
    "--grace",
    callback=seconds,
    metavar="10m",
    help="How long existing tokens still verify, and do nothing else.  [default: not at all]",
)
@yes_option
@click.pass_obj
def reset_key_command(settings: Settings, grace: int | None, yes: bool) -> int:
    """Replace the session key, which ends every session.

    Every token that the agent has made becomes invalid, including this caller's own: at once, or after the
    grace period. On a terminal it asks for confirmation; otherwise it needs --yes.
    """
    from ..terminal import confirmed

    when = f" in {format_duration(grace)}" if grace else ""
    if not yes and not confirmed(f"End every session of this agent{when}?"):
        warn(settings, "nothing was changed")
        return NO
    with settings.connect() as agent:
        key_id = agent.reset_key(grace)
    effect = f"every session ends{when}" if grace else "every session was ended"
    show(
        settings,
        {"keyId": key_id},
        human=lambda: [
            f"{effect}; the new session key is {printable(key_id)}",
            "open a new session with `agentctl login`",
        ],
    )
    return DONE
