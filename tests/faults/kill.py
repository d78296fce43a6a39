"""The agent is killed in the middle of its work, over and over: what it acknowledged stays true.

`python -m tests.faults.kill 500` does it so often.
"""

from __future__ import annotations

import random
import signal
import sys
import threading

from agentd_client import AgentdError, Client
from tests.e2e.daemon import Daemon, Home, scratch_home

THREADS = 4


class Caller(threading.Thread):
    """Creates and revokes until the agent is gone; remembers what was acknowledged."""

    def __init__(self, agent: Client, seed: int, acknowledged: threading.Semaphore) -> None:
        super().__init__()
        self.agent, self.draw, self.acknowledged = agent, random.Random(seed), acknowledged
        self.created: list[str] = []
        self.revoked: list[str] = []

    def run(self) -> None:
        alive: list[str] = []
        try:
            while True:
                if alive and self.draw.random() < 0.3:
                    token = alive.pop(self.draw.randrange(len(alive)))
                    # Once asked for, it may be carried out whether or not that is acknowledged.
                    self.created.remove(token)
                    assert self.agent.revoke_token(token)
                    self.revoked.append(token)
                else:
                    token = self.agent.create_token().token
                    alive.append(token)
                    self.created.append(token)
                self.acknowledged.release()
        except AgentdError:
            return  # killed


class LostError(Exception):
    """What was acknowledged is not so any more."""


def kills(home: Home, rounds: int) -> tuple[list[str], list[str]]:
    """Kill the agent so many times; the tokens of the sessions that were opened, and of those revoked.

    After each kill the agent is started anew and asked about everything of that round, after the last one
    about everything.

    Raises:
        LostError: an acknowledged session does not verify, or an acknowledged revoke is undone.
    """
    created: list[str] = []
    revoked: list[str] = []
    daemon = home.start().ready()
    for seed in range(rounds):
        created_now, revoked_now = kill_in_the_middle(daemon, seed)
        created += created_now
        revoked += revoked_now
        daemon = home.start().ready()
        check(daemon, created_now, revoked_now)
    check(daemon, created, revoked)
    assert daemon.stop() == 0
    return created, revoked


def kill_in_the_middle(daemon: Daemon, seed: int) -> tuple[list[str], list[str]]:
    acknowledged = threading.Semaphore(0)
    with daemon.client(timeout=2) as agent:
        callers = [Caller(agent, seed * THREADS + number, acknowledged) for number in range(THREADS)]
        for caller in callers:
            caller.start()
        for _ in range(random.Random(seed).randrange(20, 120)):
            assert acknowledged.acquire(timeout=30)
        daemon.signal(signal.SIGKILL)
        for caller in callers:
            caller.join()
    return (
        [token for caller in callers for token in caller.created],
        [token for caller in callers for token in caller.revoked],
    )


def check(daemon: Daemon, created: list[str], revoked: list[str]) -> None:
    with daemon.client() as agent:
        lost = sum(not agent.verify_token(token) for token in created)
        undone = sum(agent.verify_token(token) for token in revoked)
    if lost or undone:
        raise LostError(f"{lost} acknowledged sessions are lost, {undone} acknowledged revokes are undone")


def main(rounds: int) -> int:
    with scratch_home() as home:
        created, revoked = kills(home, rounds)
    print(f"{rounds} kills: {len(created)} sessions verify, {len(revoked)} revokes stay; nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main(int((sys.argv[1:] or ["100"])[0])))
