"""`agentctl login`, `renew` and `logout`: the session whose token is in the token file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ... import paths
from ...blocking import Client
from ...errors import (
    AgentdError,
    AgentUnreachableError,
    ApprovalRequiredError,
    TokenFileBusyError,
    TokenFileError,
)
from ...protocol.reasons import OTHER_AGENT
from ...protocol.results import PASSPHRASE, CreatedToken, GrantedToken, Verification
from ...token_file import TokenFile
from ..current_token import require_token
from ..options import AgentctlCommand, Settings
from ..output import OutputError, printable, show, write_now
from ..parameters import given_audience, given_scopes, given_uses, names
from ..parameters import ttl as ttl_callback
from ..passphrase_options import at_most_one, passphrase_options
from ..report import warn
from ..wording import OTHER_AGENTS_SESSION, ends, named, why_not

if TYPE_CHECKING:
    from ..asking import OnWaiting

_REASON = "agentctl login"


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
@passphrase_options({"": "the passphrase"})
@click.pass_obj
def login_command(
    settings: Settings,
    /,
    label: str | None,
    ttl: int | str | None,
    max_lifetime: int | str | None,
    scopes: tuple[str, ...],
    audience: tuple[str, ...],
    max_uses: int | None,
    **sources: Any,
) -> None:
    """Open a session and keep its token in the token file.

    Your programs read the token from that file. AGENTD_SESSION_TOKEN_PATH sets its path; AGENTD_TOKEN and
    AGENTD_TOKEN_FD take precedence over it. AGENTD_SOCKET sets the agent's socket. The session of the
    previous token in the file is ended, and named; a session of another agent is not, and a warning says so.

    Unless the agent's settings say otherwise (`opening`), you are not asked for anything: any program that
    runs as the user and can reach the agent's socket can open sessions. A session protects against programs
    that have no token and cannot reach the socket. If `opening` is "ask", login asks for a session, says how
    to approve that, and waits for up to 5 minutes; if it is "passphrase", it asks for the passphrase, as
    `agentctl unlock` does. Such a session cannot be extended beyond its end.
    """
    at_most_one(sources, "passphrase_fd", "passphrase_file", "askpass", "pinentry")
    variable = paths.token_variable()
    if variable is not None:
        warn(settings, f"{variable} is set and takes precedence over the token file")
    session = settings.session()
    label = default_label() if label is None else label
    with settings.connect() as agent:
        wanted: dict[str, Any] = {"audience": names(audience), "scopes": names(scopes), "max_uses": max_uses}
        created: CreatedToken | GrantedToken
        try:
            created = agent.create_token(expiry=ttl, label=label, max_lifetime=max_lifetime, **wanted)
        except ApprovalRequiredError:
            if max_lifetime is not None:
                raise click.UsageError(
                    "a session that has to be approved ends when its time is over: leave out --max-lifetime, "
                    "and choose an --expiry that is long enough",
                    click.get_current_context(),
                ) from None
            created = agent.request_token(
                ttl, label, reason=_REASON, on_waiting=_approval(settings, agent, sources), **wanted
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


def _approval(settings: Settings, agent: Client, sources: Mapping[str, Any]) -> OnWaiting:
    from ..asking import by_another_terminal, by_passphrase

    status = agent.get_status()
    if status.opening == PASSPHRASE:
        return by_passphrase(settings, agent, status, sources, "Passphrase of agentd, to log in: ")
    return by_another_terminal(settings)


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


@click.command("renew", cls=AgentctlCommand)
@click.pass_obj
def renew_command(settings: Settings) -> None:
    """Extend the session, with a new token.

    The session's lifetime starts again, and the new token replaces the old one in the token file. The old
    one stays valid until the new one was used, and for some seconds more. Programs, and `agentctl verify`,
    renew a session automatically when they use it in the last third of its lifetime; this command does it
    now. No session is renewed beyond its hard maximum (`agentctl inspect`).

    A token in AGENTD_TOKEN or AGENTD_TOKEN_FD cannot be replaced there, and is not renewed.
    """
    created = renewed(settings)
    place = f"the new token is in {settings.token_path}"
    show(
        settings,
        {"id": created.id, "expiresAt": created.expires_at, "tokenFile": settings.token_path},
        human=lambda: [
            f"renewed: session {printable(created.id)}, {ends(created.expires_at, settings.now())}",
            printable(place),
        ],
    )


def renewed(settings: Settings) -> CreatedToken:
    """Renew the session of the token file, and write the new token there; also outside a command.

    Raises:
        NotLoggedInError: there is no token.
        click.UsageError: the token is in no file.
        TokenFileBusyError: another process replaces it.
    """
    found = require_token(settings)
    if not found.is_from_file:
        raise click.UsageError(
            f"the token is in {found.origin}, where it cannot be replaced; name a file with --token-file",
            click.get_current_context(silent=True),
        )
    claim = TokenFile(settings.token_path).claim()
    with settings.connect() as agent:
        try:
            if not claim.take(found.text):
                raise TokenFileBusyError(
                    f"another process is replacing the token in {settings.token_path}, or has just done so; "
                    "check (`agentctl inspect`) before you renew again"
                )
            created = agent.renew_token(found.text)
            claim.replace(created.token)
        finally:
            claim.release()
    return created


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
            _end_at_agent(settings, None, everything)
            warn(settings, "every session was ended nevertheless")
        raise
    session_ended = False
    try:
        session_ended = _end_at_agent(settings, token, everything)
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
        human=lambda: [_logout_summary(settings, session_ended, everything, removed)],
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


def _end_at_agent(settings: Settings, token: str | None, everything: bool) -> bool:
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


def _logout_summary(settings: Settings, session_ended: bool, everything: bool, removed: bool) -> str:
    file = f"{printable(settings.token_path)} was removed"
    if everything:
        return f"every session was ended; {file}" if removed else "every session was ended"
    if not removed:
        return "not logged in"
    return f"logged out: the session was ended; {file}" if session_ended else f"logged out: {file}"
