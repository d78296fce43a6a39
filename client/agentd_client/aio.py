"""Async versions of `Client` and `Session`, for trio and asyncio by way of anyio (the extra `async`).

They share everything with the blocking ones except the waiting. File work is done in worker threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial, wraps
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync

from .asking import WITHDRAWAL_SECONDS, asked_for
from .blocking import Client
from .errors import AgentdError
from .protocol.methods import SUBSCRIBE
from .session import Session
from .token_file.renewal import check
from .transport.events import open_feed
from .transport.pool import ClientBase
from .transport.repeating import carry_out, connect

if TYPE_CHECKING:
    from .lifecycle import Observer, State
    from .protocol.exchange import Answer
    from .protocol.methods import Call
    from .protocol.results import Event, GrantedToken, RequestedToken, Verification
    from .session import Logger
    from .token_file.renewal import Steps as RenewalSteps
    from .transport.connection import Connection, Steps, Wait
    from .transport.events import Feed

P = ParamSpec("P")
T = TypeVar("T")

GLANCE_MILLISECONDS = 1
"""An agent answers in a tenth of it. Waiting for that in the event loop takes longer than the answer."""

GLANCE_PAUSE_SECONDS = 0.1
"""After an answer that took longer. So no more than a hundredth of the time passes without other tasks."""


def _awaited(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """A method of `Client` for `AsyncClient`, whose `_carry_out` returns a coroutine."""

    @wraps(method)
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: Any = cast("Any", method)(self, *args, **kwargs)
        if iscoroutine(answer):
            answer = await answer
        else:  # known without asking the agent
            await checkpoint()
        return cast("T", answer)

    return call


def _in_thread(
    method: Callable[Concatenate[Session, P], T],
) -> Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, T]]:
    """A method of `Session` for `AsyncSession`."""

    @wraps(method)
    async def call(self: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_sync(partial(method, self._session, *args, **kwargs))

    return call


class AsyncClient(ClientBase):
    """The agent, for async code. All tasks of one event loop may share one client.

    The methods, their arguments and their errors are those of `Client`. Each is a checkpoint. A cancelled
    call closes its own connection only; the agent may still carry it out.
    """

    _glance_again_at = 0.0

    @classmethod
    async def connect(
        cls,
        socket_path: str | os.PathLike[str] | None = None,
        timeout: float = 5.0,
        *,
        patience: float | None = None,
        agent_uid: int | None = None,
    ) -> Self:
        """See `Client.connect`; used as ``async with await AsyncClient.connect() as agent:``."""
        await checkpoint()
        client = cls(socket_path, timeout, patience, agent_uid)
        pool = client._pools.here()
        pool.give_back(await run(connect(pool, client._attempts(None))))
        return client

    async def close(self) -> None:
        """Close the connections. Calls in progress in other tasks finish; new ones are refused."""
        self._pools.close()
        await checkpoint()

    hello = _awaited(Client.hello)
    get_status = _awaited(Client.get_status)
    create_token = _awaited(Client.create_token)
    list_requests = _awaited(Client.list_requests)
    decide_request = _awaited(Client.decide_request)
    withdraw_request = _awaited(Client.withdraw_request)
    verify_token = _awaited(Client.verify_token)
    check_token = _awaited(Client.check_token)
    judge_token = _awaited(Client.judge_token)
    inspect_token = _awaited(Client.inspect_token)
    renew_token = _awaited(Client.renew_token)
    list_sessions = _awaited(Client.list_sessions)
    revoke_sessions = _awaited(Client.revoke_sessions)
    list_audit = _awaited(Client.list_audit)
    revoke_token = _awaited(Client.revoke_token)
    reset_key = _awaited(Client.reset_key)
    lock = _awaited(Client.lock)
    unlock = _awaited(Client.unlock)
    change_passphrase = _awaited(Client.change_passphrase)

    async def check_session(
        self,
        session: AsyncSession,
        *,
        audience: str | None = None,
        scopes: Sequence[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Verification:
        """See `Client.check_session`. File work is done in worker threads."""
        return await follow(check(session._session, audience, scopes, clock), self._carry_out)

    async def request_token(
        self,
        expiry: int | str | None = None,
        label: str | None = None,
        *,
        audience: Sequence[str] | None = None,
        scopes: Sequence[str] | None = None,
        max_uses: int | None = None,
        reason: str | None = None,
        parent: str | None = None,
        bound: bool = False,
        wait: float | None = None,
        on_waiting: Callable[[RequestedToken], None] | None = None,
    ) -> GrantedToken:
        """See `Client.request_token`. Cancelled, it withdraws the request."""
        asked = asked_for(
            expiry, label, audience, scopes, max_uses, reason, parent, bound, wait, self._timeout, on_waiting
        )
        try:
            return await follow(asked.steps(), self._carry_out)
        except BaseException:
            if asked.withdrawal is not None:
                # Shielded for a second at most: nobody is to be asked in vain.
                with anyio.CancelScope(shield=True), suppress(AgentdError):
                    await self._carry_out(asked.withdrawal, WITHDRAWAL_SECONDS)
            raise

    async def subscribe(self) -> AsyncEvents:
        """See `Client.subscribe`; used as ``async with await agent.subscribe() as events: async for ...``."""
        self._pools.here()
        return AsyncEvents(
            await run(open_feed(self.socket_path, self._attempts(SUBSCRIBE), self._pools.agent_uid))
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pools.close()  # no checkpoint: closing is immediate, also in a cancelled task

    async def _carry_out(self, call: Call[T], seconds: float | None = None, *, glance: bool = False) -> T:
        # As `Client._carry_out`. With `glance` it lets no other task run if the answer comes at once.
        pool = self._pools.here()
        timeout = self._timeout if seconds is None else min(self._timeout, seconds)
        began = time.monotonic()
        answer: Answer[T] | None = None
        connection = pool.take_idle()
        if connection is not None:
            try:
                if connection.send_at_once(call):
                    if glance and self._glanced_at(connection, began):
                        answer = connection.receive_at_once(call)
                    else:
                        with anyio.move_on_after(timeout):
                            await anyio.wait_readable(connection)
                            answer = connection.receive_at_once(call)
            except BaseException:  # cancelled: the next call must not get a late answer
                pool.drop(connection)
                raise
            if answer is not None and answer.error is None:
                pool.give_back(connection)
                return answer.unwrap()
        attempts = self._attempts(call.method, timeout, began)
        return await run(carry_out(pool, call, attempts, connection, answer))

    def _glanced_at(self, connection: Connection, now: float) -> bool:
        if now < self._glance_again_at:
            return False
        if connection.wait(GLANCE_MILLISECONDS):
            return True
        self._glance_again_at = now + GLANCE_PAUSE_SECONDS
        return False


class AsyncSession:
    """A `Session` that works in worker threads, so that a slow disk does not block the event loop.

    The methods, their arguments and their errors are those of `Session`. A change of the file is not
    cancelled once it has begun: a cancelled task waits for it, at most five seconds for the lock. Observers
    run in the worker threads.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @classmethod
    async def create_session(
        cls,
        session_token_path: str | os.PathLike[str] | None = None,
        session_token: str | None = None,
        fresh: bool = False,
        logger: Logger | None = None,
    ) -> Self:
        """See `Session.create_session`."""
        return cls(await run_sync(Session.create_session, session_token_path, session_token, fresh, logger))

    start = _in_thread(Session.start)
    stop = _in_thread(Session.stop)
    destroy = _in_thread(Session.destroy)
    read_token = _in_thread(Session.read_token)
    write_token = _in_thread(Session.write_token)
    exchange_token = _in_thread(Session.exchange_token)

    @property
    def path(self) -> str:
        """See `Session.path`."""
        return self._session.path

    @property
    def state(self) -> State:
        """See `Session.state`."""
        return self._session.state

    def observe(self, observer: Observer) -> Callable[[], None]:
        """See `Session.observe`."""
        return self._session.observe(observer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):  # a cancelled task leaves its session stopped as well
            await run_sync(self._session.stop)


