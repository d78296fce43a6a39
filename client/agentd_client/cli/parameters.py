"""Options that several commands share: durations, names, and the conditions that choose sessions."""

from __future__ import annotations

import re

import click

from ..durations import parse_duration
from ..protocol.methods import NEVER
from ..protocol.results import ACTIVE, EXPIRED
from ..transport.pool import MAX_UID
from .current_token import session_id
from .options import AnyFunction, Settings, not_empty

_SECONDS_SINCE_1970 = r"[0-9]{10,11}|[0-9]{1,11}\.[0-9]{1,9}"
"""With a fraction, as pipes get it, or with so many digits that it cannot be a duration: 31 years."""

_TIME_OF_DAY = r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?"


def ttl(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    """The callback of a session's time to live: whole seconds from 1, or `NEVER`."""
    found = _duration(context, parameter, value)
    if found == 0:  # allowed by the protocol; on a command line it is a mistake
        raise click.BadParameter("must not be 0, as the session would end at once", context, parameter)
    return found


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """The callback of a finite duration: whole seconds."""
    found = _duration(context, parameter, value)
    if isinstance(found, str):
        raise click.BadParameter(f"must be a duration, not {NEVER}", context, parameter)
    return found


def moment(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """The callback of a point in time; returns seconds since 1970.

    It is given as a duration before now, or as these commands print it: seconds since 1970, a time of day, a
    date.
    """
    if value is None:
        return None
    now = context.ensure_object(Settings).now()
    if re.fullmatch(_SECONDS_SINCE_1970, value):
        return float(value)
    try:
        ago = parse_duration(value)
        if isinstance(ago, int):
            return now - ago
    except ValueError:
        pass  # then it is a date
    try:
        return _time_of_day(value, now) if re.fullmatch(_TIME_OF_DAY, value) else _date(value)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            "must be how long ago (90, 30m, 8h, 2d), a time (09:30, 09:30:15), a date (2030-01-31, "
            "2030-01-31T09:30) or seconds since 1970",
            context,
            parameter,
        ) from None


def _date(value: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(value).timestamp()  # local time where it names no zone


def _time_of_day(value: str, now: float) -> float:
    """The last time at which the clock showed this."""
    from datetime import datetime, time, timedelta

    today = datetime.fromtimestamp(now)
    at = datetime.combine(today.date(), time.fromisoformat(value))
    return (at if at <= today else at - timedelta(days=1)).timestamp()


def names(given: tuple[str, ...]) -> list[str] | None:
    """The values of a repeatable option; None if it was not given, which means all."""
    return list(given) or None


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")

asked_audience = click.option(
    "--audience", metavar="NAME", help="Who asks, by its name in the session's audience."
)
asked_scopes = click.option(
    "--scope", "scopes", metavar="NAME", multiple=True, help="A scope that is needed; repeatable."
)
"""For `verify` and `inspect`."""

given_audience = click.option(
    "--audience",
    "audience",
    metavar="NAME",
    multiple=True,
    help="Who may accept its token; repeatable.  [default: anyone]",
)
given_scopes = click.option(
    "--scope",
    "scopes",
    metavar="NAME",
    multiple=True,
    help="What it is good for; repeatable.  [default: everything]",
)
given_uses = click.option(
    "--max-uses",
    type=click.IntRange(min=1),
    metavar="N",
    help="How often it can be verified.  [default: unlimited]",
)
"""For a new session."""

agent_uid_option = click.option(
    "--agent-uid",
    type=click.IntRange(0, MAX_UID),
    metavar="UID",
    help="The user whose agent is at --socket.  [default: you]",
)

_CONDITIONS = (
    click.option("--state", type=click.Choice((ACTIVE, EXPIRED)), help="Only sessions in this state."),
    click.option(
        "--label",
        metavar="PATTERN",
        callback=not_empty,
        help="Only sessions whose label matches; * is any text, ? any character.",
    ),
    click.option(
        "--pid", type=click.IntRange(min=1), metavar="PID", help="Only sessions that this process opened."
    ),
    click.option("--parent", metavar="ID", callback=session_id, help="Only sessions below this one."),
)


def conditions(function: AnyFunction) -> AnyFunction:
    """Add the options that choose sessions: state, label, pid, parent."""
    for option in reversed(_CONDITIONS):
        function = option(function)
    return function
