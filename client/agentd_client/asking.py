"""Asking for a session, written once for both clients: ask, then poll for the outcome."""

from __future__ import annotations

import time
from contextlib import suppress

from .errors import AgentdError, RequestExpiredError
from .protocol import methods
from .protocol.methods import Call, sendable_audience, sendable_scopes, sendable_token
from .protocol.results import GrantedToken
from .token_file.renewal import Ask, follow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .protocol.results import RequestedToken
    from .token_file.renewal import Steps

WITHDRAWAL_SECONDS = 1.0
"""For withdrawing a request that the caller no longer waits for."""

_LONGEST_CALL_SECONDS = 20.0
"""How long the agent lets one call wait. The connection is in use meanwhile, and a peer that went away is
noticed with the next call."""


def asked_for(
    expiry: int | str | None,
    label: str | None,
    audience: Sequence[str] | None,
    scopes: Sequence[str] | None,
    max_uses: int | None,
    reason: str | None,
    parent: str | None,
    bound: bool,
    wait: float | None,
    timeout: float,
    on_waiting: Callable[[RequestedToken], None] | None,
) -> Asked:
    """The request with these arguments of `Client.request_token`, for either client."""
    call = methods.REQUEST_TOKEN.call(
        expiry=expiry,
        label=label,
        audience=sendable_audience(audience),
        scopes=sendable_scopes(scopes),
        max_uses=max_uses,
        reason=reason,
        parent=None if parent is None else sendable_token(parent),
        bound=bound or None,
        wait=0,
    )
    return Asked(call, wait, timeout, on_waiting)


class Asked:
    """A request under way.

    withdrawal: the call that withdraws it; None while there is nothing to withdraw.
    """

    def __init__(
        self,
        call: Call[RequestedToken],
        wait: float | None,
        timeout: float,
        on_waiting: Callable[[RequestedToken], None] | None,
    ) -> None:
        self._call = call
        self._wait = wait
        # The answer has to come within the client's timeout, also from an agent that is busy.
        self._call_seconds = min(timeout / 2, _LONGEST_CALL_SECONDS)
        self._on_waiting = on_waiting
        self.withdrawal: Call[bool] | None = None

    def steps(self) -> Steps[GrantedToken]:
        """Ask, and ask again for the answer until there is one."""
        until = None if self._wait is None else time.monotonic() + self._wait
        found: RequestedToken = yield Ask(self._call)
        if found.token is None:
            self.withdrawal = methods.WITHDRAW_REQUEST.call(id=found.id)
            if self._on_waiting is not None:
                self._on_waiting(found)
        while found.token is None:
            seconds = self._call_seconds
            if until is not None and (left := until - time.monotonic()) < seconds:
                seconds = max(left, 0.0)
            found = yield Ask(methods.AWAIT_TOKEN.call(id=found.id, wait=seconds))
            if found.token is None and until is not None and time.monotonic() >= until:
                raise RequestExpiredError(f"nobody decided within {self._wait:g} s; the request is withdrawn")
        self.withdrawal = None
        return _granted(found)


def _granted(found: RequestedToken) -> GrantedToken:
    assert found.token is not None
    assert found.session_id is not None, "a token is of a session"
    return GrantedToken(
        found.token, found.session_id, found.expires_at, found.audience, found.scopes, found.max_uses
    )


def follow_or_withdraw(asked: Asked, carry_out: Callable[[Call[Any], float | None], Any]) -> GrantedToken:
    """Run the steps of the blocking client; withdraw the request if they are interrupted or fail."""
    try:
        return follow(asked.steps(), carry_out)
    except BaseException:  # nobody is to be asked in vain
        if asked.withdrawal is not None:
            with suppress(AgentdError):  # it ends with this process in any case
                carry_out(asked.withdrawal, WITHDRAWAL_SECONDS)
        raise
