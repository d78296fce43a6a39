"""The blocking client: what it can be asked, and how a call is carried out. What is sent is in `protocol`."""

from __future__ import annotations

import os
import time

from .protocol import calls
from .protocol.calls import token_text
from .protocol.methods import SUBSCRIBE
from .protocol.reasons import MALFORMED
from .protocol.results import Verdict, Verification
from .transport.connection import CLIENT_NAME
from .transport.pool import Caller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self, TypeVar

    from .protocol.calls import Call, PassphraseText
    from .protocol.exchange import Answer
    from .protocol.results import AuditPage, CreatedToken, Hello, LockState, Protection, SessionPage, Status
    from .session import Session
    from .transport.events import Events

    T = TypeVar("T")


class Client(Caller):
    """The agent, from blocking code. Any number of threads may share one, and it may be used after fork(2).

    Every call may raise, beside its own errors and whatever else the agent refuses it with:

    - `AgentUnreachableError`: no agent is there, or it went away.
    - `AgentTimeoutError`: it did not answer in time, and nothing was changed.
    - `OutcomeUnknownError`: the answer to a call that changes something was lost; it was carried out or not.
    - `ForeignAgentError`: another user listens there than the one that is trusted; nothing was sent.
    - `ProtocolError`: what listens there is no agent.
    - `VersionsDifferError`, a `ProtocolError`: the agent is of another version; its answer cannot be read.
    - `InvalidMessageError`: the agent could not read the request, says why, and did not carry it out.
    - `InvalidParamsError`: an argument is of another type or outside of the range that is said.
    - `AgentLockedError`: the agent is locked and cannot know.
    - `ClientClosedError`: this client was closed.

    `timeout` is the seconds for a whole call, connecting and repeating included, and `patience` how many of
    them may go by waiting for an agent that is not there (None: all). Both may be changed at any time.
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
        try:
            connection = pool.take()
        except OSError:  # it may be starting
            connection = None
        if connection is None:
            from .transport.repeating import connect, run

            connection = run(connect(pool, client._attempts(None)))
        pool.give_back(connection)
        return client

    def close(self) -> None:
        """Close the connections. Calls under way in other threads end as they would; new ones are refused."""
        self._pools.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hello(self) -> Hello:
        """The agent's version and capabilities."""
        return self._carry_out(calls.hello(CLIENT_NAME))

    def get_status(self) -> Status:
        """The agent at a glance."""
        return self._carry_out(calls.get_status())

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
            audience: who may take the token for good; None is everyone.
            scopes: what the session is good for; None is everything.
            max_uses: how often it verifies; None is without limit.
            max_lifetime: whole seconds beyond which renewing does not go; `NEVER`; None for the agent's own.
            parent: a token of the session that this one narrows and ends with.
            bound: it ends with this process, or with the program that this process becomes (execve(2)).

        Raises:
            InvalidExpiryError, InvalidLabelError, InvalidAudienceError, InvalidScopesError,
            InvalidUsesError: the agent refuses one of them, or it cannot be sent at all.
            ParentNotValidError: the parent's session has ended.
            NotWithinParentError: it asks for more than the parent has.
            CannotBindError: the agent cannot watch this process.
        """
        return self._carry_out(
            calls.create_token(
                expiry,
                label,
                audience=audience,
                scopes=scopes,
                max_uses=max_uses,
                max_lifetime=max_lifetime,
                parent=parent,
                bound=bound,
            )
        )

    def verify_token(
        self, token: object, *, audience: str | None = None, scopes: Sequence[str] | None = None
    ) -> bool:
        """Whether this is the token of a session that goes on; False for anything else whatever.

        What cannot be a token is False without asking the agent. A session that is meant for certain
        audiences verifies only for one of them, and only with scopes that it has.

        Args:
            token: anything.
            audience: who asks.
            scopes: what the token has to be good for.
        """
        text = token_text(token)
        return text is not None and self._carry_out(calls.is_valid(text, audience, scopes))

    def check_token(
        self, token: object, *, audience: str | None = None, scopes: Sequence[str] | None = None
    ) -> Verification:
        """As `verify_token`, with the session, or the reason why not."""
        text = token_text(token)
        if text is None:
            return Verification(valid=False, reason=MALFORMED, session=None)
        return self._carry_out(calls.verify_token(text, audience=audience, scopes=scopes))

    def judge_token(
        self, token: object, *, audience: str | None = None, scopes: Sequence[str] | None = None
    ) -> Verdict:
        """As `verify_token`, with the reason why not, or the audience and scopes that the token has.

        At the verify socket, which tells no more, as at the owner's.
        """
        text = token_text(token)
        if text is None:
            return Verdict(valid=False, reason=MALFORMED, audience=None, scopes=None)
        return self._carry_out(calls.judge_token(text, audience=audience, scopes=scopes))

    def check_session(
        self,
        session: Session,
        *,
        audience: str | None = None,
        scopes: Sequence[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Verification:
        """Verify the session's token, and renew the session where that is due; the way to use a session.

        Once two thirds of its present lifetime have gone by, the session is renewed (`renew_token`) and the
        new token written to its file, by one process at a time. Where that fails, the answer is still that of
        the token at hand, and a later use tries again. Where the token is not valid and another has taken its
        place in the file meanwhile, the answer is about that one. Where the file holds no token, `reason` is
        "NOT_LOGGED_IN", a code of the client's own.

        Args:
            session: whose token; it may be running or not.
            audience: who asks.
            scopes: what the session has to be good for.
            clock: the present time, in seconds since 1970.

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
        """All that is known of a token, or of a session by its id. Looking is no use and changes nothing.

        Raises:
            InvalidParamsError: neither or both were given.
            InvalidTokenError: what was given cannot be a token.
        """
        return self._carry_out(calls.inspect_token(token, id, audience=audience, scopes=scopes))

    def renew_token(self, token: str) -> CreatedToken:
        """A new token for the same session, whose lifetime begins anew, up to its hard maximum.

        The token given stays good until the new one has been seen by the agent, and for some seconds more.

        Raises:
            TokenNotValidError: the session has ended, or the token was superseded.
        """
        return self._carry_out(calls.renew_token(token))

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
        """Some of the open sessions, newest first.

        Args:
            state: "active" or "expired".
            label: the label, in which * stands for any text and ? for any character.
            pid: the process that opened it.
            parent: the id of a session above it.
            after: the `next` of the page before.
            limit: how many at the most, from 1 to 16, which it is when left out.
        """
        return self._carry_out(
            calls.list_sessions(state=state, label=label, pid=pid, parent=parent, after=after, limit=limit)
        )

    def revoke_sessions(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        pid: int | None = None,
        parent: str | None = None,
    ) -> int:
        """End every session that fits all conditions, with those below it; how many fitted.

        The conditions are those of `list_sessions`; one has to be given (InvalidParamsError).
        """
        return self._carry_out(calls.revoke_sessions(state=state, label=label, pid=pid, parent=parent))

    def list_audit(
        self, *, since: float | None = None, after: str | None = None, limit: int | None = None
    ) -> AuditPage:
        """Some entries of the audit log, newest first.

        Args:
            since: seconds since 1970; what is older is left out.
            after: the `next` of the page before.
            limit: how many at the most, from 1 to 32, which it is when left out.
        """
        return self._carry_out(calls.list_audit(since=since, after=after, limit=limit))

    def revoke_token(self, token: str | None = None, *, id: str | None = None) -> bool:
        """End a session, by its token or by its id; whether there was one to end.

        Raises:
            InvalidParamsError: neither or both were given.
            InvalidTokenError: what was given cannot be a token.
        """
        return self._carry_out(calls.revoke_token(token, id))

    def reset_key(self, grace_seconds: int | None = None) -> str:
        """End all sessions, by replacing the session key; returns the new key's id.

        Args:
            grace_seconds: for so long tokens of the earlier key verify, and do nothing else. None is 0.

        Raises:
            InvalidGraceError: not a whole number of seconds from 0 to 604,800 (a week).
        """
        return self._carry_out(calls.reset_key(grace_seconds))

    def lock(self) -> LockState:
        """Lock the agent: it wipes its keys and answers nobody until it is unlocked.

        Raises:
            NoPassphraseError: its key file has no passphrase, so it could not be unlocked.
        """
        return self._carry_out(calls.lock())

    def unlock(self, passphrase: PassphraseText) -> LockState:
        """Unlock the agent; one that is not locked does not look at the passphrase.

        The agent needs about half a second, and after wrong passphrases of this process it waits up to 30
        seconds before it tries the next: see to a `timeout` that is longer.

        Args:
            passphrase: 1 to 1024 bytes; text stands for its UTF-8. A bytearray can be wiped afterwards, but
                copies of what was sent stay in this process until that memory is used anew.

        Raises:
            PassphraseError: it is wrong, or cannot be a passphrase.
            TooManyAttemptsError: too many passphrases wait; this one was not looked at.
            KeyFileError, StoreError: the key file or the store cannot be used; the agent stays locked.
        """
        return self._carry_out(calls.unlock(passphrase))

    def change_passphrase(
        self, old: PassphraseText | None = None, new: PassphraseText | None = None
    ) -> Protection:
        """Give the key file another passphrase, its first one, or none. The agent stays locked or unlocked.

        It takes some seconds, and waits as `unlock` does.

        Args:
            old: the present one; None where there is none.
            new: what takes its place; None for a plain key file.

        Raises:
            PassphraseError: the old one is wrong or was not given, or one of them cannot be a passphrase.
            AgentLockedError: a locked agent was to have none.
            TooManyAttemptsError: too many passphrases wait; this one was not looked at.
            KeyFileError: the key file cannot be read or written.
        """
        return self._carry_out(calls.change_passphrase(old, new))

    def subscribe(self) -> Events:
        """Connect for events; used as ``with agent.subscribe() as events: for event in events: ...``.

        What happens from now on comes, in its order, until the agent stops or `Events.close`. The connection
        is one beside those of the calls, and closing this client leaves it open. `timeout` is for connecting
        and for the agent's agreement; then events are waited for as long as it takes.
        """
        from .transport.events import Events, open_feed
        from .transport.repeating import run

        self._pools.here()
        return Events(run(open_feed(self.socket_path, self._attempts(SUBSCRIBE), self._pools.agent_uid)))

    def _carry_out(self, call: Call[T], seconds: float | None = None) -> T:
        # Every call of every program passes here: what a call without trouble does not need is not done.
        pool = self._pools.here()
        timeout = self._timeout if seconds is None else min(self._timeout, seconds)
        began = time.monotonic()
        answer: Answer[T] | None = None
        connection = pool.take_idle()
        if connection is not None:
            try:
                if connection.send_at_once(call) and connection.wait(timeout * 1000):
                    answer = connection.receive_at_once(call)
            except BaseException:  # interrupted: a late answer must not meet the next call
                pool.drop(connection)
                raise
            if answer is not None and answer.refusal is None:
                pool.give_back(connection)
                return answer.result  # type: ignore[return-value]
        from .transport.repeating import carry_out, run

        return run(carry_out(pool, call, self._attempts(call.method, timeout, began), connection, answer))
