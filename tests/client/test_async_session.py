from __future__ import annotations

import threading
from pathlib import Path

import anyio
import pytest

from agentd_client import LifecycleEvent
from agentd_client.aio import AsyncSession
from agentd_client.errors import SessionDestroyedError, SessionRunningError
from agentd_client.lifecycle import State
from tests.client.flavours import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_async_session_lives_and_keeps_its_token_as_a_blocking_one(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "token"

    async def main() -> None:
        session = await AsyncSession.create_session(path, session_token="initial")
        events: list[LifecycleEvent] = []
        session.observe(events.append)
        assert session.path == str(path)
        assert await session.read_token() == "initial"
        await session.write_token("one")
        assert await session.exchange_token("two") == "one"
        with pytest.raises(SessionRunningError):
            await session.destroy()
        await session.stop()
        await session.start(fresh=True)
        assert await session.read_token() is None
        await session.start("ignored: it runs")
        await session.stop()
        await session.destroy()
        assert session.state is State.DESTROYED
        with pytest.raises(SessionDestroyedError):
            await session.start()
        assert [event.value for event in events] == [
            "stopping", "stopped", "starting", "started", "stopping", "stopped", "destroying", "destroyed",
        ]  # fmt: skip

    anyio.run(main, backend=backend)


def test_leaving_stops_also_in_a_cancelled_task(tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with await AsyncSession.create_session(tmp_path / "token") as session:
                scope.cancel()
        assert session.state is State.STOPPED

    anyio.run(main, backend=backend)


def test_files_are_touched_in_worker_threads(tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        session = await AsyncSession.create_session(tmp_path / "token")
        threads: list[threading.Thread] = []
        session.observe(lambda _: threads.append(threading.current_thread()))
        await session.stop()
        assert threads
        assert threading.main_thread() not in threads

    anyio.run(main, backend=backend)


def test_a_token_to_write_has_the_name_that_it_has_everywhere(tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        session = await AsyncSession.create_session(tmp_path / "token", session_token="first")
        await session.write_token(session_token="second")
        assert await session.exchange_token(session_token="third") == "second"
        await session.write_token("fourth")
        assert await session.read_token() == "fourth"

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("change", ["start", "stop", "destroy"])
def test_a_change_that_is_cancelled_is_made_or_not_made(tmp_path: Path, backend: str, change: str) -> None:
    reached = {"start": State.RUNNING, "stop": State.STOPPED, "destroy": State.DESTROYED}[change]

    async def main() -> None:
        session = await AsyncSession.create_session(tmp_path / "token", session_token="first")
        if change != "stop":
            await session.stop()
        before, told = session.state, list[LifecycleEvent]()
        disk, waiting = threading.Event(), threading.Event()

        def slowly(event: LifecycleEvent) -> None:
            told.append(event)
            if event.value.endswith("ing"):
                waiting.set()
                assert disk.wait(60)

        forget = session.observe(slowly)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await getattr(session, change)()
        assert (session.state, told) == (before, []), "cancelled before it began"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(getattr(session, change))
            await anyio.to_thread.run_sync(waiting.wait)
            tasks.cancel_scope.cancel()  # while the disk takes its time
            disk.set()
        assert session.state is reached
        assert len(told) == 2
        forget()
        await getattr(session, change)()
        assert session.state is reached

    anyio.run(main, backend=backend)
