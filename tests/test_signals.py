from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.agentctl.running import without_coverage

PROGRAM = """if True:
    import signal, subprocess, sys
    from tests.signals import as_in_a_foreground_job
    as_in_a_foreground_job()
    signal.raise_signal(signal.SIGHUP)  # ignored before, and ignored now
    signal.raise_signal(signal.SIGQUIT)
    signal.raise_signal(signal.SIGTERM)
    numbers = "(signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)"
    told = f"import signal; print(*(signal.getsignal(n).name for n in {numbers}))"
    subprocess.run([sys.executable, "-c", told], check=True)
    told = "import signal; signal.raise_signal(signal.SIGINT)"
    print(subprocess.run([sys.executable, "-c", told], stderr=subprocess.DEVNULL).returncode)
"""


@pytest.fixture
def ignored():
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_is_started_has_them_by_default_though_they_were_ignored(ignored):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=without_coverage(),  # coverage has a handler of its own for SIGTERM
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout == f"SIG_DFL SIG_DFL SIG_DFL\n{-signal.SIGINT}\n"
