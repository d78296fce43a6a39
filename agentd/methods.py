"""The methods of every socket: from parameters to an operation of the agent, and back to a result.

A method is a row in `agent_dispatch`, a handler above it, and the handler's parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from agentd_client.errors import (
    ERRORS,
    INVALID,
    AgentdError,
    AgentInternalError,
    AgentLockedError,
    InvalidParamsError,
    LifecycleError,
    TooManyRequestsError,
)
from agentd_client.protocol import methods
from agentd_client.protocol.limits import (
    MAX_LABEL_CHARACTERS,
    MAX_PAGE_AUDIT,
    MAX_PAGE_SESSIONS,
    PROTOCOL_VERSION,
)
from agentd_client.protocol.results import (
    ACTIVE,
    ASK_SOCKET,
    EXPIRED,
    OWNERS_SOCKET,
    AuditPage,
    CreatedToken,
    Hello,
    KeyReset,
    LockState,
    Protection,
    Revocation,
    Revocations,
    SessionPage,
    Status,
    Subscribed,
    Verdict,
    Verification,
)

from .approval import FREE_FOR_ALL, Policy
from .request_methods import register_asking, register_deciding
from .server import (
    Caller,
    Dispatch,
    FairQueue,
    Params,
    ParamsWithSecrets,
    PassphraseBytes,
    TokenText,
    Traffic,
    presented_token,
)

if TYPE_CHECKING:
    from .agent import Agent

MAX_WRITES = 64
"""Requests that the store writes for at the same time. Enough to share a commit, and few enough for a lock to
wait for. Requests that still queue when the agent locks are refused."""

MAX_WRITES_FOR_OTHERS = 16
"""The same for each socket for others, which has a queue of its own because its peers are other users."""


class HelloParams(Params, frozen=True):
    """The client's name and the newest protocol it speaks; neither changes the answer."""

    client: str | None = None
    protocol: int | None = None


class CreateTokenParams(ParamsWithSecrets, frozen=True):
    """Untyped where the rules of sessions refuse a value with a code of its own."""

    expiry: Any = None
    label: Any = None
    audience: Any = None
    scopes: Any = None
    max_uses: Any = None
    max_lifetime: Any = None
    parent: TokenText | None = None
    bound: bool | None = None


class VerifyTokenParams(Params, frozen=True):
    """Untyped: for anything that is neither text nor bytes the answer is MALFORMED, not an error."""

    token: Any
    audience: Any = None
    scopes: Any = None


class InspectTokenParams(Params, frozen=True):
    """Exactly one of token and id; a token of whatever type."""

    token: Any = None
    id: str | None = None
    audience: Any = None
    scopes: Any = None


class RenewTokenParams(ParamsWithSecrets, frozen=True):
    """The session's newest token, or the previous one while the newest has not been used."""

    token: TokenText


class RevokeTokenParams(ParamsWithSecrets, frozen=True):
    """Exactly one of the two."""

    token: TokenText | None = None
    id: str | None = None


class SelectionParams(Params, frozen=True):
    """Selects the sessions that match everything given. `parent` is the id of a session above them.

    `label` is a pattern. It is limited to the length of a label, since a longer one matches nothing more.
    """

    state: str | None = None
    label: Annotated[str, msgspec.Meta(max_length=MAX_LABEL_CHARACTERS)] | None = None
    pid: int | None = None
    parent: str | None = None


class ListSessionsParams(SelectionParams, frozen=True):
    """Which sessions, and where the page starts."""

    after: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE_SESSIONS)] | None = None


class ListAuditParams(Params, frozen=True):
    """Which entries, and where the page starts."""

    since: float | None = None
    after: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE_AUDIT)] | None = None
    kind: str | None = None
    session: str | None = None


class ResetKeyParams(Params, frozen=True):
    """Untyped for the same reason as in createToken."""

    grace_seconds: Any = None


class UnlockParams(ParamsWithSecrets, frozen=True):
    """The passphrase, as the person typed it."""

    passphrase: PassphraseBytes


class ChangePassphraseParams(ParamsWithSecrets, frozen=True):
    """The present passphrase and the next one; nil for none."""

    old: PassphraseBytes | None = None
    new: PassphraseBytes | None = None


class _AgentDispatch(Dispatch):
    """A table of methods that act on the agent, beginning with `hello`."""

    def __init__(self, version: str, logger: logging.Logger, traffic: Traffic | None) -> None:
        super().__init__(logger, traffic)
        server = f"agentd {version}"
        self.register(
            methods.HELLO,
            HelloParams,
            lambda params, caller: Hello(server, PROTOCOL_VERSION, self.names),
        )

    def _error_reply(self, msgid: int, name: str, error: Exception) -> bytes:
        if isinstance(error, LifecycleError):  # the agent was locked while the request waited
            error = AgentLockedError()
        return super()._error_reply(msgid, name, error)


