"""The table of checks, and the round that carries all of them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from . import (
    agents,
    clock,
    folders,
    key_file,
    memory,
    settings_file,
    socket_place,
    start,
    store,
    token_file,
    units,
)
from .finding import Finding
from .scene import Scene


class Check(NamedTuple):
    """One subject: what its findings are called, where its facts come from, and what they mean.

    gather: reads the system and judges nothing; raises nothing of what it can meet there. judge: pure.
    """

    names: tuple[str, ...]
    gather: Callable[[Scene], Any]
    judge: Callable[[Any], Iterable[Finding]]


CHECKS = tuple(
    Check(subject.NAMES, subject.gather, subject.judge)
    for subject in (
        settings_file,
        start,
        socket_place,
        agents,
        folders,
        key_file,
        store,
        token_file,
        memory,
        clock,
        units,
    )
)
"""In the order in which they are told."""


def examined(scene: Scene) -> list[Finding]:
    """What every check finds."""
    return [finding for check in CHECKS for finding in check.judge(check.gather(scene))]
