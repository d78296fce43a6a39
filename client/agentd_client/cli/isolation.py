"""The commands only import what was installed with them, whatever PYTHONPATH and the current folder are.

Otherwise a `click.py` in a project's folder would be imported and could end `agentctl verify` with any exit
code. This cannot prevent what Python runs before the program (sitecustomize): `agentd service
install` makes the commands start Python with ``-I``, which leaves nothing to do here.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # without importing `typing`: the agent hardens its process after this, without delay
if TYPE_CHECKING:
    from typing import NoReturn

FAULT = 70
"""EX_SOFTWARE, if the program cannot start: 1 would mean no."""


def keep_to_what_is_installed() -> None:
    """Remove PYTHONPATH and the script's or the current folder from Python's path.

    The folder of this package stays, for those who run it from a source tree.
    """
    if sys.flags.ignore_environment and sys.flags.safe_path:
        return
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if not sys.flags.safe_path and os.path.abspath(sys.path[0]) != own:
        del sys.path[0]
    named = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    if named:
        foreign = set(map(os.path.abspath, named.split(os.pathsep))) - {own}
        sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) not in foreign]


def leave(code: int) -> NoReturn:
    """Exit with this code, even if PYTHONINSPECT asks for a prompt, which would exit with another."""
    if sys.flags.inspect or (os.environ.get("PYTHONINSPECT") and not sys.flags.ignore_environment):
        leave_at_once(code)
    sys.exit(code)


def leave_at_once(code: int) -> NoReturn:
    """Exit with this code without the interpreter's clean-up, which takes a sixth of a short run.

    For a program that has no `atexit` functions and waits for no thread.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:  # nobody reads it, or the disk is full
            pass
    os._exit(code)


def broken(program: str, error: BaseException) -> int:
    """Report that the program cannot start; returns its exit code, to leave at once with."""
    what = type(error).__name__ + (f", {error.name}" if isinstance(error, ImportError) else "")
    tell(f"{program} cannot start ({what}): reinstall it")
    return FAULT


def tell(line: str) -> None:
    """Write a line to standard error; if that fails, there is still the exit code."""
    try:
        if sys.stderr is not None:  # None: the shell closed it
            sys.stderr.write(f"{line}\n")
    except OSError:
        pass
