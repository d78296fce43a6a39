"""`agentctl exec`: a session for one command, which this program then becomes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress

import click

from ... import paths
from ...blocking import Client
from ...errors import AgentdError, TokenFileError
from ...protocol.limits import MAX_LABEL_CHARACTERS
from ...protocol.results import CreatedToken
from ...token_file.folder import TokenFolder
from ..current_token import HANDOVER_FOLDER, require_token
from ..options import AgentctlCommand, Settings
from ..output import printable
from ..parameters import given_audience, given_scopes, given_uses, names, ttl
from ..program import become, complete
from ..report import warn

FILE, FD, ENV = "file", "fd", "env"

# The file itself, and those beside it while its token is renewed.
_FILE_NAME = r"\.?([0-9]{1,9})-[0-9A-Za-z_-]+(?:\.new|\.lock)?"

_STREAMS = ("input", "output", "error")


@click.command("exec", cls=AgentctlCommand, context_settings={"allow_interspersed_args": False})
@given_scopes
@given_audience
@click.option(
    "--ttl",
    callback=ttl,
    metavar="20m|8h|90|never",
    help="How long it lasts at most; a bare number is seconds.  [default: set by the agent]",
)
@given_uses
@click.option("--label", help="A label for the session.  [default: the command's name]")
@click.option("--file", "way", flag_value=FILE, help="Pass the token in a private file.  [default]")
@click.option("--fd", "way", flag_value=FD, help="Pass it by file descriptor.")
@click.option("--env", "way", flag_value=ENV, help="Pass it in the environment; see above.")
@click.argument(
    "arguments",
    metavar="[--] COMMAND [ARG]...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=complete,
)
@click.pass_obj
def exec_command(
    settings: Settings,
    scopes: tuple[str, ...],
    audience: tuple[str, ...],
    ttl: int | str | None,
    max_uses: int | None,
    label: str | None,
    way: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Run a command with a session of its own.

    The session is a child of the current one: its scopes, audience, lifetime and uses lie inside its
    parent's, and it ends with its parent. It also ends with the command. agentctl becomes the command:
    process, terminal, signals and exit code are the command's own.

    \b
    --file  AGENTD_SESSION_TOKEN_PATH names a file that only the user can
            read. Its token can be renewed, and every ordinary program
            passes it on to what it starts.
    --fd    AGENTD_TOKEN_FD names an open descriptor of memory that nobody
            can change. It is for commands that cannot see the file, and no
            file holds the token. A program that closes descriptors
            (Python's subprocess without pass_fds, Node) does not pass it on.
    --env   AGENTD_TOKEN holds the token itself. Every process of the user can
            read it from the command's environment, everything that the
            command starts inherits it, and it may end up in logs and
            crash reports. For programs that support nothing else.

    The command gets no other token: other variables that can name one are removed, and open descriptors that
    hold one are closed, whatever their number. So `agentctl verify` and the client library find the new
    session in the command. Only a token in a file can be renewed: otherwise choose a --ttl that is long
    enough. If the command cannot be run, the session is ended and the exit code is 127 if it does not
    exist, else 126.
    """  # noqa: D301 - the \b is meant: click keeps the lines that follow
    parent = require_token(settings)
    with settings.connect() as agent:
        created = agent.create_token(
            expiry=ttl,
            label=_default_label(arguments[0]) if label is None else label,
            audience=names(audience),
            scopes=names(scopes),
            max_uses=max_uses,
            parent=parent.text,
            bound=True,
        )
        handover: Handover | None = None
        try:
            _withhold_others(settings)
            handover = hand_over(created, way or FILE)
            become(arguments, handover.environ(_environ(settings)))
        except BaseException:  # also Ctrl-C: nobody has the token, so the session must not stay open
            _take_back(agent, created, handover)
            raise


def _withhold_others(settings: Settings) -> None:
    # Before the command's own is prepared: those open now have more rights, or are of other sessions.
    from ...token_file.descriptor import withhold_tokens

    for stream in withhold_tokens():
        warn(
            settings,
            f"standard {_STREAMS[stream]} held a session token; the command only gets its own",
        )


def _environ(settings: Settings) -> dict[str, str]:
    # The command has to find the agent that opened its session.
    found = dict(os.environ)
    if settings.socket is not None:
        found[paths.SOCKET_VARIABLE] = os.path.abspath(settings.socket)
    return found


def _take_back(agent: Client, created: CreatedToken, handover: Handover | None) -> None:
    if handover is not None:
        handover.take_back()
    with suppress(AgentdError):  # the session ends with this process in any case
        agent.revoke_token(created.token)


def _default_label(name: str) -> str:
    # Only its name: arguments may be secret.
    return printable(os.path.basename(name))[:MAX_LABEL_CHARACTERS]


class Handover:
    """A token prepared for a command: the variable that names it, and how to take it back."""

    __slots__ = ("_variable", "_value", "take_back")  # noqa: RUF023 - the order of the constructor

    def __init__(self, variable: str, value: str, take_back: Callable[[], None]) -> None:
        self._variable = variable
        self._value = value
        self.take_back = take_back

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The command's environment, with this and no other variable that can name a token."""
        return paths.without_tokens(environ) | {self._variable: self._value}


def hand_over(created: CreatedToken, way: str) -> Handover:
    """Prepare the token for handing over by `FILE`, `FD` or `ENV`.

    Raises:
        TokenFileError: the private file cannot be made.
        OSError: the descriptor cannot be made.
    """
    if way == ENV:
        return Handover(paths.TOKEN_VARIABLE, created.token, lambda: None)
    if way == FILE:
        return _by_file(created)
    from ...token_file.descriptor import sealed_descriptor

    descriptor = sealed_descriptor(created.token)
    return Handover(paths.TOKEN_FD_VARIABLE, str(descriptor), lambda: os.close(descriptor))


def handover_folder() -> str:
    """The folder of the files that are handed to commands."""
    return os.path.join(paths.runtime_dir(), HANDOVER_FOLDER)


def _by_file(created: CreatedToken) -> Handover:
    folder_path = handover_folder()
    name = f"{os.getpid()}-{created.id}"
    path = os.path.join(folder_path, name)
    if not re.fullmatch(_FILE_NAME, name):  # it becomes part of a path, and an agent could answer anything
        raise TokenFileError("the agent gave the session an id that cannot name a file; use --fd")
    try:
        with TokenFolder.opened_for_writing(folder_path) as folder:
            _clean(folder)
            folder.create(name, created.token.encode("ascii") + b"\n")
    except OSError as error:
        raise TokenFileError(f"cannot write token file {path}: {error.strerror}; use --fd") from error

    def take_back() -> None:
        with suppress(OSError):
            os.unlink(path)

    return Handover(paths.TOKEN_PATH_VARIABLE, path, take_back)


def _clean(folder: TokenFolder) -> None:
    for name in os.listdir(folder.path):
        found = re.fullmatch(_FILE_NAME, name)
        if found is not None and not _runs(int(found[1])):
            with suppress(OSError):  # another process may clean up at the same time
                folder.remove(name)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # another user's process by now, or not a pid: leave the file
    return True
