"""A `Lifecycle` that belongs to one trio event loop while it runs: that of key ring, store and manager.

None of these may be used from two event loops. Waking a task from another thread ends its loop with an
internal error of trio's, and a task that waits for a loop that has ended waits for ever. So an object belongs
to the loop that started it until it is stopped, and any other gets `WrongLoopError`. If that loop ends
without stopping the object, any other loop can stop it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from threading import get_ident
from typing import Self

import trio
from trio.lowlevel import RunVar

from agentd_client.errors import AgentdError, LifecycleError, WrongLoopError
from agentd_client.lifecycle import Lifecycle, Observer, State


class EventLoop:
    """One run of trio; `here` returns that of the caller.

    `thread` is the id of its thread, and None once it has ended. A thread runs one loop at a time, so
    comparing the id with the calling thread's is the cheapest check.
    """

    def __init__(self, token: trio.lowlevel.TrioToken | None) -> None:
        self._token = token
        self.thread = None if token is None else get_ident()

    @classmethod
    def here(cls) -> EventLoop:
        """The loop that the calling task runs on; `WrongLoopError` without one."""
        if not trio.lowlevel.in_trio_task():
            raise WrongLoopError("this needs a trio event loop; call it from a task in `trio.run`")
        try:
            return _here.get()
        except LookupError:
            loop = cls(trio.lowlevel.current_trio_token())
            _here.set(loop)
            trio.lowlevel.spawn_system_task(loop._watch_end)  # cancelled once the main task has ended
            return loop

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more tasks."""
        if self.thread is not None and self._token is not None:
            try:
                self._token.run_sync_soon(_nothing, idempotent=True)
            except trio.RunFinishedError:  # after an internal error of trio's its system tasks never end
                self.thread = None
        return self.thread is None

    def require(self, name: str) -> None:
        """Raise `WrongLoopError` unless the calling thread is this loop's; `name` is the object used."""
        if get_ident() == self.thread:
            return
        if self.has_ended:
            raise WrongLoopError(
                f"{name} belongs to an event loop that has ended; stop it, then start it again"
            )
        raise WrongLoopError(f"{name} belongs to the event loop of another thread; use it there")

    async def _watch_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.thread = None


NOWHERE = EventLoop(None)
"""No loop: that of an object that does not run."""

_here: RunVar[EventLoop] = RunVar("agentd_event_loop")


class _Home:
    """The loop that an object belongs to; tasks that start, stop or destroy the object take turns."""

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.turns = trio.Lock()
        self.changing = 0


class LoopLifecycle(Lifecycle):
    """A `Lifecycle` that is changed by tasks of one event loop, one at a time and atomically.

    A cancellation takes effect before or after a change::

        async with self._lifecycle.start() as needed:
            if needed:
                ...   # undoes what it began if it fails or is cancelled

        async with self._lifecycle.stop() as needed:
            if needed:
                ...   # shielded, so every wait needs a deadline; releases everything

    `name` is that of the object in errors: "the store".
    """

    def __init__(
        self,
        name: str,
        *,
        running: type[LifecycleError],
        destroyed: type[LifecycleError],
        not_running: type[LifecycleError],
    ) -> None:
        super().__init__(running=running, destroyed=destroyed, not_running=not_running)
        self._name = name
        self._guard = threading.Lock()  # other threads may call; never held across a wait
        self._home: _Home | None = None
        self._running_on = NOWHERE
        self._failure: AgentdError | None = None

    def require_running(self) -> None:
        """Raise the owner's not-running error unless it runs, and `WrongLoopError` on any other loop."""
        # Every verification calls this: one comparison answers both questions.
        if get_ident() != self._running_on.thread:
            raise self._usage_error()

    def require_home(self) -> None:
        """Raise `WrongLoopError` if it belongs to another loop, running or not."""
        home = self._home
        if home is not None and (self.is_running or not home.loop.has_ended):
            home.loop.require(self._name)

    def fail_with(self, error: AgentdError) -> None:
        """Have `require_running` raise `error` until it is stopped: something that it needs has failed."""
        if self.is_running:
            self._failure, self._running_on = error, NOWHERE

    def observe(self, observer: Observer) -> Callable[[], None]:
        """See `Lifecycle.observe`; observers run on the event loop that makes the change."""
        self.require_home()
        return super().observe(observer)

    def start(self) -> AbstractAsyncContextManager[bool]:
        """Wrap a start; see `Lifecycle.starting`."""
        return self._in_turn(self.starting)

    def stop(self) -> AbstractAsyncContextManager[bool]:
        """Wrap a stop; see `Lifecycle.stopping`. Any loop can do it if the object's own has ended."""
        return self._in_turn(self.stopping, is_stop=True)

    def destroy(self) -> AbstractAsyncContextManager[bool]:
        """Wrap a destroy, which continues an interrupted one; see `Lifecycle.destroying`."""
        return self._in_turn(self.destroying)

    def _reach(self, state: State) -> None:
        super()._reach(state)
        home = self._home
        self._running_on = home.loop if state is State.RUNNING and home is not None else NOWHERE
        self._failure = None

    def _usage_error(self) -> AgentdError:
        if not self.is_running:
            return self._not_running_error()
        if self._failure is not None:
            # A new one each time: one exception would collect the tracebacks of all callers.
            return type(self._failure)(self._failure.sentence)
        try:
            self._running_on.require(self._name)
        except WrongLoopError as error:
            return error
        return self._not_running_error()  # pragma: no cover - its thread has just stopped it

    @asynccontextmanager
    async def _in_turn(
        self, change: Callable[[], AbstractContextManager[bool]], *, is_stop: bool = False
    ) -> AsyncIterator[bool]:
        here = EventLoop.here()
        with self._guard:
            home = self._home
            if home is None or home.loop is not here:
                if home is not None and not (home.loop.has_ended and (is_stop or not self.is_running)):
                    home.loop.require(self._name)
                # No task of an earlier loop is left, so none has a turn.
                home = self._home = _Home(here)
            home.changing += 1
        try:
            # A stop is shielded: a task that is being cancelled stops what it leaves behind.
            with trio.CancelScope(shield=is_stop):
                async with home.turns:
                    with change() as needed:
                        yield needed
        finally:
            with self._guard:
                home.changing -= 1
                if self._home is home and not home.changing and not self.is_running:
                    self._home = None  # any loop may start it next


def _nothing() -> None:
    pass


class Component(ABC):
    """A part of the core with a life cycle. Leaving it as a context manager stops it, never destroys it."""

    _lifecycle: LoopLifecycle

    @abstractmethod
    async def stop(self) -> None:
        """Stop it; a no-op if it is stopped."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def state(self) -> State:
        """Stopped, running or destroyed."""
        return self._lifecycle.state

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Subscribe to life-cycle events; returns the function that unsubscribes."""
        return self._lifecycle.observe(observer)
