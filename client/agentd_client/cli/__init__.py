"""`agentctl`, the client's command line. It needs click, which the bare client does not install.

Importing this package is cheap; each command imports what it needs when it is called.
"""

from __future__ import annotations

import gc
import sys

from . import interrupts, isolation

__all__ = ["main"]

_UNAVAILABLE = 69
"""`exit_codes.UNAVAILABLE`, which cannot be imported without click."""


def main() -> None:
    """Run `agentctl` with the process's own arguments.

    Ends the process with a code of exit_codes.py, or by SIGINT where that came.
    """
    gc.disable()  # until everything is imported: collecting meanwhile frees nothing
    interrupts.end_at_once()
    isolation.keep_to_what_is_installed()
    try:
        code = _run()
    except (Exception, SystemExit) as error:  # an import failed: `run` itself raises nothing
        code = isolation.broken("agentctl", error)
    interrupts.end_by_signal()
    isolation.leave_at_once(code)


def _run() -> int:
    try:
        import click  # noqa: F401 - to see whether it is installed
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        isolation.tell("agentctl needs click: pip install click")
        return _UNAVAILABLE
    from .run import run

    gc.freeze()
    gc.enable()
    return run(sys.argv[1:])
