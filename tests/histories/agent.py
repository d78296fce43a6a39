"""Histories of a real agent: clients in threads, over its socket; it may be killed in the middle and started again."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from agentd.sessions.rules import OVERLAP_SECONDS
from agentd_client import Client
from agentd_client.errors import AgentdError, AgentTimeoutError, AgentUnreachableError, OutcomeUnknownError
from tests.e2e.daemon import START_SECONDS, Daemon, Home, scratch_home
from tests.histories.core import judged
from tests.histories.draw import History
from tests.histories.model import DONE, Operation, State
from tests.histories.promises import Promises
from tests.histories.search import unexplained

CLIENTS = 4
EACH = 8
_LOST = (AgentUnreachableError, AgentTimeoutError, OutcomeUnknownError)


class Outcome(NamedTuple):
    """What was recorded: operations, answers that were lost, promises that were kept or broken, faults in words."""

    operations: int
    lost: int
    promises: Promises
    faults: list[str]


class Caller(threading.Thread):
    """One client of a history; ends when it has done its share, or its agent is gone."""

    def __init__(self, agent: Client, history: History, count: int, answered: threading.Semaphore) -> None:
        super().__init__()
        self._agent, self._history, self._count, self._answered = agent, history, count, answered
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self._count):
                with _DRAWING:
                    operation = self._history.begin()
                if not carry_out(self._agent, self._history, operation):
                    return
                self._answered.release()
        except BaseException as error:
            self.failure = error
        finally:
            self._answered.release(
                self._count
            )  # whoever counts the answers need not wait for this one any more


_DRAWING = threading.Lock()


def carry_out(agent: Client, history: History, operation: Operation) -> bool:
    """Carry out one operation; whether it was answered."""
    made = None
    try:
        answer = METHODS[operation.kind](agent, history, operation)
    except _LOST:
        return False
    except AgentdError as error:
        answer = error.code
    else:
        if operation.kind in ("create", "renew"):
            answer, made = DONE, (answer.token, answer.id)
    with _DRAWING:
        history.answered(operation, answer, made)
    return True


def _create(agent: Client, history: History, operation: Operation) -> object:
    parent = None if operation.subject is None else history.tokens[operation.subject]
    return agent.create_token("never", max_uses=operation.uses, parent=parent)


def _reset(agent: Client, history: History, operation: Operation) -> str:
    agent.reset_key(operation.lasts)
    return DONE


METHODS: dict[str, Callable[[Client, History, Operation], object]] = {
    "create": _create,
    "reset": _reset,
    "verify": lambda agent, history, op: judged(agent.check_token(history.tokens[op.subject])),
    "inspect": lambda agent, history, op: judged(agent.inspect_token(history.tokens[op.subject])),
    "look": lambda agent, history, op: judged(agent.inspect_token(id=history.ids[op.subject])),
    "renew": lambda agent, history, op: agent.renew_token(history.tokens[op.subject]),
    "revoke": lambda agent, history, op: agent.revoke_token(history.tokens[op.subject]),
    "end": lambda agent, history, op: agent.revoke_token(id=history.ids[op.subject]),
}


def _live(daemon: Daemon, history: History, kill_after: int | None) -> None:
    """Let the clients do their share; kill the agent after so many answers."""
    answered = threading.Semaphore(0)
    with Client.connect(str(daemon.home.socket), START_SECONDS, patience=0) as agent:
        callers = [Caller(agent, history, EACH, answered) for _ in range(CLIENTS)]
        for caller in callers:
            caller.start()
        if kill_after is not None:
            for _ in range(kill_after):
                assert answered.acquire(timeout=START_SECONDS)
            daemon.signal(signal.SIGKILL)
        for caller in callers:
            caller.join()
    history.lost()
    for caller in callers:
        if caller.failure is not None:
            raise caller.failure


def _record(home: Home, daemon: Daemon, seed: int, kills: int) -> tuple[Daemon, History, float]:
    begun = time.monotonic()
    draw = random.Random(seed)
    history = History(draw)
    for _ in range(kills):
        _live(daemon, history, draw.randrange(2, CLIENTS * EACH))
        daemon = home.start().ready()
    if not kills:
        _live(daemon, history, None)
    with daemon.client() as agent:
        # By the newest tokens last: seeing one begins the end of the one before.
        for token in sorted(history.tokens):
            carry_out(agent, history, history.begin("inspect", token))
    return daemon, history, time.monotonic() - begun


def check(seeds: range, kills: int = 0) -> Outcome:
    """Record and check a history for each seed, in each of which the agent is killed so many times."""
    operations, lost, promises, faults = 0, 0, Promises(), []
    with scratch_home() as home:
        daemon = home.start().ready()
        try:
            for seed in seeds:
                daemon, history, seconds = _record(home, daemon, seed, kills)
                start = State(0.0, overlap_is_known=seconds < OVERLAP_SECONDS)
                if fault := unexplained(history.operations, start):
                    faults.append(f"seed {seed}: {fault}")
                promises.count(history)
                operations += len(history.operations)
                lost += sum(operation.answer is None for operation in history.operations)
        finally:
            daemon.stop()
        if "Traceback" in daemon.log.read_text():
            faults.append(daemon.log.read_text()[-2000:])
    return Outcome(operations, lost, promises, faults)
