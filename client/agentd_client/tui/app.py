"""What each key does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

import click
from textual.binding import Binding, BindingType
from textual.widgets import Input

from ..cli.commands.inspect import session_rows
from ..cli.current_token import NotLoggedInError
from ..cli.request_view import Row
from ..cli.request_view import lines as request_rows
from ..cli.wording import ends, named
from ..errors import AgentdError, OwnRequestError, PassphraseError
from ..passphrase_input import wipe
from ..protocol.results import PASSPHRASE, WAITING, Decision, RequestInfo
from ..shown_text import printable
from .dialogues import Notice, Passphrase, Question, said, table_lines
from .help import HELP
from .narrowing import Grant, Narrow
from .view import View

if TYPE_CHECKING:
    from ..cli.options import Settings

_FAILURES = (AgentdError, NotLoggedInError, click.ClickException, OSError)
"""What an action may end with; anything else is a fault of this program."""


def _one_at_a_time(action: Callable[[TopApp], Coroutine[Any, Any, None]]) -> Callable[[TopApp], None]:
    """An action that asks the person. While one does, keys begin no other.

    Between a question and the passphrase, say, the view has the keys, and they may be typed ahead.
    """

    async def carry_out(app: TopApp) -> None:
        try:
            await action(app)
        finally:
            app.is_asking = False

    @wraps(action)
    def begin(app: TopApp) -> None:
        if not app.is_asking:
            app.is_asking = True
            app.run_worker(carry_out(app))

    return begin


class TopApp(View):
    """The live view.

    failure: the error that ended it, for whoever started it to report. is_asking: an action is not over yet.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c,ctrl+q", "quit", show=False),
        Binding("a", "approve", show=False),
        Binding("n", "narrow", show=False),
        Binding("d", "deny", show=False),
        Binding("r", "revoke", show=False),
        Binding("i,enter", "inspect", show=False),
        Binding("R", "renew", show=False),
        Binding("L", "lock", show=False),
        Binding("slash", "filter", show=False),
        Binding("escape", "unfilter", show=False),
        Binding("question_mark", "help", show=False),
        Binding("ctrl+z", "suspend_process", show=False),
    ]

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.failure: Exception | None = None
        self.is_asking = False

    def _handle_exception(self, error: Exception) -> None:
        self.failure = self.failure or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        # Textual would print a traceback with the values of all variables, a passphrase among them.
        self._close_messages_no_wait()

    @_one_at_a_time
    async def action_approve(self) -> None:
        """Approve the request at the cursor as it is."""
        request = self._waiting_request()
        if request is not None:
            await self._approve(request, Grant())

    @_one_at_a_time
    async def action_narrow(self) -> None:
        """Approve less than was asked for."""
        request = self._waiting_request()
        if request is None:
            return
        grant = await self.push_screen_wait(Narrow(request))
        if grant is not None:
            await self._approve(request, grant)

    @_one_at_a_time
    async def action_deny(self) -> None:
        """Deny the request at the cursor, or forget a remembered approval."""
        request = self._chosen_request()
        if request is None:
            self.say("there is no request")
            return
        is_waiting = request.state == WAITING
        title, verb = ("Deny this request?", "deny") if is_waiting else ("Forget this approval?", "forget")
        if await self._agreed(title, request, verb, ()):
            with self._reported(f"Could not {verb} it"):
                await self.actions.deny(request.id)
                self.say("denied" if is_waiting else "forgotten: the next such request is asked about again")

    @_one_at_a_time
    async def action_revoke(self) -> None:
        """End the session at the cursor of the sessions, and those below it."""
        session_id = self.sessions.key
        session = None if session_id is None else self.model.sessions.get(session_id)
        if session is None:
            self.say("there is no session")
            return
        below = self.model.sessions.below(session.id)
        known = "" if self.model.sessions.is_complete else " or more"
        tree = f" and the {below}{known} session{'' if below == 1 else 's'} below it" if below else ""
        text = f"{named(session.id, session.label)}, {ends(session.expires_at, self.now())}.\n"
        ending = f"This ends it{tree}: {below + 1}{known} in all." if below else f"This ends it{tree}."
        if await self.push_screen_wait(Question("Revoke?", said(text + ending), "revoke")):
            with self._reported("Could not revoke it"):
                ended = await self.actions.revoke(session.id)
                self.model.sessions.end(session.id)
                self.say("revoked" if ended else "the session had already ended")

    @_one_at_a_time
    async def action_lock(self) -> None:
        """Lock the agent."""
        text = (
            "It wipes its keys and answers no verification until `agentctl unlock`. Sessions stay; requests "
            "are gone."
        )
        if await self.push_screen_wait(Question("Lock the agent?", said(text), "lock")):
            with self._reported("Could not lock it"):
                await self.actions.lock()
                self.say("locked")

    @_one_at_a_time
    async def action_renew(self) -> None:
        """Renew the session of the token file, and no other: it takes a token."""
        with self._reported("Could not renew your own session"):
            created = await self.actions.renew()
            self.say(f"renewed your own session {created.id}, {ends(created.expires_at, self.now())}")
            self.feed.look_again(created.id)

    @_one_at_a_time
    async def action_inspect(self) -> None:
        """Show all of what is at the cursor."""
        request = self._chosen_request()
        if self.requests.has_focus and request is not None:
            about: list[Row] = list(request_rows(request, self.now()))
            await self.push_screen_wait(Notice("Request", table_lines(lambda: about)))
            return
        session_id = self.sessions.key
        session = None if session_id is None else self.model.sessions.get(session_id)
        if session is not None:
            rows = list(session_rows(session, self.now()))
            await self.push_screen_wait(Notice("Session", table_lines(lambda: rows)))

    @_one_at_a_time
    async def action_help(self) -> None:
        """Say what the keys do."""
        await self.push_screen_wait(Notice("agentctl top", said(HELP)))

    def action_filter(self) -> None:
        """Ask for the text to look for."""
        self.filter.display = True
        self.arrange()
        self.filter.focus()

    def action_unfilter(self) -> None:
        """Show all sessions again."""
        self.filter.value = ""
        self._close_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as it is typed."""
        if event.input is self.filter:
            self.look_for(event.value.strip())

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter."""
        if event.input is self.filter:
            self._close_filter()

    def on_key(self) -> None:
        """Take away what was said about the last action."""
        self.say("")

    def _close_filter(self) -> None:
        self.filter.display = False
        self.sessions.focus()
        self.arrange()

    def _chosen_request(self) -> RequestInfo | None:
        request_id = self.requests.key
        return None if request_id is None else self.model.request(request_id)

    def _waiting_request(self) -> RequestInfo | None:
        request = self._chosen_request()
        if request is None:
            self.say("no request is waiting")
        elif request.state != WAITING:
            self.say("it is approved already; d forgets that")
        else:
            return request
        return None

    async def _agreed(self, title: str, request: RequestInfo, verb: str, more: Iterable[Row]) -> bool:
        """Whether the person says yes to this request, all of which was shown, while it is still there."""
        rows = [*more, *request_rows(request, self.now())]
        agreed = await self.push_screen_wait(
            Question(
                title,
                table_lines(lambda: rows),
                verb,
                still=lambda: self.model.request(request.id) is not None,
            )
        )
        if self.model.request(request.id) is None:
            self.say("the request has ended")
            return False
        return agreed

    async def _approve(self, request: RequestInfo, grant: Grant) -> None:
        granted = list(grant.rows())
        title = "Approve LESS than it asks for?" if granted else "Approve this request?"
        if not await self._agreed(title, request, "approve", granted):
            return
        status = self.model.status
        is_asked, problem = status is not None and status.opening == PASSPHRASE, ""
        while True:
            passphrase: bytearray | None = None
            if is_asked:
                text = f"{problem}\n" if problem else ""
                text += f"It approves the request {printable(request.id)}, and unlocks nothing."
                passphrase = await self.push_screen_wait(Passphrase(said(text)))
                if passphrase is None:
                    self.say("nothing was approved")
                    return
            try:
                decision = await self.actions.approve(request.id, grant, passphrase)
            except PassphraseError as error:
                is_asked, problem = True, error.sentence
            except OwnRequestError as error:
                # A program must not approve what it asked for; who knows the passphrase is no program.
                if is_asked or status is None or not status.protected:
                    self._report("Could not approve it", error)
                    return
                is_asked, problem = True, error.sentence
            except AgentdError as error:
                self._report("Could not approve it", error)
                return
            else:
                self._approved(decision)
                return
            finally:
                if passphrase is not None:
                    wipe(passphrase)

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            self._report(what, error)

    def _report(self, what: str, error: Exception) -> None:
        self.push_screen(Notice(what, said(_sentence(error))))

    def _approved(self, decision: Decision) -> None:
        which = f"session {decision.session_id}, {ends(decision.expires_at, self.now())}"
        self.say(f"approved: {which}")
        self.feed.look_again(decision.session_id)


def _sentence(error: Exception) -> str:
    if isinstance(error, AgentdError):
        return error.sentence
    if isinstance(error, NotLoggedInError):
        return "not logged in; `agentctl login` opens a session"
    if isinstance(error, click.ClickException):
        return error.format_message()
    return str(error.strerror) if isinstance(error, OSError) else type(error).__name__
