"""The methods of the clients for requests: asking a person for a session, and deciding."""

from __future__ import annotations

from .protocol import methods
from .protocol.methods import sendable_scopes
from .transport.pool import ClientBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from .protocol.methods import Call
    from .protocol.results import Decision, GrantedToken, RequestedToken, RequestPage

    PassphraseText = str | bytes | bytearray
    T = TypeVar("T")


class RequestingClient(ClientBase):
    """The methods of `Client` for requests."""

    if TYPE_CHECKING:

        def _carry_out(self, call: Call[T], seconds: float | None = None) -> T: ...

    def request_token(
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
        """Ask for a session, and wait until a person has decided. Also at the agent's ask socket.

        Args:
            expiry: whole seconds, `NEVER`, or None for the agent's default.
            label: one line that says what the session is for.
            audience: who may accept the token; None is everyone.
            scopes: what the session is good for; None is everything.
            max_uses: how often it can be verified; None is without limit.
            parent: a token of the parent session; what lies within it needs no person.
            bound: the session ends with this process.
            reason: one line that says what it is needed for; the person is shown it as the words of this
                program.
            wait: seconds after which the request is withdrawn; None waits as long as the agent does, five
                minutes. `timeout` applies to each single answer of the agent.
            on_waiting: called once with the request if a person has to decide.

        Returns:
            The token, and what was granted, which may be less than what was asked for. The session cannot be
            renewed beyond its end.

        Raises:
            RequestDeniedError: a person said no.
            RequestExpiredError: nobody decided in time, or within `wait`.
            TooManyRequestsError: this program or user asks too often; nobody was asked.
            NotGrantableError: the agent's settings allow nobody to grant that.
            InvalidReasonError: the agent refuses the reason.
            InvalidExpiryError, InvalidLabelError, InvalidUsesError: as in `create_token`, and so are the
                next.
            InvalidAudienceError, InvalidScopesError: the same.
            ParentNotValidError, NotWithinParentError: the same.
        """
        from .asking import asked_for, follow_or_withdraw  # few programs call this

        asked = asked_for(
            expiry, label, audience, scopes, max_uses, reason, parent, bound, wait, self._timeout, on_waiting
        )
        return follow_or_withdraw(asked, self._carry_out)

    def list_requests(self, *, after: str | None = None, limit: int | None = None) -> RequestPage:
        """A page of the requests that wait for a person, and of those whose approval is remembered.

        `after` is the `next` of the previous page, and `limit` at most 12 (the default).
        """
        return self._carry_out(methods.LIST_REQUESTS.call(after=after, limit=limit))

    def decide_request(
        self,
        id: str,
        decision: str,
        *,
        scopes: Sequence[str] | None = None,
        expiry: int | str | None = None,
        max_uses: int | None = None,
        remember: int | None = None,
        passphrase: PassphraseText | None = None,
    ) -> Decision:
        """Decide about a request for a session. The first decision counts.

        Args:
            id: of the request.
            decision: `APPROVE` or `DENY`. Denying a remembered approval ends it.
            scopes: what is granted; None is what was asked for, here and below.
            expiry: how long, in whole seconds, or `NEVER`.
            max_uses: how often it can be verified.
            remember: for so many seconds, at most 86,400 and until the next lock, the same request of the
                same program is granted without asking.
            passphrase: the key file's, where the agent's settings (`opening`) require it. The agent needs
                about half a second, and after wrong ones it waits: see `unlock`.

        Raises:
            NoSuchRequestError: it was decided, withdrawn, or has ended.
            NotWithinRequestError: it grants more than was asked for; the request still waits.
            OwnRequestError: the request is this program's own; the request still waits.
            PassphraseError, TooManyAttemptsError: the passphrase is missing or wrong, or was not tried.
            ParentNotValidError, CannotBindError, StoreError: the session cannot be opened; the request still
                waits.
        """
        secret: bytes | bytearray | None = None
        if passphrase is not None:
            from .protocol.passphrases import sendable_passphrase  # few programs call this

            secret = sendable_passphrase(passphrase)
        return self._carry_out(
            methods.DECIDE_REQUEST.call(
                id=id,
                decision=decision,
                scopes=sendable_scopes(scopes),
                expiry=expiry,
                max_uses=max_uses,
                remember=remember,
                passphrase=secret,
            )
        )

    def withdraw_request(self, id: str) -> bool:
        """Withdraw a request of this process; returns whether it was still waiting."""
        return self._carry_out(methods.WITHDRAW_REQUEST.call(id=id))
