"""Where `agentctl` takes a token from: never from an argument.

Arguments are visible to everyone who can list processes, and stay in the shell's history.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from .. import paths
from ..errors import InvalidTokenError
from ..protocol.limits import MAX_TOKEN_CHARACTERS
from ..protocol.methods import TOKEN_PREFIX

if TYPE_CHECKING:
    from .options import Settings

_MAX_STDIN_BYTES = 2 * MAX_TOKEN_CHARACTERS
"""From standard input: the longest token, and as much white space around it."""

_NO_ARGUMENT = (
    "a token is never taken from an argument: arguments show in the process list and stay in the shell's "
    "history. Pass it on standard input, as in `... | agentctl verify -`. If the one just typed was real, "
    "end its session"
)


_SESSION_ID = r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}"


HANDOVER_FOLDER = "exec"
"""The folder, beside the socket, of the files that `agentctl exec` hands to commands."""


class NotLoggedInError(Exception):
    """Not logged in; `advice` is what to do if that is not to log in."""

    code = "NOT_LOGGED_IN"

    def __init__(self, advice: str | None = None) -> None:
        super().__init__()
        self.advice = advice


class CurrentToken(NamedTuple):
    """The caller's own token, and where it was found, in words."""

    text: str
    origin: str
    is_from_file: bool

    def __repr__(self) -> str:
        return f"CurrentToken(text=<secret>, origin={self.origin!r})"


def current_token(settings: Settings) -> CurrentToken | None:
    """The caller's token: from ``--token-file``, else in the order of `paths.token_variable`; None if none.

    Raises:
        TokenFileError: the token file, or the descriptor of ``AGENTD_TOKEN_FD``, is refused.
    """
    variable = paths.token_variable()
    if variable is not None and settings.token_file is None:  # a flag takes precedence over the environment
        from ..token_file.descriptor import environment_token

        return CurrentToken(environment_token() or "", variable, is_from_file=False)
    found = settings.session().read_token()
    return None if found is None else CurrentToken(found, settings.token_path, is_from_file=True)


def require_token(settings: Settings) -> CurrentToken:
    """`current_token`, or `NotLoggedInError`."""
    found = current_token(settings)
    if found is None:
        folder = os.path.basename(os.path.dirname(settings.token_path))
        if folder == HANDOVER_FOLDER and settings.token_file is None:
            raise NotLoggedInError(
                "the file that `agentctl exec` passed is not here; pass the token with `agentctl exec --fd`"
            )
        raise NotLoggedInError
    return found


def token_from_stdin() -> str:
    """Standard input, without the white space around it.

    It may be anything: the agent decides whether it is a token.

    Raises:
        InvalidTokenError: it is longer than a token and some white space. It is not read to its end.
    """
    if sys.stdin is None:  # the shell's `<&-`
        return ""
    too_long = InvalidTokenError(
        f"standard input holds more than {_MAX_STDIN_BYTES} bytes, which is no session token; "
        "pass the token alone"
    )
    if sys.stdin.isatty():
        return _typed_token(sys.stdin.fileno(), too_long)
    # One byte beyond the limit: a part of the input must not be taken for the whole.
    content = sys.stdin.buffer.read(_MAX_STDIN_BYTES + 1)
    if len(content) > _MAX_STDIN_BYTES:
        raise too_long
    return content.decode("utf-8", "replace").strip()


def _typed_token(descriptor: int, too_long: InvalidTokenError) -> str:
    from .terminal import read_hidden

    try:  # standard input itself may be read-only
        terminal = os.open(os.ttyname(descriptor), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        terminal = os.dup(descriptor)
    try:
        typed = read_hidden(terminal, "Token: ", _MAX_STDIN_BYTES, too_long)
    finally:
        os.close(terminal)
    return typed.decode("utf-8", "replace").strip()


_BECOMING = {"exec", "request"}
"""Commands of `agentctl` that become another command."""


def refuse_tokens(arguments: Sequence[str]) -> None:
    """Raise a usage error, which does not quote it, if an argument contains what looks like a token.

    Arguments after `exec … --` and `request … --` belong to another command, which may search for such text.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own = arguments[:end] if _BECOMING.intersection(arguments[:end]) else arguments
    if any(TOKEN_PREFIX in argument.casefold() for argument in own):
        raise click.UsageError(_NO_ARGUMENT)


def only_stdin(context: click.Context, parameter: click.Parameter, value: str | None) -> bool:
    """The callback of an argument that is ``-`` or absent; returns whether it is ``-``.

    The error does not quote anything else: it may be a token of another form.
    """
    if value not in (None, "-"):
        raise click.UsageError(_NO_ARGUMENT, context)
    return value is not None


def stdin_or_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The callback of an argument that is ``-``, a session id, or absent.

    An empty one comes from an unset shell variable and must not mean the caller's own session. The error does
    not quote it: it may be a token.
    """
    if value is None or value == "-" or re.fullmatch(_SESSION_ID, value):
        return value
    raise click.UsageError("the argument must be `-` or a session id", context)


def session_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The callback of an option that is a session id; the error does not quote it."""
    if value is None or re.fullmatch(_SESSION_ID, value):
        return value
    raise click.BadParameter("must be a session id", context, parameter)
