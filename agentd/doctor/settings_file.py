"""The settings file: whether the agent can use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from .finding import Finding, note, ok, refused
from .scene import Scene

FILE = "settings.file"
NAMES = (FILE,)


class Facts(NamedTuple):
    """target: what the file is, links followed; empty where there is none.

    failure: why the agent would refuse the settings, who could change them included; None where it would not.
    """

    path: str
    target: str
    failure: str | None


def gather(scene: Scene) -> Facts:
    """Look for the file; what it says was read with the settings."""
    path = os.path.abspath(scene.config_path)
    return Facts(path, os.path.realpath(path) if os.path.exists(path) else "", scene.config_failure)


def judge(facts: Facts) -> Iterator[Finding]:
    """One finding."""
    if facts.failure is not None:
        remedy = "" if "; " in facts.failure else "; mend that: until then the agent does not start"
        yield refused(FILE, f"{facts.failure}{remedy}")
    elif not facts.target:
        yield note(FILE, f"{facts.path} is not there, so the defaults count")
    else:
        link = "" if facts.target == facts.path else f", which leads to {facts.target},"
        yield ok(FILE, f"{facts.path}{link} can be used")
