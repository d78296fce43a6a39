"""The commands run what was installed with them, whatever PYTHONPATH says and wherever they are started.

A `click.py` in a project's folder would otherwise be imported, and could end `agentctl verify` with any exit
code. What Python itself runs before a program (sitecustomize) is beyond this: `make install` writes commands
that start Python with ``-I``, which leaves nothing to do here.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = (
    False  # known to type checkers by its name; the agent hardens itself after this, without delay
)
if TYPE_CHECKING:
    from typing import NoReturn

FAULT = 70
"""EX_SOFTWARE, for a start that is broken: 1 would be an answer."""


def keep_to_what_is_installed() -> None:
    """Take off Python's path what it was led to: PYTHONPATH, and the folder of the script or the current one.

    The one that holds this package stays, for those who run it from a folder of sources.
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
    """End with this code, also where PYTHONINSPECT asks for a prompt, which would end with another."""
    if sys.flags.inspect or (os.environ.get("PYTHONINSPECT") and not sys.flags.ignore_environment):
        leave_at_once(code)
    sys.exit(code)


def leave_at_once(code: int) -> NoReturn:
    """End with this code, and spare the interpreter the taking apart of every module, a sixth of a short run.

    For a program that has nothing to do at its end (`atexit`) and waits for no thread.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:  # nobody reads, or no room
            pass
    os._exit(code)


def broken(program: str, error: BaseException) -> int:
    """Say that the program cannot even start, and what it ends with."""
    if sys.stderr is not None:
        what = type(error).__name__ + (f", {error.name}" if isinstance(error, ImportError) else "")
        sys.stderr.write(f"{program} cannot start ({what}): install it anew\n")
    return FAULT
