"""The clocks that sessions end by: a year that can be, and nothing that was written later than now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from agentd_client.durations import format_duration
from agentd_client.protocol.results import Status

from ..sessions import Instant, SystemClock
from ..sessions.records import timestamp_in_path
from .finding import Finding, error, note, ok, warning
from .scene import Scene

YEAR, RECORDS, SET, BOOT = "clock.year", "clock.records", "clock.set", "clock.boot"
NAMES = (YEAR, RECORDS, SET, BOOT)

YEARS = range(2025, 2100)
"""Before its beginning there was no agentd; a clock beyond its end stands at the limit of some counter."""

TOLERATED_SECONDS = 60.0
"""NTP corrects a clock by less."""

_MEND = "set the clock (`timedatectl set-ntp true`)"
_MAX_SECONDS = 253_402_300_799.0  # the end of the year 9999, where datetime ends


class Facts(NamedTuple):
    """newest: when the newest record was written, seconds since 1970; None where that is not known."""

    now: Instant
    newest: float | None
    status: Status | None


def gather(scene: Scene) -> Facts:
    """Read the clocks, the newest record's time, and when the agent says it started."""
    examined = scene.store.examined
    # Read last: what the agent writes meanwhile must not look as if it were from the future.
    status = scene.answer.status
    moments = [timestamp_in_path(path) for path in examined.newest] if examined is not None else []
    newest = max((moment for moment in moments if moment is not None), default=None)
    return Facts(SystemClock().read(), newest, status)


def judge(facts: Facts) -> Iterator[Finding]:
    """Up to four findings."""
    yield _judge_year(facts.now.wall)
    if facts.newest is not None:
        yield _judge_records(facts.now.wall, facts.newest)
    if facts.status is not None:
        yield _judge_set(facts.now.wall, facts.status)
    if facts.now.boot_id:
        yield ok(BOOT, "sessions end by the clock of this boot as well, which nobody can set")
    else:
        yield warning(
            BOOT,
            "the id of this boot cannot be read, so sessions end by the wall clock alone",
            "mount /proc where the agent runs",
        )


def _judge_year(wall: float) -> Finding:
    if not 0 <= wall <= _MAX_SECONDS or datetime.fromtimestamp(wall, UTC).year not in YEARS:
        return error(YEAR, f"the clock says {_shown(wall)}, so no session ends when it should", _MEND)
    return ok(YEAR, f"the clock says {_shown(wall)}")


def _judge_records(wall: float, newest: float) -> Finding:
    if newest > wall + TOLERATED_SECONDS:
        behind = format_duration(newest - wall)
        return warning(
            RECORDS,
            f"the clock is {behind} behind the newest record ({_shown(newest)}): "
            "it is wrong now, or it was wrong then",
            f"{_MEND}; if it was wrong then, `agentctl reset-key`: sessions of that time last too long",
        )
    return ok(RECORDS, f"the newest record is of {_shown(newest)}")


def _judge_set(wall: float, status: Status) -> Finding:
    moved = wall - (status.started_at + status.uptime_seconds)
    if abs(moved) > TOLERATED_SECONDS:
        direction = "forward" if moved > 0 else "back"
        return note(
            SET,
            f"the clock was set {direction} by {format_duration(abs(moved))} since the agent started",
            "sessions of this boot end in time all the same; see that the clock is right now",
        )
    return ok(SET, "the clock was not set since the agent started")


def _shown(wall: float) -> str:
    if not 0 <= wall <= _MAX_SECONDS:
        return f"{wall:.0f} seconds since 1970"
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
