"""`agentctl`, the command line of the client. It needs click, which the bare client does not install.

Importing this package imports nothing heavy; each command imports what it needs when it is called.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_UNAVAILABLE = 69
_INTERRUPTED = 130


def main() -> None:
    """Run `agentctl` with the process's own arguments; ends in `SystemExit` with a code of exit_codes.py."""
    # exit_codes.py needs click and may be cut off by Ctrl-C like any import: hence two numbers of its own.
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _run() -> int:
    try:
        import click  # noqa: F401 - whether it is there at all is the question
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write("agentctl needs click: pip install 'agentd-client[cli]'\n")
        return _UNAVAILABLE
    from .run import run

    return run(sys.argv[1:])
