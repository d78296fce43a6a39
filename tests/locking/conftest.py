from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.locking.stand_in import private_bus, what_is_missing


class Locker:
    """Stands for an agent: records the reasons for locking, and calls a function of the test while it locks."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.finished: list[str] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        if self.meanwhile is not None:
            await self.meanwhile()
        self.finished.append(reason)


@pytest.fixture
def lock():
    return Locker()


@pytest.fixture
def logger(caplog):
    caplog.set_level(logging.DEBUG, logger="agentd")
    logger = logging.getLogger("agentd.locking")
    propagate, logging.getLogger("agentd").propagate = logging.getLogger("agentd").propagate, True
    yield logger
    logging.getLogger("agentd").propagate = propagate


@pytest.fixture(scope="session")
def missing():
    return what_is_missing()


@pytest.fixture
def bus(missing, monkeypatch):
    """A private system bus without logind."""
    if missing is not None:
        pytest.skip(missing)
    with private_bus() as stand_in:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", stand_in.address)
        yield stand_in


@pytest.fixture(scope="session")
def shared_bus(missing):
    """A system bus with a fake logind, for tests that stop neither."""
    if missing is not None:
        pytest.skip(missing)
    with private_bus() as stand_in:
        trio.run(stand_in.start_logind)
        yield stand_in


@pytest.fixture
async def control(shared_bus, monkeypatch):
    """The fake logind, without inhibitors, and a connection to control it."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", shared_bus.address)
    async with shared_bus.control() as control:
        await control.until(control.is_free)
        yield control
