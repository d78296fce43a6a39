"""The command `agentd`, however it is started. Before anything else is imported, the process is hardened.

What another process of the user opened before (/proc/PID/mem) stays open: the fewer milliseconds, the better.
"""

from __future__ import annotations

import gc

from agentd_client.cli import interrupts, isolation


def main() -> None:
    """Entry point of the command; ends in `SystemExit`, or by SIGINT where that came."""
    interrupts.end_at_once()
    isolation.keep_to_what_is_installed()
    from contextlib import suppress

    from . import process

    with suppress(OSError):  # whatever needs it asks again, and says why it is refused
        process.harden()
    gc.disable()  # until `cli` has imported all that stays: looking through it again and again frees nothing
    try:
        from .cli import main as run
    except (Exception, SystemExit) as error:
        isolation.leave(isolation.broken("agentd", error))
    try:
        run()
    except SystemExit as ended:
        isolation.leave(ended.code if isinstance(ended.code, int) else isolation.FAULT)


if __name__ == "__main__":
    main()
