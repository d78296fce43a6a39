"""`agentctl status`: the agent, and whether this caller is logged in."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ... import __version__
from ...blocking import Client
from ...durations import format_duration
from ...errors import AgentLockedError, TokenFileError
from ...protocol.methods import to_wire, token_text
from ...protocol.reasons import MALFORMED
from ...protocol.results import Status, Verification
from ...token_file.renewal import NOT_LOGGED_IN
from ...versions import difference_from
from ..current_token import current_token
from ..options import AgentctlCommand, Settings
from ..output import Row, aligned, colour, printable, show
from ..report import warn
from ..wording import (
    described,
    lock_state,
    memory_state,
    moment,
    opening_state,
    passphrase_state,
    size,
    why_not,
)

UNKNOWN = Verification(False, AgentLockedError.code, None)
"""The answer about a token while the agent is locked: neither yes nor no."""


@click.command("status", cls=AgentctlCommand)
@click.pass_obj
def status_command(settings: Settings) -> None:
    """Show the agent and whether you are logged in.

    It exits with 0 if the agent answers, locked or not, logged in or not.
    """
    try:
        found = current_token(settings)
    except TokenFileError as error:
        found = None
        warn(settings, error.sentence)
    with settings.connect() as agent:
        status = agent.get_status()
        answer = NOT_LOGGED_IN
        if found is not None:
            answer = UNKNOWN if status.locked else _inspected(agent, found.text)
    if not status.memory_locked:
        warn(settings, "the agent's keys are not in locked memory and may be swapped out; raise `ulimit -l`")
    differing = difference_from(status.version, __version__)
    if differing is not None:
        warn(settings, differing)
    login = to_wire(answer)
    valid = login.pop("valid")
    show(
        settings,
        {"agent": to_wire(status), "loggedIn": None if answer is UNKNOWN else valid, **login},
        human=lambda: aligned([*_agent_rows(status), _login_row(answer, settings.now())]),
    )


def _inspected(agent: Client, token: str) -> Verification:
    if token_text(token) is None:  # a variable may have any value
        return Verification(False, MALFORMED, None)
    return agent.inspect_token(token)


def _agent_rows(status: Status) -> Iterator[Row]:
    uptime = format_duration(status.uptime_seconds)
    yield ("agent", f"agentd {printable(status.version)}, process {status.pid}, up {uptime}")
    if status.agent_id is not None:
        yield ("agent id", printable(status.agent_id))
    yield ("socket", printable(status.socket_path))
    held = "" if status.store_bytes is None else f", {size(status.store_bytes)}"
    yield ("store", printable(status.store_path) + held)
    yield ("state", lock_state(status))
    yield ("opening", opening_state(status))
    yield ("passphrase", passphrase_state(status))
    yield ("memory", memory_state(status))
    if status.key_id is not None:
        yield ("key id", printable(status.key_id))
    if status.sessions is not None:
        yield ("sessions", str(status.sessions))
    counters = status.counters
    traffic = f"{counters.requests} requests on {counters.connections} connections"
    refused = f"{counters.refusals} refused, {counters.peers_refused + counters.connections_cut_off} peers"
    yield ("traffic", f"{traffic}; {refused} refused or cut off")


def _login_row(answer: Verification, now: float) -> Row:
    if answer is NOT_LOGGED_IN:
        return ("you", why_not(answer.reason))
    if answer is UNKNOWN:
        return ("you", "unknown while the agent is locked; `agentctl unlock` unlocks it")
    if not answer.valid:
        return ("you", f"{colour('not logged in', 'red')}: {why_not(answer.reason)}")
    if answer.session is None:
        return ("you", colour("logged in", "green"))
    until = "" if answer.session.expires_at is None else f" (until {moment(answer.session.expires_at)})"
    return ("you", f"{colour('logged in', 'green')}: {described(answer.session, now)}{until}")
