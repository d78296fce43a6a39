"""The blocking client. What it sends is in `protocol`, how that gets to the agent in `transport`."""

from __future__ import annotations

import os
import time

from .errors import LocalParamsError
from .protocol import methods
from .protocol.methods import Call, sendable_audience, sendable_scopes, sendable_token, token_text
from .protocol.reasons import MALFORMED
from .protocol.results import Verdict, Verification
from .requesting import RequestingClient
from .transport.connection import INTRODUCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self, TypeVar

    from .protocol.exchange import Answer
    from .protocol.methods import Method
    from .protocol.results import AuditPage, CreatedToken, Hello, LockState, Protection, SessionPage, Status
    from .session import Session
    from .transport.events import Events

    T = TypeVar("T")

PassphraseText = str | bytes | bytearray


class Client(RequestingClient):
    """The agent, for blocking code. Thread-safe, and usable after fork(2).

    Besides its own errors and those that the agent answers with, every call may raise:

    - `AgentUnreachableError`: there is no agent, or it went away.
    - `AgentTimeoutError`: it did not answer in time, and nothing was changed.
    - `OutcomeUnknownError`: the answer to a change was lost; the agent may or may not have carried it out.
    - `ForeignAgentError`: somebody other than the trusted user listens there; nothing was sent.
    - `ProtocolError`: what listens there is not an agent.
    - `VersionsDifferError`, a `ProtocolError`: the agent's version is different and its answer unreadable.
    - `InvalidMessageError`: the agent could not read the request and did not carry it out; the text says why.
    - `InvalidParamsError`: an argument has the wrong type or is out of range.
    - `AgentLockedError`: the agent is locked and cannot answer.
    - `ClientClosedError`: this client was closed.
    """

    @classmethod
    def connect(
        cls,
        socket_path: str | os.PathLike[str] | None = None,
        timeout: float = 5.0,
        *,
        patience: float | None = None,
        agent_uid: int | None = None,
    ) -> Self:
        """Connect at once, so that a missing agent is noticed here.

        Args:
            socket_path: the agent's socket; None means the user's own (`agentd_client.paths.socket_path`).
            timeout: seconds for a whole call, including connecting and repeating; may be set at any time.
            patience: how many of them to wait for an agent that is not there, as it may be starting; None
                means all. May be set at any time.
            agent_uid: the user whose agent is trusted, if it is another user's; nothing is sent to anybody
                else who listens there. None means this process's own user.

        Raises:
            AgentUnreachableError, AgentTimeoutError, ForeignAgentError: as every call does.
            InvalidParamsError: the timeout is not 0 to 86400 seconds, or agent_uid is not a user id.
        """
        client = cls(socket_path, timeout, patience, agent_uid)
        pool = client._pools.here()
        try:
            connection = pool.take()
        except OSError:  # the agent may be starting
            connection = None
        if connection is None:
            from .transport.repeating import connect, run

            connection = run(connect(pool, client._attempts(None)))
        pool.give_back(connection)
        return client

    def close(self) -> None:
        """Close the connections. Calls in progress in other threads finish; new ones are refused."""
        self._pools.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hello(self) -> Hello:
        """The agent's version and capabilities."""
        return self._carry_out(INTRODUCTION)

    def get_status(self) -> Status:
        """The agent at a glance."""
        return self._carry_out(methods.GET_STATUS.call())

    def create_token(
        self,
        expiry: int | str | None = None,
        label: str | None = None,
        *,
        audience: Sequence[str] | None = None,
        scopes: Sequence[str] | None = None,
        max_uses: int | None = None,
        max_lifetime: int | str | None = None,
        parent: str | None = None,
        bound: bool = False,
    ) -> CreatedToken:
        """Open a session.

        Args:
            expiry: whole seconds, `NEVER`, or None for the agent's default.
            label: one line that says what the session is for.
            audience: who may accept the token; None is everyone.
            scopes: what the session is good for; None is everything.
            max_uses: how often it can be verified; None is without limit.
            max_lifetime: whole seconds that renewing cannot exceed; `NEVER`; None for the agent's default.
            parent: a token of the parent session, which this one narrows and ends with.
            bound: the session ends with this process, also after execve(2).

        Raises:
            InvalidExpiryError, InvalidLabelError, InvalidUsesError: the agent refuses that argument, or it
                cannot be sent at all.
            InvalidAudienceError, InvalidScopesError: the same.
            ParentNotValidError: the parent's session has ended.
            NotWithinParentError: it asks for more than the parent has.
            CannotBindError: the agent cannot watch this process.
        """
        return self._carry_out(
            methods.CREATE_TOKEN.call(
                expiry=expiry,
                label=label,
                audience=sendable_audience(audience),
                scopes=sendable_scopes(scopes),
                max_uses=max_uses,
                max_lifetime=max_lifetime,
                parent=None if parent is None else sendable_token(parent),
                bound=bound or None,
            )
        )

    def verify_token(
        self, token: object, *, audience: str | None = None, scopes: Sequence[str] | None = None
    ) -> bool:
        """Whether this is the token of a live session; False for anything else.

        What cannot be a token is False without asking the agent. A session with an audience verifies only
        for a member of it (`audience`: who asks), and only for scopes that it has (`scopes`: those needed).
        """
        text = token_text(token)
        if text is None:
            return False
        return self._carry_out(_question(methods.IS_VALID, text, audience, scopes))

    def check_token(
        self, token: object, *, audience: str | None = None, scopes: Sequence[str] | None = None
    ) -> Verification:
        """As `verify_token`; also returns the session, or the reason why it is not valid."""
        text = token_text(token)
        if text is None:
            return Verification(valid=False, reason=MALFORMED, session=None)
        return self._carry_out(_question(methods.VERIFY_TOKEN, text, audience, scopes))

    def judge_token(
        self, token: object, *, audience: str | None = None, scopes: Sequence[str] | None = None
    ) -> Verdict:
        """As `verify_token`; also returns the token's audience and scopes, or the reason why it is not valid.

        The answer is the same at the agent's own socket and at its verify socket, which does not say more.
        """
        text = token_text(token)
        if text is None:
            return Verdict(valid=False, reason=MALFORMED, audience=None, scopes=None)
        return self._carry_out(_question(methods.JUDGE_TOKEN, text, audience, scopes))

    def check_session(
        self,
        session: Session,
        *,
        audience: str | None = None,
        scopes: Sequence[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Verification:
        """Verify the session's token, and renew the session if that is due; the usual way to use a session.

        Once two thirds of its present lifetime have passed, the session is renewed (`renew_token`) and the
        new token written to the file, by one process at a time. If that fails, the answer is still that of
        the old token, and a later use tries again. If the token is not valid and was replaced in the file
        meanwhile, the answer is about the new one. If the file holds no token, `reason` is "NOT_LOGGED_IN",
        a code of the client. The session need not be running. `clock` returns seconds since 1970.

        Raises:
            TokenFileError: the token file cannot be read.
        """
        from .token_file.renewal import check, follow

        return follow(check(session, audience, scopes, clock), self._carry_out)

    def inspect_token(
        self,
        token: str | None = None,
        *,
        id: str | None = None,
        audience: str | None = None,
        scopes: Sequence[str] | None = None,
    ) -> Verification:
        """All that is known of a token, or of a session by its id. This changes nothing and is not a use.

        Raises:
            InvalidParamsError: neither or both were given.
            InvalidTokenError: what was given cannot be a token.
        """
        one = _token_or_id("inspect_token", token, id)
        return self._carry_out(
            methods.INSPECT_TOKEN.call(**one, audience=audience, scopes=sendable_scopes(scopes))
        )

    def renew_token(self, token: str) -> CreatedToken:
        """A new token for the same session, whose lifetime starts again, up to its hard maximum.

        The old token stays valid until the agent has seen the new one, and for some seconds more.

        Raises:
            TokenNotValidError: the session has ended, or the token was superseded.
        """
        return self._carry_out(methods.RENEW_TOKEN.call(token=sendable_token(token)))

    def list_sessions(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        pid: int | None = None,
        parent: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> SessionPage:
        """A page of the sessions, newest first.

        Args:
            state: "active" or "expired".
            label: a pattern for the label, in which * stands for any text and ? for any character.
            pid: the process that opened it.
            parent: the id of a session above it.
            after: the `next` of the previous page.
            limit: at most so many, from 1 to 16 (the default).
        """
        return self._carry_out(
            methods.LIST_SESSIONS.call(
                state=state, label=label, pid=pid, parent=parent, after=after, limit=limit
            )
        )

    def revoke_sessions(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        pid: int | None = None,
        parent: str | None = None,
    ) -> int:
        """End every session that matches all conditions, and those below it; returns how many matched.

        The conditions are those of `list_sessions`; at least one is needed (InvalidParamsError).
        """
        call = methods.REVOKE_SESSIONS.call(state=state, label=label, pid=pid, parent=parent)
        if not call.params:
            raise LocalParamsError(
                "revoke_sessions takes at least one condition; reset_key ends all sessions"
            )
        return self._carry_out(call)

    def list_audit(
        self,
        *,
        since: float | None = None,
        after: str | None = None,
        limit: int | None = None,
        kind: str | None = None,
        session: str | None = None,
    ) -> AuditPage:
        """A page of the audit log, newest first, without entries older than `since` (seconds since 1970).

        `after` is the `next` of the previous page, and `limit` at most 32 (the default). With `kind` and
        `session`, an id or how it begins, only entries of that kind and session.
        """
        return self._carry_out(
            methods.LIST_AUDIT.call(since=since, after=after, limit=limit, kind=kind, session=session)
        )

    def revoke_token(self, token: str | None = None, *, id: str | None = None) -> bool:
        """End a session, by its token or its id; returns whether there was one to end.

        Raises as `inspect_token` does.
        """
        return self._carry_out(methods.REVOKE_TOKEN.call(**_token_or_id("revoke_token", token, id)))

    def reset_key(self, grace_seconds: int | None = None) -> str:
        """End all sessions, by replacing the session key; returns the new key's id.

        Args:
            grace_seconds: how long tokens of the old key still verify, and do nothing else. None is 0.

        Raises:
            InvalidGraceError: not a whole number of seconds from 0 to 604,800 (a week).
        """
        return self._carry_out(methods.RESET_KEY.call(grace_seconds=grace_seconds))

    def lock(self) -> LockState:
        """Lock the agent: it wipes its keys and verifies nothing until it is unlocked.

        Raises:
            NoPassphraseError: its key file has no passphrase, so it could not be unlocked.
        """
        return self._carry_out(methods.LOCK.call())

    def unlock(self, passphrase: PassphraseText) -> LockState:
        """Unlock the agent; an agent that is not locked ignores the passphrase.

        The agent needs about half a second, and after wrong passphrases from this process it waits up to 30
        seconds before it tries the next one: set a longer `timeout`.

        Args:
            passphrase: 1 to 1024 bytes; text is encoded as UTF-8. A bytearray can be wiped afterwards, but
                copies of what was sent stay in this process until their memory is reused.

        Raises:
            PassphraseError: it is wrong, or cannot be a passphrase.
            TooManyAttemptsError: too many passphrase attempts are waiting; this one was not tried.
            KeyFileError, StoreError: the key file or the store cannot be used; the agent stays locked.
        """
        from .protocol.passphrases import sendable_passphrase  # few programs call this

        return self._carry_out(methods.UNLOCK.call(passphrase=sendable_passphrase(passphrase)))

    def change_passphrase(
        self, old: PassphraseText | None = None, new: PassphraseText | None = None
    ) -> Protection:
        """Set, change or remove the key file's passphrase; None stands for a key file without one.

        The agent stays locked or unlocked. It takes some seconds, and waits as `unlock` does.

        Raises:
            PassphraseError: the old one is wrong or missing, or one of them cannot be a passphrase.
            AgentLockedError: the passphrase of a locked agent cannot be removed.
            TooManyAttemptsError: too many passphrase attempts are waiting; this one was not tried.
            KeyFileError: the key file cannot be read or written.
        """
        from .protocol.passphrases import sendable_passphrase, settable_passphrase

        return self._carry_out(
            methods.CHANGE_PASSPHRASE.call(
                old=None if old is None else sendable_passphrase(old),
                new=None if new is None else settable_passphrase(new),
            )
        )

    def subscribe(self) -> Events:
        """Subscribe to events; used as ``with agent.subscribe() as events: for event in events: ...``.

        Events come in order from now on, until the agent stops or `Events.close`. They have a connection of
        their own, which stays open when this client is closed. `timeout` applies to subscribing; waiting for
        an event has no timeout.
        """
        from .transport.events import Events, open_feed
        from .transport.repeating import run

        self._pools.here()
        return Events(
            run(open_feed(self.socket_path, self._attempts(methods.SUBSCRIBE), self._pools.agent_uid))
        )

    def _carry_out(self, call: Call[T], seconds: float | None = None) -> T:
        # The hot path of every program: it does nothing that a call without trouble does not need.
        pool = self._pools.here()
        timeout = self._timeout if seconds is None else min(self._timeout, seconds)
        began = time.monotonic()
        answer: Answer[T] | None = None
        connection = pool.take_idle()
        if connection is not None:
            try:
                if connection.send_at_once(call) and connection.wait(timeout * 1000):
                    answer = connection.receive_at_once(call)
            except BaseException:  # interrupted: the next call must not get a late answer
                pool.drop(connection)
                raise
            if answer is not None and answer.error is None:
                pool.give_back(connection)
                return answer.result  # type: ignore[return-value]
        from .transport.repeating import carry_out, run

        return run(carry_out(pool, call, self._attempts(call.method, timeout, began), connection, answer))


def _question(method: Method[T], token: str, audience: str | None, scopes: Sequence[str] | None) -> Call[T]:
    if audience is None and scopes is None:  # as nearly always
        return Call(method, {"token": token})
    return method.call(token=token, audience=audience, scopes=sendable_scopes(scopes))


def _token_or_id(method: str, token: str | None, session_id: str | None) -> dict[str, str | None]:
    if (token is None) == (session_id is None):
        raise LocalParamsError(f"{method} takes either a token or an id")
    return {"id": session_id} if token is None else {"token": sendable_token(token)}
