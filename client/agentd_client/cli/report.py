"""Errors and warnings on standard error: what happened, and what to do next."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from .. import errors
from .current_token import NotLoggedInError
from .output import printable
from .program import NotExecutedError

if TYPE_CHECKING:
    from .options import Settings

# Only what the library's own sentence does not say.
_NEXT: dict[type[BaseException], str] = {
    NotLoggedInError: "log in with `agentctl login`",
    errors.AgentUnreachableError: "if systemd runs it, start it with `systemctl --user start agentd`",
    errors.AgentStoppingError: "start it again with `agentd serve` or `systemctl --user start agentd`",
    errors.AgentTimeoutError: "wait longer with --timeout SECONDS",
    errors.VersionsDifferError: "if systemd runs it, restart it with `systemctl --user restart agentd`",
    errors.ProtocolError: "check what listens at the socket of --socket or AGENTD_SOCKET",
    errors.UnknownMethodError: "agentctl is newer than the agent: restart the agent; "
    "or this is a verify socket or an ask socket, which have few methods; `agentctl verify` works at both",
    errors.InvalidMessageError: "agentctl and the agent are of different versions: restart the agent",
    errors.LocalParamsError: "nothing was sent; check the command line",
    errors.InvalidParamsError: "agentctl and the agent are of different versions: restart the agent",
    errors.AgentInternalError: "see the agent's log (`journalctl --user -u agentd`)",
    errors.StoreError: "see the agent's log (`journalctl --user -u agentd`)",
    errors.ParentNotValidError: "`agentctl inspect` says why; `agentctl login` opens a new session",
    errors.NotWithinParentError: "`agentctl inspect` shows the session's limits",
    errors.TokenNotValidError: "`agentctl inspect` says why; `agentctl login` opens a new session",
    errors.AgentLockedError: "unlock it with `agentctl unlock`",
    errors.ApprovalRequiredError: "`agentctl login` and `agentctl request` ask for approval",
    errors.RequestExpiredError: "a request waits for `agentctl approve`, at most 5 minutes; ask again",
    errors.TooManyRequestsError: "`agentctl requests` shows what waits; try again later",
    errors.NoSuchRequestError: "`agentctl requests` shows those that wait",
    errors.NotWithinRequestError: "leave out --scope, --ttl and --uses to grant all that is asked for",
    errors.OwnRequestError: "run `agentctl approve` on another terminal",
    errors.CannotBindError: "see the agent's log (`journalctl --user -u agentd`)",
    NotExecutedError: "its session was ended",
    errors.StartError: "after fixing this, rerun the command",
}


def warn(settings: Settings, text: str) -> None:
    """Print a warning."""
    _say(settings.json, {"warning": {"message": text}}, f"agentctl: warning: {printable(text)}")


def remark(settings: Settings, text: str) -> None:
    """Print a remark that is neither a result nor a warning."""
    _say(settings.json, {"message": text}, f"agentctl: {printable(text)}")


def present(settings: Settings, document: dict[str, Any], lines: Iterable[str]) -> None:
    """Print what a person has to see, whatever happens to the result on standard output."""
    _say(settings.json, document, "\n".join(lines))


def report(error: BaseException, *, as_json: bool, debug: bool, advice: str | None = None) -> None:
    """Print what went wrong, in two lines or as one JSON object; the traceback only with `debug`.

    `advice` is what to do, if the caller knows better than the class of the error does.
    """
    # The traceback of a usage error would only show what was typed.
    if debug and not isinstance(error, click.ClickException):
        import traceback

        with suppress(OSError):
            traceback.print_exception(error)
    code, number, message = _describe(error)
    advice = advice or _advice(error)
    lines = [f"agentctl: {printable(message)}"]
    if advice:
        lines.append(f"agentctl: {advice}")
    _say(as_json, {"error": {"code": code, "number": number, "message": message}}, "\n".join(lines))


def _say(as_json: bool, document: dict[str, Any], text: str) -> None:
    if sys.stderr is None:  # closed by the shell; for click that would mean standard output
        return
    if as_json:
        import json

        text = json.dumps(document)
    with suppress(OSError):  # nobody reads it; there is still the exit code
        click.echo(text, file=sys.stderr)


def _describe(error: BaseException) -> tuple[str, int | None, str]:
    if isinstance(error, errors.AgentdError):
        return error.code, error.number, error.sentence
    if isinstance(error, NotLoggedInError):
        return error.code, None, "not logged in"
    if isinstance(error, NotExecutedError):
        return error.code, None, str(error)
    if isinstance(error, click.ClickException):
        from .usage import usage_sentence

        return "USAGE", None, usage_sentence(error)
    if isinstance(error, OSError):
        about = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return "SYSTEM", None, f"{about}{error.strerror or type(error).__name__}"
    # Its own text may quote a token.
    return "FAULT", None, f"internal error in agentctl ({type(error).__name__}); --debug shows where"


def _advice(error: BaseException) -> str | None:
    if isinstance(error, NotLoggedInError) and error.advice is not None:
        return error.advice
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"see `{error.ctx.command_path} --help`"
    for kind in type(error).__mro__:
        if kind in _NEXT:
            return _NEXT[kind]
    return None
