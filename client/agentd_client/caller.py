"""How the blocking client carries out a call, whatever the call says; and when it connects and closes."""

from __future__ import annotations

import os
import time
from threading import Semaphore
from typing import TypeVar

from .attempts import Attempts
from .connection import carry_out, connect
from .pool import MAX_CONNECTIONS, ProcessPools
from .protocol.calls import Call
from .protocol.methods import Method
from .waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")


class Caller:
    """Connections to one agent, and the time that a call on them may take; see `Client`."""

    def __init__(
        self,
        socket_path: str | os.PathLike[str] | None,
        timeout: float,
        patience: float | None,
        agent_uid: int | None = None,
    ) -> None:
        self.timeout = timeout
        self.patience = patience
        self._pools = ProcessPools(socket_path, Semaphore, agent_uid)

    @classmethod
    def connect(
        cls,
        socket_path: str | os.PathLike[str] | None = None,
        timeout: float = 5.0,
        *,
        patience: float | None = None,
        agent_uid: int | None = None,
    ) -> Self:
        """Connect now, so that a missing agent shows here.

        Args:
            socket_path: the agent's socket; None means the user's own (`agentd_client.paths.socket_path`).
            timeout: seconds for each call.
            patience: seconds to wait for an agent that is not there, because it may be starting.
            agent_uid: the user whose agent is trusted, where it is another user's: whoever else listens there
                is sent nothing. None means this process's own user, and never anybody.

        Raises:
            AgentUnreachableError, AgentTimeoutError, ForeignAgentError: as every call does.
            InvalidParamsError: the timeout is not 0 to 86400 seconds, or the agent's uid is none.
        """
        client = cls(socket_path, timeout, patience, agent_uid)
        pool = client._pools.here()
        pool.give_back(run(connect(pool, client._attempts(None))))
        return client

    @property
    def socket_path(self) -> str:
        """Where the agent is."""
        return self._pools.path

    def close(self) -> None:
        """Close the connections. Calls under way in other threads end as they would; new ones are refused."""
        self._pools.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _attempts(self, method: Method | None, timeout: float | None = None) -> Attempts:
        return Attempts(
            self.socket_path,
            method,
            now=time.monotonic(),
            timeout=self.timeout if timeout is None else timeout,
            patience=self.patience,
        )

    def _carry_out(self, call: Call[T], seconds: float | None = None) -> T:
        pool = self._pools.here()
        timeout = self.timeout if seconds is None else min(self.timeout, seconds)
        attempts = self._attempts(call.method, timeout)
        if not pool.slots.acquire(timeout=timeout):
            raise attempts.all_connections_busy(MAX_CONNECTIONS)
        try:
            return run(carry_out(pool, call, attempts))
        finally:
            pool.slots.release()
