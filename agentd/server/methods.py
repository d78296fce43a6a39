"""The agent's methods: from parameters to the operation, and back to a result."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import msgspec

from agentd_client.errors import InvalidParamsError
from agentd_client.protocol import methods
from agentd_client.protocol.limits import (
    MAX_LABEL_CHARACTERS,
    MAX_PAGE_AUDIT,
    MAX_PAGE_SESSIONS,
    PROTOCOL_VERSION,
)
from agentd_client.protocol.results import (
    ACTIVE,
    EXPIRED,
    AuditPage,
    CreatedToken,
    Hello,
    KeyReset,
    Revocation,
    Revocations,
    SessionPage,
    Status,
    Subscribed,
    Verification,
)

from .dispatch import Caller, Dispatch
from .interface import Locking, ReadStatus, Sessions
from .locking_methods import register_locking
from .parameters import Params, ParamsWithSecrets, TokenText, ascii_text, presented_token
from .traffic import Traffic
from .turn import FairQueue

MAX_WRITES = 64
"""Requests that the store writes for at once. As many as share a commit to advantage, and no more than a lock
can wait for in a blink: what has no place yet is refused when the agent locks."""


class HelloParams(Params, frozen=True):
    """Who calls, and the newest protocol that it speaks; the answer is the same whichever that is."""

    client: str | None = None
    protocol: int | None = None


class CreateTokenParams(ParamsWithSecrets, frozen=True):
    """Untyped where the sessions' own rules refuse a value, with a code of its own."""

    expiry: Any = None
    label: Any = None
    audience: Any = None
    scopes: Any = None
    max_uses: Any = None
    max_lifetime: Any = None
    parent: TokenText | None = None
    bound: bool | None = None


class VerifyTokenParams(Params, frozen=True):
    """Untyped: what is neither text nor bytes is no token, and that is an answer, not an error."""

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
    """The session's newest token, or the one before while the newest is not seen."""

    token: TokenText


class RevokeTokenParams(ParamsWithSecrets, frozen=True):
    """Exactly one of the two."""

    token: TokenText | None = None
    id: str | None = None


class ChoosingParams(Params, frozen=True):
    """Which sessions: those that fit all that is given. `parent` is the id of a session above them.

    `label` is a pattern, and no longer than a label: a longer one would fit nothing more.
    """

    state: str | None = None
    label: Annotated[str, msgspec.Meta(max_length=MAX_LABEL_CHARACTERS)] | None = None
    pid: int | None = None
    parent: str | None = None


class ListSessionsParams(ChoosingParams, frozen=True):
    """Which of them, and where to go on."""

    after: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE_SESSIONS)] | None = None


class ListAuditParams(Params, frozen=True):
    """From when on, and where to go on."""

    since: float | None = None
    after: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE_AUDIT)] | None = None


class ResetKeyParams(Params, frozen=True):
    """Untyped for the same reason as in createToken."""

    grace_seconds: Any = None


