"""The agent's methods: from parameters to the operation, and back to a result."""

from __future__ import annotations

import logging
from typing import Any

from agentd_client.errors import InvalidParamsError
from agentd_client.protocol import methods
from agentd_client.protocol.limits import PROTOCOL_VERSION
from agentd_client.protocol.results import (
    CreatedToken,
    Hello,
    KeyReset,
    Opener,
    Revocation,
    Status,
    Verification,
)

from .dispatch import Dispatch, Params
from .interface import ReadStatus, Sessions
from .peer import Peer
from .traffic import Traffic


class HelloParams(Params, frozen=True):
    """Who calls, and the newest protocol that it speaks; the answer is the same whichever that is."""

    client: str | None = None
    protocol: int | None = None


class CreateTokenParams(Params, frozen=True):
    """Both untyped: the sessions' own rules refuse them, with codes of their own."""

    expiry: Any = None
    label: Any = None


class TokenParams(Params, frozen=True):
    """Untyped: what is no text is no token, and that is an answer, not an error."""

    token: Any


class RevokeTokenParams(Params, frozen=True):
    """Exactly one of the two."""

    token: str | None = None
    id: str | None = None


class AgentMethods:
    """The handlers of every method."""

    def __init__(self, sessions: Sessions, status: ReadStatus, version: str, capabilities: list[str]) -> None:
        self._sessions = sessions
        self._status = status
        self._hello = Hello(f"agentd {version}", PROTOCOL_VERSION, capabilities)

    def hello(self, params: HelloParams, peer: Peer) -> Hello:
        """What this agent is."""
        return self._hello

    def get_status(self, params: Params, peer: Peer) -> Status:
        """How it is."""
        return self._status()

    def judge(self, params: TokenParams, peer: Peer) -> Verification:
        """All that is known of a token: verifyToken and inspectToken."""
        return self._sessions.judge(params.token)

    async def create_token(self, params: CreateTokenParams, peer: Peer) -> CreatedToken:
        """Open a session for the peer."""
        return await self._sessions.open_session(params.expiry, params.label, Opener(peer.uid, peer.pid))

    async def revoke_token(self, params: RevokeTokenParams, peer: Peer) -> Revocation:
        """End one session."""
        if (params.token is None) == (params.id is None):
            raise InvalidParamsError("revokeToken takes either token or id")
        return Revocation(await self._sessions.revoke_token(params.token, id=params.id))

    async def reset_key(self, params: Params, peer: Peer) -> KeyReset:
        """End every session."""
        return KeyReset(await self._sessions.reset_key())


def agent_dispatch(
    sessions: Sessions,
    status: ReadStatus,
    *,
    version: str,
    logger: logging.Logger,
    traffic: Traffic | None = None,
) -> Dispatch:
    """The table of every method that this agent has.

    Args:
        sessions: the operations; must be running for as long as requests are answered.
        status: reads the agent's status.
        version: of agentd, for `hello`.
        logger: told of the agent's own failures; never of a token.
        traffic: where requests are counted.
    """
    dispatch = Dispatch(logger, traffic)
    capabilities: list[str] = []
    handlers = AgentMethods(sessions, status, version, capabilities)
    dispatch.register(methods.HELLO, HelloParams, handlers.hello)
    dispatch.register(methods.GET_STATUS, Params, handlers.get_status)
    dispatch.register(methods.VERIFY_TOKEN, TokenParams, handlers.judge, keeps_results=True)
    dispatch.register(methods.INSPECT_TOKEN, TokenParams, handlers.judge, keeps_results=True)
    dispatch.register_waiting(methods.CREATE_TOKEN, CreateTokenParams, handlers.create_token)
    dispatch.register_waiting(methods.REVOKE_TOKEN, RevokeTokenParams, handlers.revoke_token)
    dispatch.register_waiting(methods.RESET_KEY, Params, handlers.reset_key)
    capabilities += dispatch.names
    return dispatch
