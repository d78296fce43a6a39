"""What the agent is asked, over time, for a plot of one line.

The agent counts requests of all methods together, so verifications cannot be told apart and the plot does not
claim to show them. The requests of this program are left out. Refused tokens are counted from the events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

MAX_SAMPLES = 300
"""Ten minutes, in samples of two seconds: more than the widest terminal shows."""

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.:-=+*#"
NO_SAMPLE = " "


class Activity:
    """Samples per second, the newest last; None where the agent could not be asked."""

    def __init__(self) -> None:
        self.requests: deque[float | None] = deque(maxlen=MAX_SAMPLES)
        self.refused: deque[float | None] = deque(maxlen=MAX_SAMPLES)
        self._before: tuple[float, int] | None = None
        self._refused = 0

    def count_refused(self, times: int = 1) -> None:
        """Tokens were refused."""
        self._refused += times

    def sample(self, at: float, total: int, own: int) -> None:
        """Take the agent's count.

        Args:
            at: seconds on a clock that is not set.
            total: the requests that the agent has had since it started.
            own: those of them that this program made.
        """
        others = total - own
        before, self._before = self._before, (at, others)
        refused, self._refused = self._refused, 0
        if before is None or at <= before[0]:
            return
        seconds = at - before[0]
        self.requests.append(max(others - before[1], 0) / seconds)
        self.refused.append(refused / seconds)

    def interrupt(self) -> None:
        """The agent cannot be asked any more, or has started again."""
        if self._before is not None:
            self.requests.append(None)
            self.refused.append(None)
        self._before = None
        self._refused = 0


def plot(samples: Sequence[float | None], width: int, bars: str = BARS) -> str:
    """The newest samples as bars, one column each, of which the highest is the most of those that are shown.

    Only zero has the lowest bar.
    """
    shown = list(samples)[-width:] if width > 0 else []
    most = max((value for value in shown if value is not None), default=0.0)
    return "".join(_bar(value, most, bars) for value in shown).rjust(max(width, 0))


def _bar(value: float | None, most: float, bars: str) -> str:
    if value is None:
        return NO_SAMPLE
    if value <= 0 or most <= 0:
        return bars[0]
    top = len(bars) - 1
    return bars[max(1, min(top, round(value / most * top)))]


def per_second(value: float | None) -> str:
    """A rate: "12/s", below ten with a decimal."""
    if value is None:
        return "?"
    return f"{value:.1f}/s" if 0 < value < 9.95 else f"{value:.0f}/s"
