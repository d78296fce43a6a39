from __future__ import annotations

import pytest

from agentd_client.errors import LifecycleError, SessionDestroyedError, SessionRunningError
from agentd_client.lifecycle import Lifecycle, LifecycleEvent, State


@pytest.fixture
def life() -> Lifecycle:
    return Lifecycle(running=SessionRunningError, destroyed=SessionDestroyedError)


def test_a_life_begins_stopped(life: Lifecycle) -> None:
    assert life.state is State.STOPPED
    assert not life.is_running


def test_each_change_is_needed_once(life: Lifecycle) -> None:
    for change in (life.starting, life.stopping, life.destroying):
        with change() as needed:
            assert needed
        with change() as needed:
            assert not needed


def test_running_is_required_where_it_is(life: Lifecycle) -> None:
    with pytest.raises(LifecycleError):
        life.require_running()
    with life.starting():
        pass
    life.require_running()
    assert life.is_running


def test_what_does_not_fit_the_state_is_refused_with_the_owners_errors(life: Lifecycle) -> None:
    with life.starting():
        pass
    with pytest.raises(SessionRunningError):
        life.destroying()
    with life.stopping():
        pass
    with life.destroying():
        pass
    with pytest.raises(SessionDestroyedError):
        life.starting()
    with life.stopping() as needed:
        assert not needed


def test_a_change_that_fails_is_not_made_and_not_announced_as_made(life: Lifecycle) -> None:
    seen: list[LifecycleEvent] = []
    life.observe(seen.append)
    with pytest.raises(ZeroDivisionError), life.starting():
        raise ZeroDivisionError
    assert life.state is State.STOPPED
    assert seen == [LifecycleEvent.STARTING]


def test_the_state_changes_between_the_two_events(life: Lifecycle) -> None:
    seen: list[tuple[LifecycleEvent, State]] = []
    life.observe(lambda event: seen.append((event, life.state)))
    with life.starting():
        pass
    assert seen == [(LifecycleEvent.STARTING, State.STOPPED), (LifecycleEvent.STARTED, State.RUNNING)]


def test_an_observer_may_leave_while_it_is_told_and_twice(life: Lifecycle) -> None:
    seen: list[str] = []

    def once(event: LifecycleEvent) -> None:
        seen.append(event.value)
        forget()
        forget()

    forget = life.observe(once)
    life.observe(lambda event: seen.append(f"other {event.value}"))
    with life.starting():
        pass
    assert seen == ["starting", "other starting", "other started"]
