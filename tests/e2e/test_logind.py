"""A real agent on a private system bus with a stand-in for logind."""

from __future__ import annotations

import pytest
import trio

from agentd_client.aio import AsyncClient
from tests.e2e.daemon import START_SECONDS, serving
from tests.e2e.locked import PASSPHRASE, protect
from tests.keys.scanning import scan
from tests.locking.stand_in import private_bus, what_is_missing


@pytest.fixture
async def logind(monkeypatch):
    if (missing := what_is_missing()) is not None:
        pytest.skip(missing)
    with private_bus() as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        await bus.start_logind()
        async with bus.control() as control:
            yield control


async def test_the_keys_are_gone_before_the_machine_sleeps_and_when_the_screen_is_locked(home, logind):
    keys = await trio.to_thread.run_sync(protect, home)
    session = await logind.add_session(0)
    with serving(home) as daemon:
        async with await AsyncClient.connect(str(home.socket), timeout=START_SECONDS) as agent:

            async def unlock() -> None:
                await agent.unlock(PASSPHRASE)
                await agent.create_token()

            await unlock()
            await logind.until(logind.is_held)
            await logind.prepare_for_sleep(True)
            await logind.until(logind.is_free)
            assert not any(found.copies for found in scan(daemon.process.pid, keys).values())
            assert (await agent.get_status()).lock_reason == "suspend"

            await logind.prepare_for_sleep(False)
            await logind.until(logind.is_held)
            await unlock()
            await logind.lock_session(session)

            async def is_locked() -> bool:
                return (await agent.get_status()).locked

            await logind.until(is_locked)
            assert (await agent.get_status()).lock_reason == "screen lock"
            assert not any(found.copies for found in scan(daemon.process.pid, keys).values())


async def test_an_agent_without_a_passphrase_keeps_no_machine_from_sleeping(home, logind):
    with serving(home):
        async with await AsyncClient.connect(str(home.socket), timeout=START_SECONDS) as agent:
            await agent.get_status()
            assert await logind.is_free()
            await agent.change_passphrase(None, PASSPHRASE)
            await logind.until(logind.is_held)
            await agent.change_passphrase(PASSPHRASE, None)
            await logind.until(logind.is_free)
