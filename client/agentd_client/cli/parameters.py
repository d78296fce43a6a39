"""Options that several commands share: lengths of time, names, and the conditions that choose sessions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..durations import parse_duration
from ..protocol.methods import NEVER
from ..protocol.results import ACTIVE, EXPIRED
from .current_token import session_id
from .options import Settings

_SECONDS_SINCE_1970 = r"[0-9]{10,11}|[0-9]{1,11}\.[0-9]{1,9}"
"""With a fraction, as pipes get it, or so many that as a length of time it would be 31 years."""

_TIME_OF_DAY = r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?"

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def expiry(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    """The callback of a session's length of time: whole seconds from 1, or `NEVER`."""
    found = _duration(context, parameter, value)
    if found == 0:  # the protocol has it; on a command line it is a slip that ends a working session
        raise click.BadParameter("is 0, and the session would be over at once", context, parameter)
    return found


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """The callback of a length of time that ends: whole seconds."""
    found = _duration(context, parameter, value)
    if isinstance(found, str):
        raise click.BadParameter(f"is a length of time, not {NEVER}", context, parameter)
    return found


def moment(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """The callback of a point in time: seconds since 1970.

    By how long ago it was, or as these commands print it: seconds since 1970, a time of the day, a date.
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
            "is neither how long ago (90, 30m, 8h, 2d) nor a time (09:30, 09:30:15), a date (2030-01-31, "
            "2030-01-31T09:30) or seconds since 1970",
            context,
            parameter,
        ) from None


def _date(value: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(value).timestamp()  # local time where it names no zone


def _time_of_day(value: str, now: float) -> float:
    """The last time that the clock showed this."""
    from datetime import datetime, time, timedelta

    today = datetime.fromtimestamp(now)
    at = datetime.combine(today.date(), time.fromisoformat(value))
    return (at if at <= today else at - timedelta(days=1)).timestamp()


def _filled(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value == "":  # an unset shell variable; it must not choose every session without a label
        raise click.BadParameter("is empty", context, parameter)
    return value


def names(given: tuple[str, ...]) -> list[str] | None:
    """The values of an option that can be repeated; None where it was not given, which means all."""
    return list(given) or None


asked_audience = click.option(
    "--audience", metavar="NAME", help="Who asks, as the session's audience names it."
)
asked_scopes = click.option(
    "--scope", "scopes", metavar="NAME", multiple=True, help="What it has to be good for; may be repeated."
)
"""What `verify` and `inspect` ask for."""

given_audience = click.option(
    "--audience",
    "audience",
    metavar="NAME",
    multiple=True,
    help="Who may take its token for good; may be repeated.  [default: anyone]",
)
given_scopes = click.option(
    "--scope",
    "scopes",
    metavar="NAME",
    multiple=True,
    help="What it is good for; may be repeated.  [default: everything]",
)
given_uses = click.option(
    "--max-uses",
    type=click.IntRange(min=1),
    metavar="N",
    help="How often it verifies.  [default: without limit]",
)
"""What a new session gets."""

_CONDITIONS = (
    click.option("--state", type=click.Choice((ACTIVE, EXPIRED)), help="Only those in that state."),
    click.option(
        "--label",
        metavar="PATTERN",
        callback=_filled,
        help="Only those whose label fits; * is any text, ? any character.",
    ),
    click.option(
        "--pid", type=click.IntRange(min=1), metavar="PID", help="Only those that this process opened."
    ),
    click.option("--parent", metavar="ID", callback=session_id, help="Only those below that session."),
)


def conditions(function: AnyFunction) -> AnyFunction:
    """Give a command the options that choose sessions: state, label, pid, parent."""
    for option in reversed(_CONDITIONS):
        function = option(function)
    return function
