"""Handing a session's token to a command, which this program then becomes: for `exec` and `request`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol

import click

from .. import paths
from ..blocking import Client
from ..errors import AgentdError, TokenFileError
from ..protocol.limits import MAX_LABEL_CHARACTERS
from ..token_file.folder import TokenFolder
from .current_token import HANDOVER_FOLDER
from .options import AnyFunction, Settings
from .output import printable
from .program import become
from .report import warn

FILE, FD, ENV = "file", "fd", "env"

# The file itself, and those beside it while its token is renewed.
_FILE_NAME = r"\.?([0-9]{1,9})-[0-9A-Za-z_-]+(?:\.new|\.lock)?"

_STREAMS = ("input", "output", "error")

_WAYS = (
    click.option("--file", "way", flag_value=FILE, help="Pass the token in a private file.  [default]"),
    click.option("--fd", "way", flag_value=FD, help="Pass it by file descriptor."),
    click.option("--env", "way", flag_value=ENV, help="Pass it in the environment; see above."),
)


class Opened(Protocol):
    """A session that was opened for the command."""

    @property
    def token(self) -> str:
        """Its token."""

    @property
    def id(self) -> str:
        """Its id."""


def ways(function: AnyFunction) -> AnyFunction:
    """Add the options that say how the token is passed."""
    for option in reversed(_WAYS):
        function = option(function)
    return function


def check_possible(way: str | None) -> None:
    """Raise now what would prevent handing over by file, before a person is asked for the session.

    Raises:
        TokenFileError: the private file cannot be made.
        EnvironmentVariableError: there is no folder for it.
    """
    if (way or FILE) == FILE:
        with _writing(os.path.join(handover_folder(), str(os.getpid()))):
            pass


def run_with(
    settings: Settings, agent: Client, opened: Opened, way: str | None, arguments: Sequence[str]
) -> NoReturn:
    """Become the command, which gets this session's token and no other.

    Raises:
        NotExecutedError: it cannot be run; the session was ended, as after any other error.
    """
    handover: Handover | None = None
    try:
        _withhold_others(settings)
        handover = hand_over(opened, way or FILE)
        become(arguments, handover.environ(_environ(settings)))
    except BaseException:  # also Ctrl-C: nobody has the token, so the session must not stay open
        _take_back(agent, opened, handover)
        raise


def default_label(name: str) -> str:
    """The label of a session for this command: its name alone, as arguments may be secret."""
    return printable(os.path.basename(name))[:MAX_LABEL_CHARACTERS]


def _withhold_others(settings: Settings) -> None:
    # Before the command's own is prepared: those open now have more rights, or are of other sessions.
    from ..token_file.descriptor import withhold_tokens

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


def _take_back(agent: Client, opened: Opened, handover: Handover | None) -> None:
    if handover is not None:
        handover.take_back()
    with suppress(AgentdError):  # the session ends with this process in any case
        agent.revoke_token(opened.token)


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


def hand_over(opened: Opened, way: str) -> Handover:
    """Prepare the token for handing over by `FILE`, `FD` or `ENV`.

    Raises:
        TokenFileError: the private file cannot be made.
        OSError: the descriptor cannot be made.
    """
    if way == ENV:
        return Handover(paths.TOKEN_VARIABLE, opened.token, lambda: None)
    if way == FILE:
        return _by_file(opened)
    from ..token_file.descriptor import sealed_descriptor

    descriptor = sealed_descriptor(opened.token)
    return Handover(paths.TOKEN_FD_VARIABLE, str(descriptor), lambda: os.close(descriptor))


def handover_folder() -> str:
    """The folder of the files that are handed to commands."""
    return os.path.join(paths.runtime_dir(), HANDOVER_FOLDER)


def _by_file(opened: Opened) -> Handover:
    folder_path = handover_folder()
    name = f"{os.getpid()}-{opened.id}"
    path = os.path.join(folder_path, name)
    if not re.fullmatch(_FILE_NAME, name):  # it becomes part of a path, and an agent could answer anything
        raise TokenFileError("the agent gave the session an id that cannot name a file; use --fd")
    with _writing(path) as folder:
        _clean(folder)
        folder.create(name, opened.token.encode("ascii") + b"\n")

    def take_back() -> None:
        with suppress(OSError):
            os.unlink(path)

    return Handover(paths.TOKEN_PATH_VARIABLE, path, take_back)


@contextmanager
def _writing(path: str) -> Iterator[TokenFolder]:
    try:
        with TokenFolder.opened_for_writing(os.path.dirname(path)) as folder:
            yield folder
    except OSError as error:
        raise TokenFileError(f"cannot write token file {path}: {error.strerror}; use --fd") from error


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
