"""Created, running, stopped, destroyed: the states and events that every long-lived object shares. Pure.

The owner serialises its calls with a lock of its own kind and wraps each change of state::

    with self._lifecycle.starting() as needed:
        if needed:
            ...   # an exception leaves the state as it was, and no "-ed" event is sent

After a stop the object is stopped, even if its body raised. An observer's exception at an "-ing" event ends
the change. At an "-ed" event, which cannot be undone, it goes to `sys.excepthook`, as those of
`weakref.finalize` do: no caller expects it, and it must not be lost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from enum import Enum

from .errors import LifecycleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    _Change = AbstractContextManager[bool]


class State(Enum):
    """The state of an object."""

    STOPPED = "stopped"
    RUNNING = "running"
    DESTROYED = "destroyed"


class LifecycleEvent(Enum):
    """What observers are called with; the "-ed" ones only after success."""

    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


Observer = Callable[[LifecycleEvent], None]


class Lifecycle:
    """One object's state and its observers.

    The three error classes are what `destroy` while running, `start` after `destroy`, and use while not
    running raise.
    """

    def __init__(
        self,
        *,
        running: type[LifecycleError],
        destroyed: type[LifecycleError],
        not_running: type[LifecycleError] | None = None,
    ) -> None:
        self._state = State.STOPPED
        self._observers: list[Observer] = []
        self._running_error = running
        self._destroyed_error = destroyed
        self._not_running_error = not_running or LifecycleError

    @property
    def state(self) -> State:
        """The state after the last change that succeeded."""
        return self._state

    @property
    def is_running(self) -> bool:
        """Whether the object is running now."""
        return self._state is State.RUNNING

    def require_running(self) -> None:
        """Raise the owner's not-running error unless it is running."""
        if self._state is not State.RUNNING:
            raise self._not_running_error

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` at every event from now on; returns the function that ends this.

        The top of this module says what happens if it raises.
        """
        self._observers.append(observer)

        def forget() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return forget

    def starting(self) -> _Change:
        """Wrap a start; yields False if it is running already."""
        if self._state is State.DESTROYED:
            raise self._destroyed_error
        return self._change(State.RUNNING, LifecycleEvent.STARTING, LifecycleEvent.STARTED)

    def stopping(self) -> _Change:
        """Wrap a stop; yields False if it is not running."""
        to = State.DESTROYED if self._state is State.DESTROYED else State.STOPPED
        return self._change(to, LifecycleEvent.STOPPING, LifecycleEvent.STOPPED, always=True)

    def destroying(self) -> _Change:
        """Wrap a destroy; yields False if it is destroyed already."""
        if self._state is State.RUNNING:
            raise self._running_error
        return self._change(State.DESTROYED, LifecycleEvent.DESTROYING, LifecycleEvent.DESTROYED)

    @contextmanager
    def _change(
        self, to: State, before: LifecycleEvent, after: LifecycleEvent, *, always: bool = False
    ) -> Iterator[bool]:
        if self._state is to:
            yield False
            return
        for observer in tuple(self._observers):
            observer(before)
        try:
            yield True
        except BaseException:
            if always:
                self._finish(to, after)
            raise
        self._finish(to, after)

    def _finish(self, state: State, event: LifecycleEvent) -> None:
        self._reach(state)
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)

    def _reach(self, state: State) -> None:
        # The agent's own objects do more here.
        self._state = state
