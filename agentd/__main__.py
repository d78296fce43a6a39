"""Entry point of the command `agentd`: hardens the process before it imports anything else.

Another process of the user could open /proc/PID/mem until then, and would keep it open.
"""

from __future__ import annotations

import gc

from agentd_client.cli import interrupts, isolation


def main() -> None:
    """Entry point of the command; ends in `SystemExit`, or by SIGINT if it was interrupted."""
    interrupts.end_at_once()
    isolation.keep_to_what_is_installed()
    from contextlib import suppress

    from . import process

    with suppress(OSError):  # a command that needs it tries again and reports the error
        process.harden()
    gc.disable()  # until `cli` has imported everything: a collection frees none of that
    try:
        from .cli import main as run
    except (Exception, SystemExit) as error:
        isolation.leave_at_once(isolation.broken("agentd", error))
    try:
        run()
    except SystemExit as ended:
        isolation.leave(ended.code if isinstance(ended.code, int) else isolation.FAULT)


if __name__ == "__main__":
    main()
