"""The command of `agentctl exec` is killed, with its agent there, started anew, or away: its session ends.

`python -m tests.faults.kill_exec [ROUNDS]` prints the milliseconds from the kill to the first no.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.daemon import START_SECONDS, Daemon, Home, scratch_home

# It tells its token and lives until its standard input is closed.
COMMAND = ("sh", "-c", 'cat "/proc/self/fd/$AGENTD_TOKEN_FD"; echo; exec cat')


@contextmanager
def command(home: Home) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that runs in a session of its own, and its token."""
    with subprocess.Popen(
        [sys.executable, "-m", "agentd_client.cli", "exec", "--fd", "--", *COMMAND],
        env=home.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def seconds_until_refused(daemon: Daemon, token: str) -> float:
    """How long the agent goes on to say yes."""
    begun = time.monotonic()
    with daemon.client() as agent:
        while agent.verify_token(token):
            if time.monotonic() - begun > START_SECONDS:
                break
    return time.monotonic() - begun


def while_the_agent_runs(home: Home) -> float:
    daemon = home.start().ready()
    try:
        _login(home)
        with command(home) as (process, token), daemon.client() as agent:
            assert agent.verify_token(token)
            kill(process)
            return seconds_until_refused(daemon, token)
    finally:
        daemon.stop()


def across_a_restart(home: Home) -> float:
    """The agent is killed and started anew while the command runs, which is killed afterwards."""
    daemon = home.start().ready()
    try:
        _login(home)
        with command(home) as (process, token):
            daemon.signal(signal.SIGKILL)
            daemon = home.start().ready()
            with daemon.client() as agent:
                assert agent.verify_token(token)
            kill(process)
            return seconds_until_refused(daemon, token)
    finally:
        daemon.stop()


def while_no_agent_runs(home: Home) -> str | None:
    """The agent's very first answer about the token of a command that ended while there was none."""
    daemon = home.start().ready()
    _login(home)
    with command(home) as (process, token):
        daemon.signal(signal.SIGKILL)
        kill(process)
        daemon = home.start()
        try:
            with daemon.client() as agent:
                return agent.check_token(token).reason
        finally:
            daemon.stop()


def _login(home: Home) -> None:
    assert home.agentctl("login").returncode == 0


def main(rounds: int) -> int:
    with scratch_home() as home:
        running = [while_the_agent_runs(home) for _ in range(rounds)]
        restarted = [across_a_restart(home) for _ in range(rounds)]
        away = {while_no_agent_runs(home) for _ in range(rounds)}
    for what, seconds in (("the agent runs", running), ("it was killed between", restarted)):
        print(
            f"{what}: {min(seconds) * 1000:.1f} to {max(seconds) * 1000:.1f} ms from the kill to the first no"
        )
    print(f"the command ended while no agent ran: the first answer is {away}")
    return 1 if max(running + restarted) > 1 or None in away else 0


if __name__ == "__main__":
    sys.exit(main(int((sys.argv[1:] or ["10"])[0])))
