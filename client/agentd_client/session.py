"""The caller's side of a session: its token in a file, with a life cycle.

The agent's record is the truth about a session. This object only keeps the token that proves it and never
asks the agent; `Client.check_session` does that, and stores the new token here when it renews the session.
"""

from __future__ import annotations

import os
from _thread import RLock
from contextlib import contextmanager

from . import paths
from .errors import LifecycleError, SessionDestroyedError, SessionRunningError
from .lifecycle import Lifecycle, LifecycleEvent, Observer, State
from .token_file import TokenClaim, TokenFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Protocol, Self

    class Logger(Protocol):
        """A `logging.Logger` or a look-alike: `logging` is slow to import and not needed here."""

        def debug(self, msg: object, *args: object) -> None:
            """Log a message for debugging."""


class Session:
    """A token file with a life cycle. Create it with `create_session`; a `with` block stops it at its end.

    It is thread-safe. Every method also raises what `TokenFile` raises.

    The token in the file changes over time: `Client.check_session` verifies it and renews the session once
    two thirds of its lifetime have passed, which replaces the token, one process at a time. So read the
    token each time that it is needed (`read_token`): a replaced one is soon refused.
    """

    def __init__(self, session_token_path: str | os.PathLike[str], logger: Logger | None = None) -> None:
        self._file = TokenFile(session_token_path)
        self._lifecycle = Lifecycle(running=SessionRunningError, destroyed=SessionDestroyedError)
        # Reentrant, so that an observer may read and write the token.
        self._lock = RLock()
        self._changing = False
        self._renewal_paused = (0.0, 0.0)
        if logger is not None:
            self._lifecycle.observe(lambda event: logger.debug("session %s: %s", self.path, event.value))

    @classmethod
    def create_session(
        cls,
        session_token_path: str | os.PathLike[str] | None = None,
        session_token: str | None = None,
        fresh: bool = False,
        logger: Logger | None = None,
    ) -> Self:
        """Construct and start; only `fresh` or an initial token touches the file.

        Args:
            session_token_path: the token file; None means the one that every program of this user shares
                (`agentd_client.paths.session_token_path`).
            session_token: an initial token, which is written to the file.
            fresh: remove an existing file first, whatever it is. An initial token stays.
            logger: logs every life cycle event; never a token.
        """
        session = cls(
            paths.session_token_path() if session_token_path is None else session_token_path, logger
        )
        session.start(session_token, fresh)
        return session

    def start(self, session_token: str | None = None, fresh: bool = False) -> None:
        """Start; when running, this does nothing. The arguments are those of `create_session`.

        Raises:
            SessionDestroyedError: the session was destroyed.
            InvalidTokenError: the initial token cannot be a token; the session stays stopped.
        """
        with self._change(self._lifecycle.starting) as needed:
            if not needed:
                return
            if session_token is not None:
                self._file.write(session_token, anew=fresh)  # atomically: the file is never without a token
            elif fresh:
                self._file.remove()

    def stop(self) -> None:
        """Stop; the file stays. When stopped or destroyed, this does nothing."""
        with self._change(self._lifecycle.stopping):
            pass  # nothing is held between calls: only the state and its observers change

    def destroy(self) -> None:
        """Remove the token file. This does not end the session at the agent: see `Client.revoke_token`.

        Raises:
            SessionRunningError: stop it first.
        """
        with self._change(self._lifecycle.destroying) as needed:
            if needed:
                self._file.remove()

    def read_token(self) -> str | None:
        """The token, running or not; None if there is none or the session was destroyed."""
        if self._lifecycle.state is State.DESTROYED:
            return None
        return self._file.read()

    def write_token(self, session_token: str) -> None:
        """Store another token, running or not; it is on the disk when this returns.

        Raises:
            InvalidTokenError: visible ASCII on one line, at most 8 KiB.
            SessionDestroyedError: the session was destroyed, and the token would outlive it.
        """
        with self._lock:
            self._require_not_destroyed()
            self._file.write(session_token)

    def exchange_token(self, session_token: str) -> str | None:
        """As `write_token`; returns the previous token, so that it can be revoked."""
        with self._lock:
            self._require_not_destroyed()
            return self._file.exchange(session_token)

    @property
    def path(self) -> str:
        """The token file's absolute path."""
        return self._file.path

    @property
    def state(self) -> State:
        """Stopped, running or destroyed."""
        return self._lifecycle.state

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` with every `LifecycleEvent`; returns the function that ends this.

        It runs in the thread that starts, stops or destroys, within that call. An exception at an "-ing"
        event ends the change; at an "-ed" event it goes to `sys.excepthook`, and the change stands. An
        observer may read and write the token, but not start, stop or destroy the session (`LifecycleError`).
        """
        return self._lifecycle.observe(observer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def _change(self, begin: Callable[[], AbstractContextManager[bool]]) -> Iterator[bool]:
        with self._lock:
            if self._changing:
                raise LifecycleError("an observer cannot start, stop or destroy the session that it observes")
            self._changing = True
            try:
                with begin() as needed:
                    yield needed
            finally:
                self._changing = False

    # Used by `renewal`, for both clients.

    def _claim_token(self) -> TokenClaim:
        # Without `_lock`, which `destroy` holds while it waits for the file's lock. Under the file's lock a
        # token only ever replaces its predecessor, so none is written after the file was removed.
        return self._file.claim()

    def _may_renew(self, now: float) -> bool:
        since, until = self._renewal_paused
        return not since <= now < until  # setting the clock back ends the pause

    def _pause_renewing(self, now: float, seconds: float) -> None:
        self._renewal_paused = (now, now + seconds)

    def _require_not_destroyed(self) -> None:
        if self._lifecycle.state is State.DESTROYED:
            raise SessionDestroyedError


__all__ = ["LifecycleEvent", "Session", "State"]