class _OthersDispatch(_AgentDispatch):
    """Answers a failure of the agent with its code and that code's general sentence.

    The full sentence names paths and records. It is for the owner, who gets it over the owner's socket.
    """

    def _error_reply(self, msgid: int, name: str, error: Exception) -> bytes:
        if (
            isinstance(error, AgentdError)
            and error.number != INVALID
            and type(error) is not TooManyRequestsError
        ):
            error = ERRORS.get(error.code, AgentInternalError)()
        return super()._error_reply(msgid, name, error)


class _Handlers:
    """The handlers. `agent.manager` raises `AgentLockedError` while the agent is locked."""

    def __init__(self, agent: Agent, policy: Policy = FREE_FOR_ALL) -> None:
        self._agent = agent
        self._policy = policy

    def verify_nowait(self, params: VerifyTokenParams, caller: Caller) -> Verification | None:
        token = params.token
        if type(token) is bytes:  # by hand: it costs a verification nothing
            token = presented_token(token)
        return self._agent.manager.verify_nowait(
            token, audience=params.audience, scopes=params.scopes, by=caller
        )

    async def verify_and_consume(self, params: VerifyTokenParams, caller: Caller) -> Verification:
        return await self._agent.manager.verify_and_consume(
            presented_token(params.token), audience=params.audience, scopes=params.scopes, by=caller
        )

    def inspect_token(self, params: InspectTokenParams, caller: Caller) -> Verification:
        if (params.token is None) == (params.id is None):
            raise InvalidParamsError("inspectToken takes either token or id")
        return self._agent.manager.inspect(
            presented_token(params.token), id=params.id, audience=params.audience, scopes=params.scopes
        )

    async def create_token(self, params: CreateTokenParams, caller: Caller) -> CreatedToken:
        manager = self._agent.manager
        if params.parent is None:
            self._policy.require_free()
        asked = msgspec.structs.asdict(params)
        asked["parent"] = _text(params.parent)
        asked["bound"] = params.bound is True
        return await manager.open_session(**asked, opened_by=caller.described, process=caller.peer.process)

    async def renew_token(self, params: RenewTokenParams, caller: Caller) -> CreatedToken:
        return await self._agent.manager.renew_token(params.token.text, by=caller.described)

    async def revoke_token(self, params: RevokeTokenParams, caller: Caller) -> Revocation:
        if (params.token is None) == (params.id is None):
            raise InvalidParamsError("revokeToken takes either token or id")
        token, by = _text(params.token), caller.described
        return Revocation(await self._agent.manager.revoke_token(token, id=params.id, by=by))

    async def revoke_sessions(self, params: SelectionParams, caller: Caller) -> Revocations:
        _check_state("revokeSessions", params)
        selected = msgspec.structs.asdict(params)
        if all(condition is None for condition in selected.values()):
            # Otherwise a client that leaves the conditions out by mistake would end everything.
            raise InvalidParamsError("revokeSessions takes at least one of state, label, pid and parent")
        return Revocations(await self._agent.manager.revoke_sessions(**selected, by=caller.described))

    async def list_sessions(self, params: ListSessionsParams, caller: Caller) -> SessionPage:
        _check_state("listSessions", params)
        return await self._agent.manager.list_sessions(**msgspec.structs.asdict(params))

    async def reset_key(self, params: ResetKeyParams, caller: Caller) -> KeyReset:
        by = caller.described
        return KeyReset(await self._agent.manager.reset_key(grace_seconds=params.grace_seconds, by=by))

    async def list_audit(self, params: ListAuditParams, caller: Caller) -> AuditPage:
        return await self._agent.manager.list_audit(**msgspec.structs.asdict(params))

    def subscribe(self, params: Params, caller: Caller) -> Subscribed:
        caller.subscribe(self._agent.subscribe)
        return Subscribed(True)

    async def lock(self, params: Params, caller: Caller) -> LockState:
        await self._agent.lock(by=caller.described)
        return LockState(True)

    async def unlock(self, params: UnlockParams, caller: Caller) -> LockState:
        await self._agent.unlock(
            params.passphrase.bytes, caller.described, caller.peer.process, caller.hang_up_scope()
        )
        return LockState(False)

    async def change_passphrase(self, params: ChangePassphraseParams, caller: Caller) -> Protection:
        if params.old is None and params.new is None:
            raise InvalidParamsError("changePassphrase takes old, new or both")
        old, new = (None if each is None else each.bytes for each in (params.old, params.new))
        return Protection(
            await self._agent.change_passphrase(
                old, new, caller.described, caller.peer.process, caller.hang_up_scope()
            )
        )


