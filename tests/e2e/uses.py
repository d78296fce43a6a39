"""A session with limited uses, used by many connections at once.

`python -m tests.e2e.uses [ROUNDS]` does it again and again, and as often with a kill -9 in the middle.
"""

from __future__ import annotations

import signal
import sys
import threading

from agentd_client import AgentdError, Client
from tests.e2e.daemon import START_SECONDS, Daemon, Home, scratch_home

USES = 100
CONNECTIONS = 16
ATTEMPTS = 10
"""For each connection: together more than there are uses."""


class User(threading.Thread):
    """One connection that verifies a token as often as it can; counts the answers."""

    def __init__(
        self, daemon: Daemon, token: str, start: threading.Barrier, answers: threading.Semaphore
    ) -> None:
        super().__init__()
        self._daemon, self._token, self._start, self._answers = daemon, token, start, answers
        self.yes = self.no = 0

    def run(self) -> None:
        with Client.connect(str(self._daemon.home.socket), START_SECONDS, patience=0) as agent:
            self._start.wait(START_SECONDS)
            for _ in range(ATTEMPTS):
                try:
                    found = agent.check_token(self._token)
                except AgentdError:
                    return  # killed
                finally:
                    self._answers.release()
                self.yes += found.valid
                self.no += found.reason == "USED_UP"


def use_up(daemon: Daemon, token: str, kill_after: int | None = None) -> tuple[int, int]:
    """Use a token from all connections; how often the answer was yes, and how often that it is used up."""
    start, answers = threading.Barrier(CONNECTIONS), threading.Semaphore(0)
    users = [User(daemon, token, start, answers) for _ in range(CONNECTIONS)]
    for user in users:
        user.start()
    if kill_after is not None:
        for _ in range(kill_after):
            assert answers.acquire(timeout=START_SECONDS)
        daemon.signal(signal.SIGKILL)
    for user in users:
        user.join()
    return sum(user.yes for user in users), sum(user.no for user in users)


def new_token(daemon: Daemon) -> str:
    with daemon.client() as agent:
        return agent.create_token("never", max_uses=USES).token


def use_up_across_a_kill(home: Home, kill_after: int) -> tuple[int, int]:
    """How often the answer was yes before the kill, and after it."""
    daemon = home.start().ready()
    token = new_token(daemon)
    before, _ = use_up(daemon, token, kill_after)
    daemon = home.start().ready()
    after, _ = use_up(daemon, token)
    daemon.stop()
    return before, after


def main(rounds: int) -> int:
    faulty = 0
    with scratch_home() as home:
        daemon = home.start().ready()
        found = [use_up(daemon, new_token(daemon)) for _ in range(rounds)]
        daemon.stop()
        faulty += sum(yes != USES for yes, _ in found)
        print(f"{rounds} rounds of {CONNECTIONS} connections: {sorted({yes for yes, _ in found})} times yes")
        totals = []
        for at in range(rounds):
            before, after = use_up_across_a_kill(home, 5 + at * 7 % USES)
            totals.append(before + after)
        faulty += sum(total > USES for total in totals)
        print(f"{rounds} rounds with a kill -9: {min(totals)} to {max(totals)} times yes in all")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main(int((sys.argv[1:] or ["20"])[0])))
