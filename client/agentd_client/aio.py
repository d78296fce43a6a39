"""The async twins of `Client` and `Session`, for trio and asyncio by way of anyio (the extra `async`).

What they say, repeat and keep is the blocking ones'; this is the waiting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Self, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync

from .attempts import Attempts
from .blocking import CLIENT_NAME
from .connection import Steps, Wait, carry_out, connect
from .lifecycle import Observer, State
from .pool import MAX_CONNECTIONS, Pool, ProcessPools
from .protocol import calls
from .protocol.calls import Call
from .protocol.methods import Method
from .protocol.reasons import MALFORMED
from .protocol.results import CreatedToken, Hello, Status, Verification
from .session import Logger, Session
from .token_text import token_text

T = TypeVar("T")


class AsyncClient:
    """The agent, from async code. Any number of tasks of one event loop may share one.

    The methods, their arguments and their errors are those of `Client`. Each is a checkpoint. A call that is
    cancelled closes its connection and no other; one that changes something may still be carried out.
    """

    def __init__(
        self, socket_path: str | os.PathLike[str] | None, timeout: float, patience: float | None
    ) -> None:
        self.timeout = timeout
        self.patience = patience
        self._pools = ProcessPools(socket_path, anyio.Semaphore)

    @classmethod
    async def connect(
        cls,
        socket_path: str | os.PathLike[str] | None = None,
        timeout: float = 5.0,
        *,
        patience: float | None = None,
    ) -> Self:
        """See `Client.connect`; used as ``async with await AsyncClient.connect() as agent:``."""
        await checkpoint()
        client = cls(socket_path, timeout, patience)
        pool = client._pools.here()
        pool.give_back(await _run(connect(pool, client._attempts(None))))
        return client

    @property
    def socket_path(self) -> str:
        """Where the agent is."""
        return self._pools.path

    async def close(self) -> None:
        """Close the connections. Calls under way in other tasks end as they would; new ones are refused."""
        self._pools.close()
        await checkpoint()

    async def hello(self) -> Hello:
        """See `Client.hello`."""
        return await self._carry_out(calls.hello(CLIENT_NAME))

    async def get_status(self) -> Status:
        """See `Client.get_status`."""
        return await self._carry_out(calls.get_status())

    async def create_token(self, expiry: int | str | None = None, label: str | None = None) -> CreatedToken:
        """See `Client.create_token`."""
        return await self._carry_out(calls.create_token(expiry, label))

    async def verify_token(self, token: object) -> bool:
        """See `Client.verify_token`."""
        return (await self.check_token(token)).valid

    async def check_token(self, token: object) -> Verification:
        """See `Client.check_token`."""
        text = token_text(token)
        if text is None:
            await checkpoint()
            return Verification(valid=False, reason=MALFORMED, session=None)
        return await self._carry_out(calls.verify_token(text))

    async def inspect_token(self, token: str) -> Verification:
        """See `Client.inspect_token`."""
        return await self._carry_out(calls.inspect_token(token))

    async def revoke_token(self, token: str | None = None, *, id: str | None = None) -> bool:
        """See `Client.revoke_token`."""
        return await self._carry_out(calls.revoke_token(token, id))

    async def reset_key(self) -> str:
        """See `Client.reset_key`."""
        return await self._carry_out(calls.reset_key())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pools.close()  # no checkpoint: closing is at once, also in a cancelled task

    def _attempts(self, method: Method | None) -> Attempts:
        return Attempts(
            self.socket_path, method, now=time.monotonic(), timeout=self.timeout, patience=self.patience
        )

    async def _carry_out(self, call: Call[T]) -> T:
        pool = self._pools.here()
        attempts = self._attempts(call.method)
        await self._take_slot(pool, attempts)
        try:
            return await _run(carry_out(pool, call, attempts))
        finally:
            pool.slots.release()

    async def _take_slot(self, pool: Pool[anyio.Semaphore], attempts: Attempts) -> None:
        try:
            pool.slots.acquire_nowait()
        except anyio.WouldBlock:
            pass
        else:
            return
        with anyio.move_on_after(self.timeout):
            await pool.slots.acquire()
            return
        raise attempts.all_connections_busy(MAX_CONNECTIONS)


async def _run(steps: Steps[T]) -> T:
    try:
        wait = next(steps)
        while True:
            wait = steps.send(await _wait(wait))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()  # a cancellation hit the waiting, not the steps: they close the connection now


async def _wait(wait: Wait) -> bool:
    if wait.socket is None:
        await anyio.sleep(wait.seconds)
        return True
    with anyio.move_on_after(wait.seconds):
        if wait.writable:
            await anyio.wait_writable(wait.socket)
        else:
            await anyio.wait_readable(wait.socket)
        return True
    return False


class AsyncSession:
    """A `Session` whose work is done in worker threads, so that a slow disk holds up no event loop.

    The methods, their arguments and their errors are those of `Session`. Once begun, a change of the file
    is not cancelled: a cancelled task waits for it, at most five seconds for the lock. Observers run in
    the worker threads.
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

    async def start(self, session_token: str | None = None, fresh: bool = False) -> None:
        """See `Session.start`."""
        await run_sync(self._session.start, session_token, fresh)

    async def stop(self) -> None:
        """See `Session.stop`."""
        await run_sync(self._session.stop)

    async def destroy(self) -> None:
        """See `Session.destroy`."""
        await run_sync(self._session.destroy)

    async def read_token(self) -> str | None:
        """See `Session.read_token`."""
        return await run_sync(self._session.read_token)

    async def write_token(self, token: str) -> None:
        """See `Session.write_token`."""
        await run_sync(self._session.write_token, token)

    async def exchange_token(self, token: str) -> str | None:
        """See `Session.exchange_token`."""
        return await run_sync(self._session.exchange_token, token)

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
