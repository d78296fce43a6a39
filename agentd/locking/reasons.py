"""Why an agent is locked, and what locks it by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

ASKED = "asked"
"""A peer said so."""

START = "start"
"""It was not unlocked since it started."""

SUSPEND = "suspend"
"""The machine is about to sleep."""

SCREEN_LOCK = "screen lock"
"""One of the user's sessions at this machine was locked."""

IDLE = "idle"
"""Nobody made or verified a token for as long as the settings allow."""

SIGNAL = "signal"
"""Somebody sent the agent the signal that locks it."""

Lock = Callable[[str], Awaitable[None]]
"""Locks the agent for one of the reasons above, and returns when the keys are gone from memory.

It is called for an agent that is locked already, and while another call of it is under way.
"""
