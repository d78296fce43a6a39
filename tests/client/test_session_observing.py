from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from agentd_client import LifecycleEvent, Session
from agentd_client.errors import (
    InvalidTokenError,
    LifecycleError,
)
from agentd_client.lifecycle import State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session-token"


def test_every_change_is_observed_until_the_observer_leaves(path: Path) -> None:
    session, seen = Session(path), list[LifecycleEvent]()
    forget = session.observe(seen.append)
    session.start()
    session.start()
    session.stop()
    session.stop()
    session.destroy()
    session.destroy()
    assert seen == [
        LifecycleEvent.STARTING,
        LifecycleEvent.STARTED,
        LifecycleEvent.STOPPING,
        LifecycleEvent.STOPPED,
        LifecycleEvent.DESTROYING,
        LifecycleEvent.DESTROYED,
    ]
    forget()
    Session(path).start()
    assert len(seen) == 6


def test_a_start_that_fails_is_not_observed_as_started(path: Path) -> None:
    session, seen = Session(path), list[LifecycleEvent]()
    session.observe(seen.append)
    with pytest.raises(InvalidTokenError):
        session.start("")
    assert seen == [LifecycleEvent.STARTING]


def test_an_observer_may_use_the_token_but_not_change_the_life_that_it_observes(path: Path) -> None:
    session = Session(path)
    found: list[str | None] = []

    def uses(event: LifecycleEvent) -> None:
        if event is LifecycleEvent.STARTED:
            session.write_token("observed")
            found.append(session.read_token())

    forget = session.observe(uses)
    session.start()
    assert found == ["observed"]
    forget()
    for change in (session.start, session.stop, session.destroy):
        forget = session.observe(lambda _, change=change: change())  # type: ignore[misc]
        with pytest.raises(LifecycleError, match="an observer cannot"):
            session.stop()
        forget()
    assert session.state is State.RUNNING, "an observer's error ends the change"
    session.stop()


def test_a_change_keeps_every_other_thread_from_changing_or_writing_meanwhile(path: Path) -> None:
    session = Session(path)
    free: list[bool] = []

    def ask(_: LifecycleEvent) -> None:
        asking = threading.Thread(target=lambda: free.append(session._lock.acquire(blocking=False)))
        asking.start()
        asking.join()

    session.observe(ask)
    session.start()
    session.stop()
    session.destroy()
    assert free == [False] * 6


def test_sixteen_threads_that_start_and_stop_make_whole_changes_only(path: Path) -> None:
    session, seen = Session(path), list[LifecycleEvent]()
    session.observe(seen.append)
    go = threading.Barrier(16)

    def changes() -> None:
        go.wait(60)
        session.start()
        session.stop()

    threads = [threading.Thread(target=changes) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turn = [LifecycleEvent.STARTING, LifecycleEvent.STARTED, LifecycleEvent.STOPPING, LifecycleEvent.STOPPED]
    assert seen == turn * (len(seen) // 4)
    assert session.state is State.STOPPED


def test_a_logger_is_told_of_the_life_and_never_of_a_token(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("test.session")
    with caplog.at_level(logging.DEBUG, logger="test.session"):
        session = Session.create_session(path, session_token="secret", logger=logger)
        session.write_token("secret2")
        session.stop()
    assert [record.getMessage() for record in caplog.records] == [
        f"session {path}: {event}" for event in ("starting", "started", "stopping", "stopped")
    ]
    assert "secret" not in repr(session) + repr(vars(session))
