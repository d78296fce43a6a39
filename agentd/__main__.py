"""The command `agentd`, however it is started. Before anything else is imported, the process is hardened.

What another process of the user opened before (/proc/PID/mem) stays open: the fewer milliseconds, the better.
"""

from __future__ import annotations

from agentd_client.cli import interrupts


def main() -> None:
    """Entry point of the command; ends in `SystemExit`, or by SIGINT where that came."""
    interrupts.end_at_once()
    from contextlib import suppress

    from . import process

    with suppress(OSError):  # whatever needs it asks again, and says why it is refused
        process.harden()
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