def _text(token: TokenText | None) -> str | None:
    return None if token is None else token.text


def _check_state(name: str, params: SelectionParams) -> None:
    # By hand: msgspec would quote the value, which is the peer's.
    if params.state not in (None, ACTIVE, EXPIRED):
        raise InvalidParamsError(f"{name}: state is {ACTIVE!r} or {EXPIRED!r}")


def agent_dispatch(
    agent: Agent,
    status: Callable[[], Status],
    *,
    version: str,
    logger: logging.Logger,
    traffic: Traffic | None = None,
    policy: Policy = FREE_FOR_ALL,
) -> Dispatch:
    """The owner's table: every method.

    Args:
        agent: what the methods act on.
        status: answers getStatus.
        version: agentd's.
        logger: for failures of the agent.
        traffic: counts.
        policy: who may open sessions.
    """
    table = _AgentDispatch(version, logger, traffic)
    handlers = _Handlers(agent, policy)
    # A queue for each kind of work that grows with the store: in one turn of the event loop there is at most
    # one slice of listing and one of selecting, however many clients ask. Locking waits in none of them.
    writing, listing, selecting = FairQueue(MAX_WRITES), FairQueue(1), FairQueue(1)
    table.register(methods.GET_STATUS, Params, lambda params, caller: status())
    table.register(
        methods.VERIFY_TOKEN,
        VerifyTokenParams,
        handlers.verify_nowait,
        fallback=handlers.verify_and_consume,
        queue=writing,
    )
    table.register(methods.INSPECT_TOKEN, InspectTokenParams, handlers.inspect_token)
    table.register_async(methods.CREATE_TOKEN, CreateTokenParams, handlers.create_token, queue=writing)
    table.register_async(methods.RENEW_TOKEN, RenewTokenParams, handlers.renew_token, queue=writing)
    table.register_async(methods.REVOKE_TOKEN, RevokeTokenParams, handlers.revoke_token, queue=writing)
    table.register_async(methods.REVOKE_SESSIONS, SelectionParams, handlers.revoke_sessions, queue=selecting)
    table.register_async(methods.LIST_SESSIONS, ListSessionsParams, handlers.list_sessions, queue=listing)
    table.register_async(methods.RESET_KEY, ResetKeyParams, handlers.reset_key, queue=writing)
    table.register_async(methods.LIST_AUDIT, ListAuditParams, handlers.list_audit, queue=listing)
    table.register(methods.SUBSCRIBE, Params, handlers.subscribe)
    table.register_async(methods.LOCK, Params, handlers.lock)
    table.register_async(methods.UNLOCK, UnlockParams, handlers.unlock)
    table.register_async(methods.CHANGE_PASSPHRASE, ChangePassphraseParams, handlers.change_passphrase)
    register_asking(table, agent, OWNERS_SOCKET)
    register_deciding(table, agent)
    return table


def verify_dispatch(
    agent: Agent, *, version: str, logger: logging.Logger, traffic: Traffic | None = None
) -> Dispatch:
    """The table of the verify socket: `hello` and `verifyToken`, whose peers learn only the verdict."""
    table = _OthersDispatch(version, logger, traffic)
    _register_verdict(table, _Handlers(agent), FairQueue(MAX_WRITES_FOR_OTHERS))
    return table


def ask_dispatch(
    agent: Agent, *, version: str, logger: logging.Logger, traffic: Traffic | None = None
) -> Dispatch:
    """The table of the ask socket: that of the verify socket, and what others may do about their requests."""
    table = _OthersDispatch(version, logger, traffic)
    _register_verdict(table, _Handlers(agent), FairQueue(MAX_WRITES_FOR_OTHERS))
    register_asking(table, agent, ASK_SOCKET)
    return table


def _register_verdict(table: Dispatch, handlers: _Handlers, queue: FairQueue) -> None:
    def verify_nowait(params: VerifyTokenParams, caller: Caller) -> Verdict | None:
        found = handlers.verify_nowait(params, caller)
        return None if found is None else _verdict(found)

    async def verify_and_consume(params: VerifyTokenParams, caller: Caller) -> Verdict:
        return _verdict(await handlers.verify_and_consume(params, caller))

    table.register(
        methods.VERIFY_TOKEN, VerifyTokenParams, verify_nowait, fallback=verify_and_consume, queue=queue
    )


def _verdict(found: Verification) -> Verdict:
    # Only the reason for a token that is not valid: a peer that was refused for the wrong audience must not
    # learn which one to name next time.
    session = found.session
    if not found.valid or session is None:
        return Verdict(found.valid, found.reason, None, None)
    return Verdict(True, None, session.audience, session.scopes)
