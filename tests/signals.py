"""The signals of a terminal, as a program in the foreground has them, however the tests were started."""

from __future__ import annotations

import signal


def as_in_a_foreground_job() -> None:
    """Let whatever this process starts have SIGINT, SIGQUIT, SIGHUP and SIGTERM as they are by default.

    nohup(1), a shell that runs a job in the background, and a script that traps them have them ignored, which
    exec(2) passes on. A handler it does not pass on: with one that does nothing, this process goes on ignoring
    the signal, and what it starts, in whatever way, has the default.
    """
    for number in (signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests of this process rely on it
