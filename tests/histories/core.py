"""Histories of the session manager in this process: tasks, the writing thread, and a clock that is set by hand."""

from __future__ import annotations

import random
import tempfile

import trio

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client.errors import AgentdError
from agentd_client.protocol.results import Verification
from tests.clocks import ManualClock
from tests.histories.draw import History
from tests.histories.model import DONE, Judged, Operation, State
from tests.histories.search import unexplained

CLIENTS = 5
EACH = 3
PHASES = 4
"""Between them the clock goes on: it goes in leaps, and no operation of a real agent takes 30 seconds."""


def judged(answer: Verification) -> Judged:
    """An answer as the model gives it."""
    if answer.reason is not None:
        return Judged(answer.reason)
    assert answer.session is not None
    return Judged(None, answer.session.generation, answer.session.uses_left)


class Core:
    """Carries out the operations of a history."""

    def __init__(self, manager: SessionManager, clock: ManualClock, history: History) -> None:
        self._manager = manager
        self._clock = clock
        self._history = history

    async def client(self) -> None:
        for _ in range(EACH):
            for _ in range(self._history.draw.randrange(3)):
                await trio.lowlevel.checkpoint()
            await self.carry_out(self._history.begin())

    async def carry_out(self, operation: Operation) -> None:
        made = None
        try:
            answer = await getattr(self, "_" + operation.kind)(operation)
        except AgentdError as error:
            answer = error.code
        else:
            if operation.kind in ("create", "renew"):
                answer, made = DONE, (answer.token, answer.id)
        self._history.answered(operation, answer, made)

    def _token(self, operation: Operation) -> str | None:
        return None if operation.subject is None else self._history.tokens[operation.subject]

    async def _verify(self, operation: Operation) -> Judged:
        answer = self._manager.verify_nowait(self._token(operation))
        if answer is None:
            answer = await self._manager.verify_and_consume(self._token(operation))
        return judged(answer)

    async def _inspect(self, operation: Operation) -> Judged:
        return judged(self._manager.inspect(self._token(operation)))

    async def _look(self, operation: Operation) -> Judged:
        return judged(self._manager.inspect(id=self._history.ids[operation.subject]))

    async def _create(self, operation: Operation) -> object:
        lasts = "never" if operation.lasts is None else operation.lasts
        return await self._manager.open_session(lasts, max_uses=operation.uses, parent=self._token(operation))

    async def _renew(self, operation: Operation) -> object:
        return await self._manager.renew_token(self._token(operation))

    async def _revoke(self, operation: Operation) -> bool:
        return await self._manager.revoke_token(self._token(operation))

    async def _end(self, operation: Operation) -> bool:
        return await self._manager.revoke_token(id=self._history.ids[operation.subject])

    async def _reset(self, operation: Operation) -> str:
        await self._manager.reset_key(grace_seconds=operation.lasts)
        return DONE

    async def _advance(self, operation: Operation) -> str:
        self._clock.advance(operation.lasts)
        return DONE

    async def _tidy(self, operation: Operation) -> str:
        await self._manager.sweep()
        return DONE


async def _check(seeds: range) -> list[str]:
    clock, faults = ManualClock(), []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            await KeyRing.create_key_ring(keys_path=f"{folder}/keys") as key_ring,
            await DB.create_db(db_path=f"{folder}/store", key_ring=key_ring) as db,
            await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager,
        ):
            for seed in seeds:
                start = State(clock.wall)
                history = History(random.Random(seed), timed=True)
                core = Core(manager, clock, history)
                for _ in range(PHASES):
                    async with trio.open_nursery() as clients:
                        for _ in range(CLIENTS):
                            clients.start_soon(core.client)
                    await core.carry_out(history.begin("advance"))
                for token in list(history.tokens):
                    await core.carry_out(history.begin("inspect", token))
                if fault := unexplained(history.operations, start):
                    faults.append(f"seed {seed}: {fault}")
    return faults


def check(seeds: range) -> list[str]:
    """Record and check a history for each seed; what is wrong, in words."""
    return trio.run(_check, seeds)