class AsyncEvents:
    """The agent's events, in order; made by `AsyncClient.subscribe`. See `events.Events`.

    An async iterator, and an async context manager that closes it. Each event goes to one of the waiting
    tasks. Cancelling a task loses no event: another task, or the same one later, gets it.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._turn = anyio.Lock()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            async with self._turn:
                event = await run(self._feed.next_event())
        finally:
            self._release_if_closed()
        if event is None:
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """See `Events.close`."""
        self._close()
        await checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()  # no checkpoint: closing is immediate, also in a cancelled task

    def _close(self) -> None:
        self._feed.close()
        self._release_if_closed()

    def _release_if_closed(self) -> None:
        # Not while another task waits on the descriptor: that task comes here afterwards.
        if self._feed.is_closed() and not self._turn.locked():
            self._feed.release()


async def run(steps: Steps[T]) -> T:
    """Run steps to their end; returns and raises what they do."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(await _wait(wait))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()  # after a cancellation while waiting: this closes the connection


async def follow(steps: RenewalSteps[T], carry_out: Callable[[Call[Any], float | None], Awaitable[Any]]) -> T:
    """Run the steps of `renewal` to their end; returns and raises what they do.

    `carry_out` makes a call to the agent within so many seconds; None is the client's own timeout.
    """
    try:
        step = next(steps)
        while True:
            try:
                done = await (run_sync(step) if callable(step) else carry_out(step.call, step.seconds))
            except AgentdError as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()  # after a cancellation: this releases the token file


async def _wait(wait: Wait) -> bool:
    if wait.waited_for is None:
        await anyio.sleep(wait.seconds or 0)
        return True
    with anyio.move_on_after(wait.seconds):
        if wait.writable:
            await anyio.wait_writable(wait.waited_for)
        else:
            await anyio.wait_readable(wait.waited_for)
        return True
    return False
