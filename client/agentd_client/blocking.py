"""The blocking client. What it says is in `protocol`, what it repeats in `attempts`; this is the waiting."""

from __future__ import annotations

import os
import select
import time
from threading import Semaphore
from typing import TypeVar

from .attempts import Attempts
from .connection import Steps, Wait, carry_out, connect
from .pool import MAX_CONNECTIONS, ProcessPools
from .protocol import calls
from .protocol.calls import Call
from .protocol.methods import Method
from .protocol.reasons import MALFORMED
from .protocol.results import CreatedToken, Hello, Status, Verification
from .token_text import token_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

CLIENT_NAME = "agentd-client"


class Client:
    """The agent, from blocking code. Any number of threads may share one, and it may be used after fork(2).

    Every call may raise, beside its own errors and whatever else the agent refuses it with:

    - `AgentUnreachableError`: no agent is there, or it went away.
    - `AgentTimeoutError`: it did not answer in time, and nothing was changed.
    - `OutcomeUnknownError`: the answer to a call that changes something was lost; it was carried out or not.
    - `ForeignAgentError`: another user listens there; nothing was sent.
    - `ProtocolError`: what listens there is no agent.
    - `ClientClosedError`: this client was closed.

    `timeout` is the seconds for a whole call, connecting and repeating included, and `patience` how many of
    them may go by waiting for an agent that is not there (None: all). Both may be changed at any time.
    """

    def __init__(
        self, socket_path: str | os.PathLike[str] | None, timeout: float, patience: float | None
    ) -> None:
        self.timeout = timeout
        self.patience = patience
        self._pools = ProcessPools(socket_path, Semaphore)

    @classmethod
    def connect(
        cls,
        socket_path: str | os.PathLike[str] | None = None,
        timeout: float = 5.0,
        *,
        patience: float | None = None,
    ) -> Self:
        """Connect now, so that a missing agent shows here.

        Args:
            socket_path: the agent's socket; None means the user's own (`agentd_client.paths.socket_path`).
            timeout: seconds for each call.
            patience: seconds to wait for an agent that is not there, because it may be starting.

        Raises:
            AgentUnreachableError, AgentTimeoutError, ForeignAgentError: as every call does.
            InvalidParamsError: the timeout is not 0 to 86400 seconds.
        """
        client = cls(socket_path, timeout, patience)
        pool = client._pools.here()
        pool.give_back(_run(connect(pool, client._attempts(None))))
        return client

    @property
    def socket_path(self) -> str:
        """Where the agent is."""
        return self._pools.path

    def close(self) -> None:
        """Close the connections. Calls under way in other threads end as they would; new ones are refused."""
        self._pools.close()

    def hello(self) -> Hello:
        """The agent's version and capabilities."""
        return self._carry_out(calls.hello(CLIENT_NAME))

    def get_status(self) -> Status:
        """The agent at a glance."""
        return self._carry_out(calls.get_status())

    def create_token(self, expiry: int | str | None = None, label: str | None = None) -> CreatedToken:
        """Open a session.

        Args:
            expiry: whole seconds, `NEVER`, or None for the agent's default.
            label: one line that says what the session is for.

        Raises:
            InvalidExpiryError, InvalidLabelError: the agent refuses one of them, or it cannot be sent at all.
        """
        return self._carry_out(calls.create_token(expiry, label))

    def verify_token(self, token: object) -> bool:
        """Whether this is the token of a session that goes on; False for anything else whatever.

        What cannot be a token is False without asking the agent.
        """
        return self.check_token(token).valid

    def check_token(self, token: object) -> Verification:
        """As `verify_token`, with the session, or the reason why not."""
        text = token_text(token)
        if text is None:
            return Verification(valid=False, reason=MALFORMED, session=None)
        return self._carry_out(calls.verify_token(text))

    def inspect_token(self, token: str) -> Verification:
        """All that is known of a token; raises `InvalidTokenError` for what cannot be one."""
        return self._carry_out(calls.inspect_token(token))

    def revoke_token(self, token: str | None = None, *, id: str | None = None) -> bool:
        """End a session, by its token or by its id; whether there was one to end.

        Raises:
            InvalidParamsError: neither or both were given.
            InvalidTokenError: what was given cannot be a token.
        """
        return self._carry_out(calls.revoke_token(token, id))

    def reset_key(self) -> str:
        """End all sessions, by replacing the session key; returns the new key's id."""
        return self._carry_out(calls.reset_key())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _attempts(self, method: Method | None) -> Attempts:
        return Attempts(
            self.socket_path, method, now=time.monotonic(), timeout=self.timeout, patience=self.patience
        )

    def _carry_out(self, call: Call[T]) -> T:
        pool = self._pools.here()
        attempts = self._attempts(call.method)
        if not pool.slots.acquire(timeout=self.timeout):
            raise attempts.all_connections_busy(MAX_CONNECTIONS)
        try:
            return _run(carry_out(pool, call, attempts))
        finally:
            pool.slots.release()


def _run(steps: Steps[T]) -> T:
    try:
        wait = next(steps)
        while True:
            wait = steps.send(_wait(wait))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()  # an interruption hit the waiting, not the steps: they close the connection now


def _wait(wait: Wait) -> bool:
    if wait.socket is None:
        time.sleep(wait.seconds)
        return True
    poller = select.poll()
    poller.register(wait.socket, select.POLLOUT if wait.writable else select.POLLIN)
    return bool(poller.poll(wait.seconds * 1000))
