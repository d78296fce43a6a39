from __future__ import annotations

import sys

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


def test_an_observer_can_refuse_what_is_still_to_be_done(life: Lifecycle) -> None:
    def refuses(_: LifecycleEvent) -> None:
        raise ZeroDivisionError

    life.observe(refuses)
    with pytest.raises(ZeroDivisionError), life.starting():
        raise AssertionError("the change began")
    assert life.state is State.STOPPED


@pytest.mark.parametrize(
    ("change", "event", "state"),
    [
        ("starting", LifecycleEvent.STARTED, State.RUNNING),
        ("stopping", LifecycleEvent.STOPPED, State.STOPPED),
        ("destroying", LifecycleEvent.DESTROYED, State.DESTROYED),
    ],
)
def test_an_observer_that_fails_at_what_is_done_undoes_nothing_and_its_error_is_shown(
    life: Lifecycle,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    event: LifecycleEvent,
    state: State,
) -> None:
    failure, seen = ZeroDivisionError("an observer"), list[LifecycleEvent]()
    shown: list[tuple[object, ...]] = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: shown.append(error))
    if change == "stopping":
        with life.starting():
            pass

    def fails(found: LifecycleEvent) -> None:
        if found is event:
            raise failure

    life.observe(fails)
    life.observe(seen.append)
    with getattr(life, change)():
        pass
    assert life.state is state
    assert seen[-1] is event, "the observers after it are told too"
    assert shown == [(ZeroDivisionError, failure, failure.__traceback__)]


def test_an_interruption_while_observers_are_told_is_passed_on_and_the_state_stands(life: Lifecycle) -> None:
    def interrupted(event: LifecycleEvent) -> None:
        if event is LifecycleEvent.STARTED:
            raise KeyboardInterrupt

    life.observe(interrupted)
    with pytest.raises(KeyboardInterrupt), life.starting():
        pass
    assert life.is_running