class AgentMethods:
    """The handlers of every method."""

    def __init__(self, sessions: Sessions, status: ReadStatus, version: str, capabilities: list[str]) -> None:
        self._sessions = sessions
        self._status = status
        self._hello = Hello(f"agentd {version}", PROTOCOL_VERSION, capabilities)

    def hello(self, params: HelloParams, caller: Caller) -> Hello:
        """What this agent is."""
        return self._hello

    def get_status(self, params: Params, caller: Caller) -> Status:
        """How it is."""
        return self._status()

    def verify_nowait(self, params: VerifyTokenParams, caller: Caller) -> Verification | None:
        """Whether a token is good for this; None where the answer takes a write."""
        token = params.token
        if type(token) is bytes:  # by hand: it costs a verification nothing
            token = ascii_text(token)
        return self._sessions.verify_nowait(
            token, audience=params.audience, scopes=params.scopes, by=caller.identity
        )

    async def verify_and_consume(self, params: VerifyTokenParams, caller: Caller) -> Verification:
        """The same, where a yes is counted."""
        token = presented_token(params.token)
        return await self._sessions.verify_and_consume(
            token, audience=params.audience, scopes=params.scopes, by=caller.identity
        )

    def inspect_token(self, params: InspectTokenParams, caller: Caller) -> Verification:
        """All that is known of a session."""
        if (params.token is None) == (params.id is None):
            raise InvalidParamsError("inspectToken takes either token or id")
        token = presented_token(params.token)
        return self._sessions.inspect(token, id=params.id, audience=params.audience, scopes=params.scopes)

    async def create_token(self, params: CreateTokenParams, caller: Caller) -> CreatedToken:
        """Open a session for the peer."""
        return await self._sessions.open_session(
            params.expiry,
            params.label,
            caller.described(),
            audience=params.audience,
            scopes=params.scopes,
            max_uses=params.max_uses,
            max_lifetime=params.max_lifetime,
            parent=_text(params.parent),
            bound=params.bound is True,
            process=caller.peer.process,
        )

    async def renew_token(self, params: RenewTokenParams, caller: Caller) -> CreatedToken:
        """A new token for the same session."""
        return await self._sessions.renew_token(params.token.text, by=caller.described())

    async def revoke_token(self, params: RevokeTokenParams, caller: Caller) -> Revocation:
        """End one session."""
        if (params.token is None) == (params.id is None):
            raise InvalidParamsError("revokeToken takes either token or id")
        by = caller.described()
        return Revocation(await self._sessions.revoke_token(_text(params.token), id=params.id, by=by))

    async def revoke_sessions(self, params: ChoosingParams, caller: Caller) -> Revocations:
        """End some sessions."""
        _check_state("revokeSessions", params)
        chosen = msgspec.structs.asdict(params)
        if all(condition is None for condition in chosen.values()):
            # What was left out by mistake would end everything.
            raise InvalidParamsError("revokeSessions takes at least one of state, label, pid and parent")
        return Revocations(await self._sessions.revoke_sessions(**chosen, by=caller.described()))

    async def list_sessions(self, params: ListSessionsParams, caller: Caller) -> SessionPage:
        """Some sessions."""
        _check_state("listSessions", params)
        return await self._sessions.list_sessions(**msgspec.structs.asdict(params))

    async def reset_key(self, params: ResetKeyParams, caller: Caller) -> KeyReset:
        """End every session."""
        by = caller.described()
        return KeyReset(await self._sessions.reset_key(grace_seconds=params.grace_seconds, by=by))

    async def list_audit(self, params: ListAuditParams, caller: Caller) -> AuditPage:
        """Some entries of the audit log."""
        return await self._sessions.list_audit(since=params.since, after=params.after, limit=params.limit)

    def subscribe(self, params: Params, caller: Caller) -> Subscribed:
        """Send events on this connection from now on."""
        caller.subscribe(self._sessions.on_event)
        return Subscribed(True)


def _text(token: TokenText | None) -> str | None:
    return None if token is None else token.text


def _check_state(name: str, params: ChoosingParams) -> None:
    # By hand: msgspec would quote the value, which is the peer's.
    if params.state not in (None, ACTIVE, EXPIRED):
        raise InvalidParamsError(f"{name}: state is {ACTIVE!r} or {EXPIRED!r}")


def agent_dispatch(
    sessions: Sessions,
    locking: Locking,
    status: ReadStatus,
    *,
    version: str,
    logger: logging.Logger,
    traffic: Traffic | None = None,
) -> Dispatch:
    """The table of every method that this agent has.

    Args:
        sessions: the operations; answer for as long as requests do, if only that the agent is locked.
        locking: locks and unlocks.
        status: reads the agent's status.
        version: of agentd, for `hello`.
        logger: told of the agent's own failures; never of a token.
        traffic: where requests are counted.
    """
    dispatch = Dispatch(logger, traffic)
    capabilities: list[str] = []
    handlers = AgentMethods(sessions, status, version, capabilities)
    # One for each kind of work that grows with the store: in one turn of the loop there is at most one slice
    # of listing and one of choosing whom to revoke, however many ask. Locking waits in none of them.
    writing, listing, choosing = FairQueue(MAX_WRITES), FairQueue(1), FairQueue(1)
    dispatch.register(methods.HELLO, HelloParams, handlers.hello)
    dispatch.register(methods.GET_STATUS, Params, handlers.get_status)
    dispatch.register(
        methods.VERIFY_TOKEN,
        VerifyTokenParams,
        handlers.verify_nowait,
        fallback=handlers.verify_and_consume,
        keeps_results=True,
        queue=writing,
    )
    dispatch.register(methods.INSPECT_TOKEN, InspectTokenParams, handlers.inspect_token)
    dispatch.register_async(methods.CREATE_TOKEN, CreateTokenParams, handlers.create_token, queue=writing)
    dispatch.register_async(methods.RENEW_TOKEN, RenewTokenParams, handlers.renew_token, queue=writing)
    dispatch.register_async(methods.REVOKE_TOKEN, RevokeTokenParams, handlers.revoke_token, queue=writing)
    dispatch.register_async(methods.REVOKE_SESSIONS, ChoosingParams, handlers.revoke_sessions, queue=choosing)
    dispatch.register_async(methods.LIST_SESSIONS, ListSessionsParams, handlers.list_sessions, queue=listing)
    dispatch.register_async(methods.RESET_KEY, ResetKeyParams, handlers.reset_key, queue=writing)
    dispatch.register_async(methods.LIST_AUDIT, ListAuditParams, handlers.list_audit, queue=listing)
    dispatch.register(methods.SUBSCRIBE, Params, handlers.subscribe)
    register_locking(dispatch, locking)
    capabilities += dispatch.names
    return dispatch
