from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trio

from agentd.approval import FREE_FOR_ALL, Asker, Policy, RequestDesk
from agentd.process_identity import identify
from agentd_client.protocol.results import OWNERS_SOCKET, PeerIdentity
from tests.children import child
from tests.sessions.conftest import clock, db, key_ring, manager  # noqa: F401 - fixtures

PERSON = PeerIdentity(os.geteuid(), os.getppid(), "/usr/bin/agentctl", "terminal.scope")


@pytest.fixture
def start_asker() -> Iterator[Callable[..., Asker]]:
    """Starts a process that can ask; `kill` of what it returns ends it."""
    with ExitStack() as stack:

        def start(socket: str = OWNERS_SOCKET, exe: str = "[an interpreter's script]") -> Asker:
            process = stack.enter_context(child())
            found = identify(process.pid)
            assert found is not None
            asker = Asker(PeerIdentity(os.geteuid(), process.pid, exe), found, socket)
            kills[asker.process] = process
            return asker

        kills: dict[object, object] = {}
        start.kills = kills
        yield start


@pytest.fixture
def asker(start_asker) -> Asker:
    return start_asker()


@pytest.fixture
def policy() -> Policy:
    return FREE_FOR_ALL


@pytest.fixture
async def desk(manager, policy, clock):  # noqa: F811
    """A desk whose standing tasks run, as the manager's do."""
    async with RequestDesk(manager, policy, clock) as desk, trio.open_nursery() as nursery:
        await nursery.start(manager.run)
        await nursery.start(desk.run)
        yield desk
        nursery.cancel_scope.cancel()
