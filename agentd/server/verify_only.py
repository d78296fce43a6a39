"""The methods of the verify socket: whether a token is good, and nothing else.

Its peers are other users. What they may know is the answer to their question, and not which session it is,
who opened it, or how the agent is.
"""

from __future__ import annotations

import logging

from agentd_client.errors import ERRORS, INVALID, AgentdError, AgentInternalError
from agentd_client.protocol import methods
from agentd_client.protocol.limits import PROTOCOL_VERSION
from agentd_client.protocol.results import Hello, Verdict, Verification

from .dispatch import Caller, Dispatch
from .interface import Verifying
from .methods import HelloParams, VerifyTokenParams
from .parameters import presented_token
from .traffic import Traffic
from .turn import FairQueue

MAX_COUNTED = 16
"""Verifications that the store writes for at once, beside what the owner's requests write; those take turns
process by process too, but these are other users'."""


class VerifyOnlyMethods:
    """The handlers of both methods."""

    def __init__(self, sessions: Verifying, version: str, capabilities: list[str]) -> None:
        self._sessions = sessions
        self._hello = Hello(f"agentd {version}", PROTOCOL_VERSION, capabilities)

    def hello(self, params: HelloParams, caller: Caller) -> Hello:
        """What can be asked here."""
        return self._hello

    def verify_nowait(self, params: VerifyTokenParams, caller: Caller) -> Verdict | None:
        """Whether a token is good for this; None where the answer takes a write."""
        found = self._sessions.verify_nowait(
            presented_token(params.token), audience=params.audience, scopes=params.scopes, by=caller.identity
        )
        return None if found is None else _told(found)

    async def verify_and_consume(self, params: VerifyTokenParams, caller: Caller) -> Verdict:
        """The same, where a yes is counted."""
        return _told(
            await self._sessions.verify_and_consume(
                presented_token(params.token),
                audience=params.audience,
                scopes=params.scopes,
                by=caller.identity,
            )
        )


def _told(found: Verification) -> Verdict:
    # Of a token that is not valid no more than why not: who was refused for the wrong audience must not learn
    # which one to name next time.
    session = found.session
    if not found.valid or session is None:
        return Verdict(found.valid, found.reason, None, None)
    return Verdict(True, None, session.audience, session.scopes)


class _Discreet(Dispatch):
    """Tells of a failure of the agent's own its code, and its sentence without particulars.

    Those name paths and records, and are for the owner, who is told them at the owner's socket.
    """

    def _error_reply(self, msgid: int, name: str, error: Exception) -> bytes:
        if isinstance(error, AgentdError) and error.number != INVALID:
            error = ERRORS.get(error.code, AgentInternalError)()
        return super()._error_reply(msgid, name, error)


def verify_dispatch(
    sessions: Verifying, *, version: str, logger: logging.Logger, traffic: Traffic | None = None
) -> Dispatch:
    """The table of the verify socket.

    Args:
        sessions: verifies; must be running for as long as requests are answered.
        version: of agentd, for `hello`.
        logger: told of the agent's own failures; never of a token.
        traffic: where requests are counted, with those of the owner's socket.
    """
    dispatch = _Discreet(logger, traffic)
    capabilities: list[str] = []
    handlers = VerifyOnlyMethods(sessions, version, capabilities)
    dispatch.register(methods.HELLO, HelloParams, handlers.hello)
    dispatch.register(
        methods.VERIFY_TOKEN,
        VerifyTokenParams,
        handlers.verify_nowait,
        fallback=handlers.verify_and_consume,
        queue=FairQueue(MAX_COUNTED),
    )
    capabilities += dispatch.names
    return dispatch
