"""`agentctl top`: a live view of sessions, requests and events, in which a person decides."""

from __future__ import annotations

import os
import sys

import click

from ...errors import ConfigError
from ..exit_codes import DONE
from ..options import AgentctlCommand, Settings

_NO_SCREEN = {"", "dumb", "unknown"}
"""Values of TERM for which no program can place text."""


@click.command("top", cls=AgentctlCommand)
@click.pass_obj
def top_command(settings: Settings) -> int:
    """Show sessions, requests and events live, and decide.

    Requests for sessions that wait for you are on top. Then come the sessions as a tree, how much the agent
    is asked and refuses, and what happened. Keys approve, narrow and deny requests, revoke a session with all
    below it, renew your own, lock the agent, filter and inspect; `?` shows them, `q` leaves. A request is
    approved only after all of it was on the screen, and where the agent's setting `opening` is "passphrase",
    with the passphrase.

    Looking extends nothing: sessions are listed and inspected, never verified. It needs a terminal, of any
    size and with colours or without, and Textual, which comes with the extra `tui`.
    """
    _check_terminal(settings)
    _clear_environment()
    try:
        from ...tui.running import run
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise ConfigError(
            f"{package} is missing, or too old: install agentd-client or agentd-daemon with the extra tui"
        ) from None
    with settings.connect():  # says why not, before the screen changes
        pass
    run(settings)
    return DONE


def _check_terminal(settings: Settings) -> None:
    context = click.get_current_context()
    if settings.json:
        raise click.UsageError("top prints nothing; `agentctl list --json` does", context)
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise click.UsageError(
            "top needs a terminal; `agentctl list` and `agentctl watch` work without", context
        )
    term = os.environ.get("TERM", "")
    if term in _NO_SCREEN:
        raise ConfigError(
            f"the terminal cannot place text (TERM is {term or 'not set'}); `agentctl list` and "
            "`agentctl watch` work there"
        )


def _clear_environment() -> None:
    """Remove the variables that Textual would read and must not."""
    # Its switches for developers. One has all keys that are typed logged, another loads a module.
    unwanted = [name for name in os.environ if name.startswith("TEXTUAL")]
    # They precede what the terminal says, and are wrong once it is resized.
    unwanted += ["COLUMNS", "LINES"]
    if not os.environ.get("NO_COLOR"):  # empty, it has no effect (no-color.org)
        unwanted.append("NO_COLOR")
    for name in unwanted:
        os.environ.pop(name, None)
