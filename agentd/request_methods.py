"""The methods of requests for sessions: asking, at two sockets, and deciding, at the owner's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from trio.lowlevel import checkpoint

from agentd_client.errors import InvalidParamsError
from agentd_client.protocol import methods
from agentd_client.protocol.limits import MAX_PAGE_REQUESTS, MAX_REMEMBER_SECONDS, MAX_REQUEST_SECONDS
from agentd_client.protocol.results import (
    APPROVE,
    DENY,
    Decision,
    RequestedToken,
    RequestPage,
    Withdrawal,
)

from .approval import Asker
from .server import (
    Caller,
    Dispatch,
    FairQueue,
    Params,
    ParamsWithSecrets,
    PassphraseBytes,
    TokenText,
    describe_peer,
)

if TYPE_CHECKING:
    from .agent import Agent

_Id = Annotated[str, msgspec.Meta(max_length=64)]


class RequestTokenParams(ParamsWithSecrets, frozen=True):
    """What is asked for, or the id of a request whose outcome is waited for.

    Untyped where the rules of sessions refuse a value with a code of its own.
    """

    expiry: Any = None
    label: Any = None
    audience: Any = None
    scopes: Any = None
    max_uses: Any = None
    reason: Any = None
    parent: TokenText | None = None
    bound: bool | None = None
    id: _Id | None = None
    wait: Annotated[float, msgspec.Meta(ge=0, le=MAX_REQUEST_SECONDS)] | None = None


class RequestParams(Params, frozen=True):
    """Which request."""

    id: _Id


class ListRequestsParams(Params, frozen=True):
    """Where the page starts."""

    after: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE_REQUESTS)] | None = None


class DecideRequestParams(ParamsWithSecrets, frozen=True):
    """A decision about a request. What an approval grants is untyped, as in createToken."""

    id: _Id
    decision: str
    scopes: Any = None
    expiry: Any = None
    max_uses: Any = None
    remember: Annotated[int, msgspec.Meta(ge=1, le=MAX_REMEMBER_SECONDS)] | None = None
    passphrase: PassphraseBytes | None = None


class _Turns:
    """Has one request in each turn of the event loop read about processes, fairly among processes.

    That takes as long as dozens of verifications, and a program can have thousands of requests under way.
    """

    def __init__(self) -> None:
        self._queue = FairQueue(1)

    async def wait(self, caller: Caller) -> None:
        """Wait until it is this caller's turn, which ends with the next thing that it waits for."""
        await self._queue.take(caller.peer.process)
        try:
            # A place that is free may have been used in this very turn of the loop.
            await checkpoint()
        finally:
            self._queue.give_back()


class _Asking:
    """What the peers of one socket may do about their own requests."""

    def __init__(self, agent: Agent, socket: str) -> None:
        self._agent = agent
        self._socket = socket
        self._turns = _Turns()

    async def request_token(self, params: RequestTokenParams, caller: Caller) -> RequestedToken:
        await self._turns.wait(caller)
        desk = self._agent.desk
        wait = MAX_REQUEST_SECONDS if params.wait is None else params.wait
        asked = msgspec.structs.asdict(params)
        del asked["id"], asked["wait"]
        if params.id is not None:
            if any(value is not None for value in asked.values()):
                raise InvalidParamsError("requestToken takes either an id or what is asked for")
            return await desk.collect(params.id, self._asker(caller), wait, caller.hang_up_scope())
        asked["parent"] = None if params.parent is None else params.parent.text
        asked["bound"] = params.bound is True
        return await desk.request(self._asker(caller), **asked, wait=wait, hung_up=caller.hang_up_scope())

    def withdraw_request(self, params: RequestParams, caller: Caller) -> Withdrawal:
        return Withdrawal(self._agent.desk.withdraw(params.id, self._asker(caller)))

    def _asker(self, caller: Caller) -> Asker:
        # Not as the connection was described first: a process may run another program by now.
        return Asker(describe_peer(caller.peer), caller.peer.process, self._socket)


class _Deciding:
    """What the owner may do about every request."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._turns = _Turns()

    def list_requests(self, params: ListRequestsParams, caller: Caller) -> RequestPage:
        return self._agent.desk.listed(params.after, params.limit)

    async def decide_request(self, params: DecideRequestParams, caller: Caller) -> Decision:
        desk, by = self._agent.desk, caller.described
        granting = {name: getattr(params, name) for name in ("scopes", "expiry", "max_uses", "remember")}
        if params.decision == DENY:
            if params.passphrase is not None or any(value is not None for value in granting.values()):
                raise InvalidParamsError("decideRequest: a denial takes nothing but the id")
            return desk.deny(params.id, by)
        if params.decision != APPROVE:  # by hand: msgspec would quote the value, which is the peer's
            raise InvalidParamsError(f"decideRequest: decision is {APPROVE!r} or {DENY!r}")
        if params.passphrase is not None:
            desk.require_waiting(params.id)  # before the passphrase is tried, which takes its time
            await self._agent.prove_presence(
                params.passphrase.bytes, by, caller.peer.process, caller.hang_up_scope()
            )
        await self._turns.wait(caller)
        return await self._agent.desk.approve(  # another one if it was locked meanwhile
            params.id,
            by,
            caller.peer.process,
            **granting,
            is_proven=params.passphrase is not None,
            has_passphrase=self._agent.can_prove_presence,
        )


def register_asking(table: Dispatch, agent: Agent, socket: str) -> None:
    """Add the methods of those who ask; `socket` says over which one, `OWNERS_SOCKET` or `ASK_SOCKET`."""
    asking = _Asking(agent, socket)
    table.register_async(methods.REQUEST_TOKEN, RequestTokenParams, asking.request_token)
    table.register(methods.WITHDRAW_REQUEST, RequestParams, asking.withdraw_request)


def register_deciding(table: Dispatch, agent: Agent) -> None:
    """Add the methods of those who decide."""
    deciding = _Deciding(agent)
    table.register(methods.LIST_REQUESTS, ListRequestsParams, deciding.list_requests)
    table.register_async(methods.DECIDE_REQUEST, DecideRequestParams, deciding.decide_request)
