"""`agentctl watch`: events, one line each, until the agent stops or the user ends it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ...errors import AgentUnreachableError
from ...protocol.methods import to_wire
from ...protocol.results import (
    APPROVED,
    CREATED,
    DENIED,
    FORGOTTEN,
    KEY_RESET,
    LOCKED,
    MISSED,
    REFUSED,
    RENEWED,
    REQUESTED,
    REVOKED,
    SESSION_EXPIRED,
    STOPPING,
    UNLOCKED,
    WITHDRAWN,
    Event,
)
from .. import interrupts
from ..exit_codes import DONE
from ..options import AgentctlCommand, Settings
from ..output import colour, is_terminal, printable, show_json, show_line, write_now
from ..report import remark
from ..request_view import quoted
from ..table import cut, terminal_width
from ..wording import PASSPHRASE, UNANSWERED, clock, process_name, request_named, what_and_why

SHORT_ID = 13
"""The part of an id that is its time: sessions only share it if opened within the same millisecond."""

_COLOURS = {
    CREATED: "green",
    RENEWED: "green",
    REVOKED: "yellow",
    SESSION_EXPIRED: "yellow",
    REFUSED: "red",
    KEY_RESET: "red",
    LOCKED: "yellow",
    UNLOCKED: "green",
    PASSPHRASE: "yellow",
    STOPPING: "red",
    REQUESTED: "magenta",
    APPROVED: "green",
    DENIED: "red",
    UNANSWERED: "yellow",
    WITHDRAWN: "yellow",
    FORGOTTEN: "yellow",
}
_LEAST_LABEL = 8
_KIND_WIDTH = max(map(len, _COLOURS))


@click.command("watch", cls=AgentctlCommand)
@click.pass_obj
def watch_command(settings: Settings) -> int:
    """Show events as they happen.

    Events are about sessions, requests for them, locking and unlocking, and the passphrase. On a terminal
    each event is a line; in a pipe, and with --json, a JSON object on a line. It exits with 0 on Ctrl-C, when
    nobody reads its output any more, or when the agent stops, and with 69 if the connection to the agent is
    lost. Events that are read too slowly are dropped, and the next one says how many.
    """
    last = None
    try:
        with settings.connect() as agent, agent.subscribe() as events:
            for event in events:
                if not _show(settings, event):
                    return DONE
                last = event.kind
    except KeyboardInterrupt:
        interrupts.forget()
        return DONE
    if last != STOPPING:
        raise AgentUnreachableError(
            "the connection to the agent was lost; check whether it still runs, and its log"
        )
    remark(settings, "the agent has stopped")
    return DONE


def _show(settings: Settings, event: Event) -> bool:
    """Print an event at once; returns whether anybody still reads."""
    if settings.json or not is_terminal():
        show_json(to_wire(event))
    else:
        for line in _lines(event, terminal_width()):
            show_line(line)
    return write_now()


def _lines(event: Event, width: int) -> Iterator[str]:
    if event.missed:
        yield colour(f"you missed {event.missed} event{'' if event.missed == 1 else 's'}", "red")
    if event.kind == MISSED:
        return
    word, why = what_and_why(event.kind, event.reason)
    kind = word.ljust(_KIND_WIDTH)
    about = printable(event.session_id or "")[:SHORT_ID].ljust(SHORT_ID)
    request = request_named(event.request_id)
    rest = [text for text in (why, request, process_name(event.peer_pid, None)) if text]
    # Only the label is cut: its length is up to whoever opened the session.
    room = width - sum(2 + len(text) for text in rest) - len("HH:MM:SS") - len(kind) - len(about) - 3 * 2
    if room < _LEAST_LABEL:
        room += len(about) + 2
        about = ""
    said = quoted(event.label) if event.label and event.request_id is not None else printable(event.label)
    label = cut(said, max(room, _LEAST_LABEL))
    texts = [text for text in (about, label, *rest) if text]
    shown = [clock(event.at), colour(kind, _COLOURS.get(word, "cyan")), *texts]
    yield "  ".join(shown).rstrip()
