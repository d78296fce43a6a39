"""Becoming another program: its process, signals, terminal and exit status are then this one's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, NoReturn


class NotExecutedError(Exception):
    """The command could not be started."""

    code: ClassVar[str]


class NotExecutableError(NotExecutedError):
    """The command is there, and the system refuses to execute it."""

    code = "NOT_EXECUTABLE"


class NotFoundError(NotExecutedError):
    """There is no such command."""

    code = "NOT_FOUND"


def become(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this program by the command, which is searched for in the PATH of `environ`.

    Raises:
        NotFoundError, NotExecutableError: it could not; this program goes on as it was.
    """
    import signal

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the shell
            with suppress(OSError):
                stream.flush()
    # What Python ignores for itself a command would inherit. The handler of SIGINT goes with execve(2), while
    # a SIGINT that was ignored already when this program began stays ignored, as nohup(1) and shells mean it.
    changed = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    try:
        os.execvpe(command[0], list(command), dict(environ))  # noqa: S606 - no shell: that is the point
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{command[0]}: {_reason(error)}") from error
    except OSError as error:
        raise NotExecutableError(f"{command[0]}: {_reason(error)}") from error
    finally:
        for number, before in changed.items():
            signal.signal(number, before)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
