"""`agentctl login`: open a session; its token goes into the token file and nowhere else."""

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
from ..parameters import expiry, given_audience, given_scopes, given_uses, names
from ..report import warn
from ..wording import OTHER_AGENTS_SESSION, ends, named, why_not


@click.command("login", cls=AgentctlCommand)
@click.option("--label", help="What to call the session.  [default: the host's name and the terminal]")
@click.option(
    "--expiry",
    "lifetime",
    callback=expiry,
    metavar="30m|8h|1h30m|90|never",
    help="How long it lasts; a bare number is seconds.  [default: the agent's own]",
)
@click.option(
    "--max-lifetime",
    callback=expiry,
    metavar="7d|never",
    help="How long it lasts at the most, however often it is renewed.  [default: the agent's own]",
)
@given_scopes
@given_audience
@given_uses
@click.pass_obj
def command(
    settings: Settings,
    label: str | None,
    lifetime: int | str | None,
    max_lifetime: int | str | None,
    scopes: tuple[str, ...],
    audience: tuple[str, ...],
    max_uses: int | None,
) -> None:
    """Open a session and keep its token in the token file.

    Programs of yours read the token from that file; AGENTD_SESSION_TOKEN_PATH says where it is. AGENTD_TOKEN
    and AGENTD_TOKEN_FD, where they are set, are stronger than the file. AGENTD_SOCKET says where the agent
    is. The session of the token that was in the file before is ended, and named. One of another agent is
    not: a warning says so.

    No password is asked: whoever runs as the user and can reach the agent's socket can open sessions of its
    own. A session protects against those who hold no token and cannot reach the socket, and can be ended.
    """
    stronger = paths.token_variable()
    if stronger is not None:
        warn(settings, f"{stronger} is set and is stronger than the token file")
    session = settings.session()
    label = default_label() if label is None else label
    with settings.connect() as agent:
        created = agent.create_token(
            expiry=lifetime,
            label=label,
            audience=names(audience),
            scopes=names(scopes),
            max_uses=max_uses,
            max_lifetime=max_lifetime,
        )
        try:
            replaced = session.exchange_token(created.token)
        except BaseException:  # Ctrl-C too: a session whose token nobody has must not live on
            _end(settings, agent, created.token, "the new session")
            raise
        before = None if replaced is None else _inspected(agent, replaced)
        ended = replaced is not None and _end(settings, agent, replaced, "the session before")
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
        warn(settings, f"logged in all the same: {place}")
        raise


def _inspected(agent: Client, token: str) -> Verification | None:
    try:
        return agent.inspect_token(token)
    except AgentdError:  # it is only for telling what was there
        return None


def _before(before: Verification | None, ended: bool) -> Iterator[str]:
    """What became of the session whose token was in the file; of another agent's there is a warning."""
    if before is None or before.reason == OTHER_AGENT:
        return
    which = "" if before.session is None else f", {named(before.session.id, before.session.label)},"
    if ended:
        yield f"the session before{which} has ended"
    elif not before.valid:
        yield f"the token before{which} was no longer valid: {why_not(before.reason)}"


def _end(settings: Settings, agent: Client, token: str, which: str) -> bool:
    try:
        return agent.revoke_token(token)
    except AgentdError as error:
        warn(settings, f"{which} could not be ended and lives until it expires: {error.sentence}")
        return False


def default_label() -> str:
    """Where the session was opened: the host's name (a container's differs) and the terminal."""
    for descriptor in (0, 1, 2):
        try:
            terminal = os.ttyname(descriptor).removeprefix("/dev/")
        except OSError:
            continue
        return f"{os.uname().nodename} {terminal}"
    return f"{os.uname().nodename}, no terminal"
