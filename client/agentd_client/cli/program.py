"""Becoming another program, which then has this process, its signals, its terminal and its exit status.

Also completes the name of the program on the command line.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, NoReturn

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

_ASSIGNMENT = r"[A-Za-z_][A-Za-z_0-9]*="
_SHELL_CHARACTERS = frozenset(" \t\n|&;<>()$`*?~")
_BUILTINS = (
    r"[.:]|alias|bg|break|case|cd|command|continue|declare|eval|exec|exit|export|fc|fg|for|function|getopts|hash"
    r"|history|if|jobs|let|local|popd|pushd|readonly|read|return|set|shift|shopt|source|times|trap|type(set)?"
    r"|ulimit|umask|unalias|unset|until|wait|while"
)
"""Commands of shells that are not programs on most machines."""


class NotExecutedError(Exception):
    """The command could not be started."""

    code: ClassVar[str]


class NotExecutableError(NotExecutedError):
    """The command exists, but the system refuses to execute it."""

    code = "NOT_EXECUTABLE"


class NotFoundError(NotExecutedError):
    """There is no such command."""

    code = "NOT_FOUND"


def become(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this program by the command, which is looked up in the PATH of `environ`.

    Raises:
        NotFoundError, NotExecutableError: it cannot be run; this program continues.
    """
    import signal

    if not command[0]:
        raise NotFoundError("the command's name is empty; is a shell variable unset?")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the shell
            with suppress(OSError):
                stream.flush()
    # The command would inherit the signals that Python ignores. execve(2) resets the handler of SIGINT; a
    # SIGINT that was ignored when this program started stays ignored, as nohup(1) and shells intend.
    changed = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    try:
        os.execvpe(command[0], list(command), dict(environ))  # noqa: S606 - no shell: that is the point
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_found(command[0], error) from error
    except OSError as error:
        raise _not_executable(command[0], error, environ) from error
    finally:
        for number, before in changed.items():
            signal.signal(number, before)


def _not_found(name: str, error: OSError) -> NotExecutedError:
    if "/" in name:
        if os.path.isfile(name):  # execve(2): then it is the interpreter of a script that is not there
            return NotExecutableError(f"{name}: the interpreter in its first line does not exist")
    elif re.match(_ASSIGNMENT, name):  # what is assigned may be a secret
        return NotFoundError(
            f"{name.partition('=')[0]}=… is an assignment, not a command; run `env` with it and the command"
        )
    elif re.fullmatch(_BUILTINS, name):
        return NotFoundError(f"{name} is a shell command, not a program; run `sh -c '{name} …'`")
    elif not _SHELL_CHARACTERS.isdisjoint(name):
        return NotFoundError(
            f"{name}: {_reason(error)}; pass the words of a command as separate arguments, or run a shell "
            "command line with `sh -c`"
        )
    return NotFoundError(f"{name}: {_reason(error)}")


def _not_executable(name: str, error: OSError, environ: Mapping[str, str]) -> NotExecutableError:
    path = _path_of(name, environ)
    if os.path.isdir(path):
        return NotExecutableError(f"{name}: is a folder")
    if error.errno == errno.ENOEXEC:
        return NotExecutableError(
            f"{name}: {_reason(error)}; if it is a script, begin it with a line like #!/bin/sh, or run "
            f"`sh {path}`"
        )
    return NotExecutableError(f"{name}: {_reason(error)}")


def _path_of(name: str, environ: Mapping[str, str]) -> str:
    from shutil import which

    return name if "/" in name else which(name, path=environ.get("PATH")) or name


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The commands in PATH that begin like this; files, which the shell lists itself, for the arguments."""
    from click.shell_completion import CompletionItem

    if context.params.get(parameter.name or "") or "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in sorted(_commands(incomplete))]


def _commands(prefix: str) -> set[str]:
    found = set()
    for folder in os.get_exec_path():
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and os.access(entry.path, os.X_OK) and entry.is_file():
                    found.add(entry.name)
    return found
