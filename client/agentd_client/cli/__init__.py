"""`agentctl`, the command line of the client. It needs click, which the bare client does not install.

Importing this package imports nothing heavy; each command imports what it needs when it is called.
"""

from __future__ import annotations

import gc
import sys

from . import interrupts, isolation

__all__ = ["main"]

_UNAVAILABLE = 69
"""exit_codes.py, where it has its name, needs click."""


def main() -> None:
    """Run `agentctl` with the process's own arguments.

    Ends the process with a code of exit_codes.py, or by SIGINT where that came.
    """
    gc.disable()  # until all that stays is imported: looking through it again and again frees nothing
    interrupts.end_at_once()
    isolation.keep_to_what_is_installed()
    try:
        code = _run()
    except (Exception, SystemExit) as error:  # `run` raises nothing: it could not be imported
        code = isolation.broken("agentctl", error)
    interrupts.end_by_signal()
    isolation.leave_at_once(code)


def _run() -> int:
    try:
        import click  # noqa: F401 - whether it is there at all is the question
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write("agentctl needs click: pip install 'agentd-client[cli]'\n")
        return _UNAVAILABLE
    from .run import run

    gc.freeze()
    gc.enable()
    return run(sys.argv[1:])
