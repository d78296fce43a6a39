"""The agent is killed in the middle of its work, over and over: what it acknowledged stays true."""

from __future__ import annotations

import random
import signal
import threading

from agentd_client import AgentdError, Client
from tests.e2e.daemon import Home, scratch_home

ROUNDS = 20
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


def kill_in_the_middle(home: Home, seed: int) -> tuple[list[str], list[str]]:
    acknowledged = threading.Semaphore(0)
    daemon = home.start().ready()
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


def test_kill_9_in_the_middle_of_creates_loses_no_acknowledged_session_and_no_revoke():
    created: list[str] = []
    revoked: list[str] = []
    with scratch_home() as home:
        for seed in range(ROUNDS):
            more = kill_in_the_middle(home, seed)
            created += more[0]
            revoked += more[1]
            daemon = home.start().ready()
            with daemon.client() as agent:
                assert all(agent.verify_token(token) for token in created)
                assert not any(agent.verify_token(token) for token in revoked)
            assert daemon.stop() == 0
    assert len(created) > ROUNDS * 10
    assert len(revoked) > ROUNDS
    print(f"{ROUNDS} kills: {len(created)} sessions verify, {len(revoked)} revokes stay")
