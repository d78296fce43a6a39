"""`agentctl logout`: end the session of the token file, and remove the file in any case."""

from __future__ import annotations

import os

import click

from ... import paths
from ...errors import AgentdError, AgentUnreachableError, TokenFileError
from ...protocol.reasons import OTHER_AGENT
from ...token_file import TokenFile
from ..options import AgentctlCommand, Settings
from ..output import printable, show
from ..report import warn
from ..wording import OTHER_AGENTS_SESSION


@click.command("logout", cls=AgentctlCommand)
@click.option("--all", "everything", is_flag=True, help="End every session, by replacing the session key.")
@click.pass_obj
def logout_command(settings: Settings, everything: bool) -> None:
    """End the session of the token file and remove the file.

    The file is removed in any case, even if it is refused. If no agent answers, the session stays open until
    it expires: that is a warning, or with --all an error, as nothing was ended. The session of a token in
    AGENTD_TOKEN or AGENTD_TOKEN_FD stays open; end it with `agentctl revoke`.
    """
    try:
        token, removed = _take(settings)
    except TokenFileError:
        if everything:  # ending every session does not need the file
            _end(settings, None, everything)
            warn(settings, "every session was ended nevertheless")
        raise
    session_ended = False
    try:
        session_ended = _end(settings, token, everything)
    except AgentdError as error:
        warn(settings, "the token file was removed nevertheless")
        if everything or not isinstance(error, AgentUnreachableError):
            raise
        warn(settings, f"the session stays open until it expires: {error.sentence}")
    other = paths.token_variable()
    if other is not None and not everything:
        warn(settings, f"the session of {other} stays open; `agentctl revoke` ends it")
    show(
        settings,
        {"sessionEnded": session_ended, "everySessionEnded": everything, "fileRemoved": removed},
        human=lambda: [_summary(settings, session_ended, everything, removed)],
    )


def _take(settings: Settings) -> tuple[str | None, bool]:
    """The token, and whether there was a file; a concurrent login keeps its own."""
    file = TokenFile(settings.token_path)
    existed = os.path.lexists(file.path)
    try:
        return file.take(), existed
    except TokenFileError as error:
        removed = file.remove()  # before the warning, because it may fail, for a folder for example
        warn(
            settings,
            f"{error.sentence}. It was removed; if it held a token, that session stays open until it expires",
        )
        return None, removed


def _end(settings: Settings, token: str | None, everything: bool) -> bool:
    if token is None and not everything:
        return False
    with settings.connect() as agent:
        if everything or token is None:
            agent.reset_key()
            return True
        if agent.revoke_token(token):
            return True
        if agent.inspect_token(token).reason == OTHER_AGENT:
            warn(settings, f"{settings.token_path} held {OTHER_AGENTS_SESSION}")
        return False


def _summary(settings: Settings, session_ended: bool, everything: bool, removed: bool) -> str:
    file = f"{printable(settings.token_path)} was removed"
    if everything:
        return f"every session was ended; {file}" if removed else "every session was ended"
    if not removed:
        return "not logged in"
    return f"logged out: the session was ended; {file}" if session_ended else f"logged out: {file}"
