"""`agentctl approve` and `deny`: a person's answer to programs that ask for a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...blocking import Client
from ...durations import format_duration
from ...errors import NoSuchRequestError, NotWithinRequestError
from ...protocol.limits import MAX_REMEMBER_SECONDS, MAX_USES
from ...protocol.methods import to_wire
from ...protocol.results import APPROVE, DENY, PASSPHRASE, WAITING, Decision, RequestInfo
from ..exit_codes import DONE, NO
from ..options import AgentctlCommand, Settings
from ..output import OutputError, printable, show, write_now
from ..parameters import names, seconds, yes_option
from ..passphrase_options import at_most_one, passphrase_options
from ..report import present, remark, warn
from ..request_list import all_requests, meant, request_id, same
from ..request_view import Row, block, lines, summary, word
from ..table import terminal_width
from ..wording import ends

if TYPE_CHECKING:
    from ..passphrase import Asker

_QUESTION = "Approve? [y]es, [n]o, [s]kip: "
_SKIP = "skip"
_ANSWERS = {"y": APPROVE, "yes": APPROVE, "n": DENY, "no": DENY, "s": _SKIP, "skip": _SKIP, "": _SKIP}
"""Enter alone neither approves nor denies."""


class _Limits(NamedTuple):
    """What is granted of a request; None is all that it asks for. remember: for how long, if at all."""

    scopes: list[str] | None
    expiry: int | None
    max_uses: int | None
    remember: int | None

    def check(self, request: RequestInfo) -> None:
        """Raise NotWithinRequestError if this is more than was asked for, before a person is shown "only"."""
        excess = [
            option
            for option, is_more in (
                ("--scope", request.scopes is not None and not set(self.scopes or ()) <= set(request.scopes)),
                ("--ttl", request.expiry is not None and (self.expiry or 0) > request.expiry),
                ("--uses", request.max_uses is not None and (self.max_uses or 0) > request.max_uses),
            )
            if is_more
        ]
        if excess:
            raise NotWithinRequestError(
                f"{' and '.join(excess)}: more than request {word(request.id)} asks for; it still waits"
            )

    def rows(self) -> Iterator[Row]:
        """What a person has to see besides the request."""
        words = [
            *(() if self.scopes is None else (f"scopes {', '.join(map(printable, self.scopes))}",)),
            *(() if self.expiry is None else (f"for {format_duration(self.expiry)}",)),
            *(() if self.max_uses is None else (f"{self.max_uses} use{'' if self.max_uses == 1 else 's'}",)),
        ]
        if words:
            yield ("you grant", f"only {', '.join(words)}")
        if self.remember is not None:
            yield ("you allow", f"the same for {format_duration(self.remember)}, without asking again")


def _positive(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    found = seconds(context, parameter, value)
    if found == 0:
        raise click.BadParameter("must not be 0", context, parameter)
    return found


def _remember(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    found = _positive(context, parameter, value)
    if found is not None and found > MAX_REMEMBER_SECONDS:
        most = format_duration(MAX_REMEMBER_SECONDS)
        raise click.BadParameter(f"must be at most {most}", context, parameter)
    return found


@click.command("approve", cls=AgentctlCommand)
@click.argument("which", metavar="[ID]", required=False, callback=request_id)
@click.option(
    "--scope", "scopes", metavar="NAME", multiple=True, help="Grant only this scope of them; repeatable."
)
@click.option("--ttl", callback=_positive, metavar="20m|8h|90", help="Grant it only for so long.")
@click.option(
    "--uses", "max_uses", type=click.IntRange(1, MAX_USES), metavar="N", help="Grant only so many uses."
)
@click.option(
    "--remember",
    callback=_remember,
    metavar="1h|30m",
    help="Grant the same to the same program without asking for so long, at most until the next lock.",
)
@yes_option
@passphrase_options({"": "the passphrase"})
@click.pass_obj
def approve_command(
    settings: Settings,
    /,
    which: str | None,
    scopes: tuple[str, ...],
    ttl: int | None,
    max_uses: int | None,
    remember: int | None,
    yes: bool,
    **sources: Any,
) -> int:
    """Show a request for a session, and approve or deny it.

    ID is the request's id or its first characters. Without it, all that wait are shown, one after the other.
    Each is shown on the terminal, which is asked for a yes or a no; skipping one leaves it waiting. --yes
    needs the ID and does not ask.

    What a program says of itself stands in quotes; all else is what the agent knows. Less can be granted
    than is asked for, and never more. If `opening` in the agent's settings is "passphrase", approving
    needs the passphrase, which is asked for as `agentctl unlock` does, with the same options.

    It exits with 0 if all that it showed was approved, and with 1 if not, or if nothing waits. With --json it
    prints an object for each decision.
    """
    at_most_one(sources, "passphrase_fd", "passphrase_file", "askpass", "pinentry")
    limits = _Limits(names(scopes), ttl, max_uses, remember)
    context = click.get_current_context()
    if yes and which is None:
        raise click.UsageError("--yes needs the id of a request", context)
    with settings.connect() as agent:
        asked: Asker | None = None
        status = agent.get_status()
        if status.opening == PASSPHRASE:
            from ..passphrase import UNLOCK_SECONDS, asker_for_approval

            asked = asker_for_approval(status, sources)
            agent.timeout = settings.at_least(UNLOCK_SECONDS)
        approval = _Approval(settings, agent, limits, asked, ask=not yes)
        if which is not None:
            request = meant(all_requests(agent), which)
            if request.state != WAITING:
                raise NoSuchRequestError(f"request {word(request.id)} was approved before, and is remembered")
            return DONE if approval.decide(request) else NO
        if limits != _Limits(None, None, None, None) and len(_waiting(agent)) > 1:
            raise click.UsageError("several requests wait: give the id of the one that this is for", context)
        return _one_by_one(settings, agent, approval)


def _one_by_one(settings: Settings, agent: Client, approval: _Approval) -> int:
    seen: set[str] = set()
    all_approved = True
    # Listed anew each time: meanwhile some are gone, and others have come.
    while unseen := [request for request in _waiting(agent) if request.id not in seen]:
        seen.add(unseen[0].id)
        try:
            all_approved &= approval.decide(unseen[0])
        except NoSuchRequestError as error:
            warn(settings, error.sentence)
            all_approved = False
    if not seen:
        remark(settings, "no request is waiting")
    return DONE if seen and all_approved else NO


def _waiting(agent: Client) -> list[RequestInfo]:
    return [request for request in all_requests(agent) if request.state == WAITING]


class _Approval:
    """How requests are decided: with which limits, and whom to ask for what."""

    def __init__(
        self, settings: Settings, agent: Client, limits: _Limits, asked: Asker | None, *, ask: bool
    ) -> None:
        self._settings = settings
        self._agent = agent
        self._limits = limits
        self._asked = asked
        self._ask = ask

    def decide(self, request: RequestInfo) -> bool:
        """Show the request, and carry out what the person says; returns whether it was approved.

        Raises:
            NotWithinRequestError: what would be granted is more than it asks for.
            NoSuchRequestError: it ended, or is no longer what was shown.
        """
        self._limits.check(request)
        answer = self._answer(request)
        if answer == APPROVE:
            self._check_unchanged(request)
            decision = self._approve(request)
        elif answer == DENY:
            decision = self._agent.decide_request(request.id, DENY)
        else:
            remark(self._settings, f"request {word(request.id)} still waits")
            return False
        tell(self._settings, request, answer, decision)
        return answer == APPROVE

    def _answer(self, request: RequestInfo) -> str:
        def shown(width: int) -> Iterator[str]:
            return block([*lines(request, self._settings.now()), *self._limits.rows()], width)

        if not self._ask:
            present(self._settings, {"request": to_wire(request)}, shown(terminal_width()))
            return APPROVE
        from .. import terminal

        if not terminal.is_there():
            raise click.UsageError(
                "without a terminal to ask on, the id of a request and --yes are needed",
                click.get_current_context(),
            )
        return terminal.choice(shown, _QUESTION, _ANSWERS)

    def _check_unchanged(self, request: RequestInfo) -> None:
        """What is approved is what was shown."""
        for current in all_requests(self._agent):
            if current.id == request.id:
                if same(current, request):
                    return
                raise NoSuchRequestError(
                    f"request {word(request.id)} is not the one that was shown; nothing was approved"
                )
        raise NoSuchRequestError(
            f"request {word(request.id)} is gone: it was decided or withdrawn, or it has ended"
        )

    def _approve(self, request: RequestInfo) -> Decision:
        def approve(passphrase: bytearray | None) -> Decision:
            return self._agent.decide_request(
                request.id, APPROVE, **self._limits._asdict(), passphrase=passphrase
            )

        if self._asked is None:
            return approve(None)
        from ..passphrase import with_passphrase

        return with_passphrase(self._asked, f"Passphrase of agentd, to approve {word(request.id)}: ", approve)


def tell(settings: Settings, request: RequestInfo, answer: str, decision: Decision) -> None:
    """Print what was decided, at once: more may be asked."""
    try:
        show(
            settings,
            to_wire(decision) | {"decision": answer},
            human=lambda: _said(request, answer, decision, settings.now()),
        )
        write_now()
    except OutputError:
        done = "approved" if answer == APPROVE else "denied"
        warn(settings, f"request {word(request.id)} was {done} nevertheless")
        raise


def _said(request: RequestInfo, answer: str, decision: Decision, now: float) -> Iterator[str]:
    if answer == DENY:
        yield f"{'denied' if request.state == WAITING else 'forgotten'}: {summary(request, now)}"
        return
    session = f"session {printable(decision.session_id or '')}, {ends(decision.expires_at, now)}"
    yield f"approved: {word(request.id)}: {session}"
    if decision.remembered_until is not None:
        yield (
            f"the same is granted without asking for {format_duration(decision.remembered_until - now)}; "
            f"`agentctl deny {word(request.id)}` ends that"
        )


@click.command("deny", cls=AgentctlCommand)
@click.argument("which", metavar="[ID]", required=False, callback=request_id)
@click.pass_obj
def deny_command(settings: Settings, which: str | None) -> int:
    """Deny a request for a session, or forget an approval.

    ID is the request's id or its first characters; without it, the only one that waits is denied. An approval
    that is remembered is forgotten: the next time, the program has to wait for an answer again. The session
    that it was given stays; end it with `agentctl revoke`.

    It exits with 1 if nothing waits.
    """
    with settings.connect() as agent:
        if which is not None:
            request = meant(all_requests(agent), which)
        else:
            waiting = _waiting(agent)
            if not waiting:
                remark(settings, "no request is waiting")
                return NO
            if len(waiting) > 1:
                raise click.UsageError(
                    f"{len(waiting)} requests wait: give the id of one, which `agentctl requests` shows",
                    click.get_current_context(),
                )
            request = waiting[0]
        tell(settings, request, DENY, agent.decide_request(request.id, DENY))
    return DONE
