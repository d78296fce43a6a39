"""`agentctl login`: open a session, whose token goes into the token file and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from ... import paths
from ...blocking import Client
from ...errors import AgentdError
from ...protocol.reasons import OTHER_AGENT
from ...protocol.results import Verification
from ..options import AgentctlCommand, Settings
from ..output import OutputError, printable, show, write_now
from ..parameters import given_audience, given_scopes, given_uses, names
from ..parameters import ttl as ttl_callback
from ..report import warn
from ..wording import OTHER_AGENTS_SESSION, ends, named, why_not


@click.command("login", cls=AgentctlCommand)
@click.option("--label", help="A label for the session.  [default: the host's name and the terminal]")
@click.option(
    "--expiry",
    "ttl",
    callback=ttl_callback,
    metavar="30m|8h|1h30m|90|never",
    help="How long it lasts; a bare number is seconds.  [default: set by the agent]",
)
@click.option(
    "--max-lifetime",
    callback=ttl_callback,
    metavar="7d|never",
    help="How long it lasts at most, however often it is renewed.  [default: set by the agent]",
)
@given_scopes
@given_audience
@given_uses
@click.pass_obj
def login_command(
    settings: Settings,
    label: str | None,
    ttl: int | str | None,
    max_lifetime: int | str | None,
    scopes: tuple[str, ...],
    audience: tuple[str, ...],
    max_uses: int | None,
) -> None:
    """Open a session and keep its token in the token file.

    Your programs read the token from that file. AGENTD_SESSION_TOKEN_PATH sets its path; AGENTD_TOKEN and
    AGENTD_TOKEN_FD take precedence over it. AGENTD_SOCKET sets the agent's socket. The session of the
    previous token in the file is ended, and named; a session of another agent is not, and a warning says so.

    You are not asked for a password: any program that runs as the user and can reach the agent's socket can
    open sessions. A session protects against programs that have no token and cannot reach the socket.
    """
    variable = paths.token_variable()
    if variable is not None:
        warn(settings, f"{variable} is set and takes precedence over the token file")
    session = settings.session()
    label = default_label() if label is None else label
    with settings.connect() as agent:
        created = agent.create_token(
            expiry=ttl,
            label=label,
            audience=names(audience),
            scopes=names(scopes),
            max_uses=max_uses,
            max_lifetime=max_lifetime,
        )
        try:
            replaced = session.exchange_token(created.token)
        except BaseException:  # also Ctrl-C: nobody has the token, so the session must not stay open
            _end(settings, agent, created.token, "the new session")
            raise
        before = None if replaced is None else _inspected(agent, replaced)
        ended = replaced is not None and _end(settings, agent, replaced, "the previous session")
    if before is not None and before.reason == OTHER_AGENT:
        warn(
            settings,
            f"{settings.token_path} held {OTHER_AGENTS_SESSION}. To keep both, give each agent "
            f"a token file of its own ({paths.TOKEN_PATH_VARIABLE})",
        )
    document = {
        "id": created.id,
        "label": label,
        "expiresAt": created.expires_at,
        "tokenFile": settings.token_path,
        "replaced": ended,
        "replacedId": None if before is None or before.session is None else before.session.id,
        "replacedReason": None if before is None else before.reason,
    }
    place = f"the token is in {settings.token_path}"
    try:
        show(
            settings,
            document,
            human=lambda: [
                f"logged in: {named(created.id, label)}, {ends(created.expires_at, settings.now())}",
                printable(place),
                *_before(before, ended),
            ],
        )
        write_now()
    except OutputError:
        warn(settings, f"logged in nevertheless: {place}")
        raise


def _inspected(agent: Client, token: str) -> Verification | None:
    try:
        return agent.inspect_token(token)
    except AgentdError:  # it is only used to say what was there
        return None


def _before(before: Verification | None, ended: bool) -> Iterator[str]:
    """What happened to the session of the previous token; a warning covers another agent's."""
    if before is None or before.reason == OTHER_AGENT:
        return
    which = "" if before.session is None else f", {named(before.session.id, before.session.label)},"
    if ended:
        yield f"the previous session{which} was ended"
    elif not before.valid:
        yield f"the previous token{which} was no longer valid: {why_not(before.reason)}"


def _end(settings: Settings, agent: Client, token: str, which: str) -> bool:
    try:
        return agent.revoke_token(token)
    except AgentdError as error:
        warn(settings, f"{which} could not be ended and stays open until it expires: {error.sentence}")
        return False


def default_label() -> str:
    """Where the session was opened: the name of the host or container, and the terminal."""
    for descriptor in (0, 1, 2):
        try:
            terminal = os.ttyname(descriptor).removeprefix("/dev/")
        except OSError:
            continue
        return f"{os.uname().nodename} {terminal}"
    return f"{os.uname().nodename}, no terminal"
