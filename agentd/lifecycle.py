"""The life of an object of the core: a `Lifecycle` that belongs to one trio event loop while it runs.

Nothing in the core may be used from two event loops: a task that is woken from the wrong thread ends its
loop with an internal error of trio's, and one that waits for a loop that has ended waits for ever. So an
object belongs to the loop that started it, until it is stopped, and refuses every other with
`WrongLoopError`. Where that loop has ended without stopping it, it can still be stopped: from another one.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import get_ident

import trio
from trio.lowlevel import RunVar

from agentd_client.errors import AgentdError, LifecycleError, WrongLoopError
from agentd_client.lifecycle import Lifecycle, Observer, State


class EventLoop:
    """One run of trio. `thread` is the number of its thread, and None once it has ended.

    To compare that number with the calling thread's is the cheapest way to know whether one is at home: a
    thread runs one loop at a time. Make it with `here`, which makes one for each run.
    """

    def __init__(self, token: trio.lowlevel.TrioToken | None) -> None:
        self._token = token
        self.thread = None if token is None else get_ident()

    @classmethod
    def here(cls) -> EventLoop:
        """The loop that the calling task runs on; `WrongLoopError` where there is none."""
        if not trio.lowlevel.in_trio_task():
            raise WrongLoopError("this needs a trio event loop; call it from a task of `trio.run`")
        try:
            return _here.get()
        except LookupError:
            loop = cls(trio.lowlevel.current_trio_token())
            _here.set(loop)
            trio.lowlevel.spawn_system_task(loop._until_its_end)  # cancelled once the main task has ended
            return loop

    @property
    def has_ended(self) -> bool:
        """Whether no task of it runs any more."""
        if self.thread is not None and self._token is not None:
            try:
                self._token.run_sync_soon(_nothing, idempotent=True)
            except trio.RunFinishedError:  # after an internal error of trio's its system tasks never end
                self.thread = None
        return self.thread is None

    def require(self, name: str) -> None:
        """Raise `WrongLoopError` unless the calling thread is this loop's; `name` is what is asked for."""
        if get_ident() == self.thread:
            return
        if self.has_ended:
            raise WrongLoopError(
                f"{name} belongs to an event loop that has ended; stop it, then start it again"
            )
        raise WrongLoopError(f"{name} belongs to the event loop of another thread; use it there")

    async def _until_its_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.thread = None


NOWHERE = EventLoop(None)
"""No loop: that of whatever does not run."""

_here: RunVar[EventLoop] = RunVar("agentd_event_loop")


class _Home:
    """The loop that an object belongs to, and those of its tasks that change the object: one at a time."""

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.turns = trio.Lock()
        self.changing = 0


class LoopLifecycle(Lifecycle):
    """A `Lifecycle` whose changes are made by tasks of one event loop, one after the other, each as a whole.

    A cancellation comes before a change or after it, never into it::

        async with self._lifecycle.start() as needed:
            if needed:
                ...   # what is begun and then fails, or is cancelled, is undone here

        async with self._lifecycle.stop() as needed:
            if needed:
                ...   # shielded, so every wait in it has to end by itself; lets go of everything

    Args:
        name: of the object, for people: "the store".
        running, destroyed, not_running: see `Lifecycle`.
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
        self._guard = threading.Lock()  # for whoever comes from another thread; held for a moment
        self._home: _Home | None = None
        self._running_on = NOWHERE
        self._given_up: AgentdError | None = None

    def require_running(self) -> None:
        """Raise the owner's not-running error unless it is running, and `WrongLoopError` anywhere else."""
        # Part of every verification: one comparison answers both questions.
        if get_ident() != self._running_on.thread:
            raise self._refusal()

    def require_home(self) -> None:
        """Raise `WrongLoopError` where it belongs to another loop; running or not."""
        home = self._home
        if home is not None and (self.is_running or not home.loop.has_ended):
            home.loop.require(self._name)

    def give_up(self, error: AgentdError) -> None:
        """Let `require_running` refuse with `error` until it is stopped: what it rests on is gone."""
        if self.is_running:
            self._given_up, self._running_on = error, NOWHERE

    def observe(self, observer: Observer) -> Callable[[], None]:
        """See `Lifecycle.observe`; observers are called on the event loop that makes the change."""
        self.require_home()
        return super().observe(observer)

    @asynccontextmanager
    async def start(self) -> AsyncIterator[bool]:
        """Wrap a start; see `Lifecycle.starting`."""
        async with self._turn():
            with self.starting() as needed:
                yield needed

    @asynccontextmanager
    async def stop(self) -> AsyncIterator[bool]:
        """Wrap a stop; see `Lifecycle.stopping`. It works from another loop where its own has ended."""
        async with self._turn(is_stop=True):
            with self.stopping() as needed:
                yield needed

    @asynccontextmanager
    async def destroy(self) -> AsyncIterator[bool]:
        """Wrap a destroy, which goes on where an interrupted one stopped; see `Lifecycle.destroying`."""
        async with self._turn():
            with self.destroying() as needed:
                yield needed

    def _reach(self, state: State) -> None:
        super()._reach(state)
        is_running = state is State.RUNNING and self._home is not None
        self._running_on = self._home.loop if is_running and self._home is not None else NOWHERE
        self._given_up = None

    def _refusal(self) -> AgentdError:
        if not self.is_running:
            return self._not_running_error()
        if self._given_up is not None:
            # A new one each time: the same exception would collect the traceback of every caller.
            return type(self._given_up)(self._given_up.sentence)
        try:
            self._running_on.require(self._name)
        except WrongLoopError as error:
            return error
        return self._not_running_error()  # pragma: no cover - stopped by its own thread this very moment

    @asynccontextmanager
    async def _turn(self, *, is_stop: bool = False) -> AsyncIterator[None]:
        home = self._enter(EventLoop.here(), is_stop)
        try:
            # A stop is shielded as a whole: cancelled tasks, too, want what they leave behind to be stopped.
            with trio.CancelScope(shield=is_stop):
                async with home.turns:
                    yield
        finally:
            self._leave(home)

    def _enter(self, here: EventLoop, is_stop: bool) -> _Home:
        with self._guard:
            home = self._home
            if home is None or home.loop is not here:
                if home is not None and not (home.loop.has_ended and (is_stop or not self.is_running)):
                    home.loop.require(self._name)
                # No task of an earlier loop is left, so nobody has a turn.
                home = self._home = _Home(here)
            home.changing += 1
            return home

    def _leave(self, home: _Home) -> None:
        with self._guard:
            home.changing -= 1
            if self._home is home and not home.changing and not self.is_running:
                self._home = None  # whoever starts it next


def _nothing() -> None:
    pass
