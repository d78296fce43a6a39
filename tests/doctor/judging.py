"""Installations for the doctor's checks, and what a check finds in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from agentd import __version__
from agentd.config import load
from agentd.doctor.findings import Finding
from agentd.doctor.installation import Installation
from agentd_client.protocol.results import Counters, Status

NOW = 1_790_000_000.0
STATUS = Status(
    __version__,
    "id",
    7,
    NOW - 100,
    100.0,
    0,
    "k",
    "/r/agent.sock",
    "/s/store",
    4096,
    True,
    Counters(*[0] * 7),
)


def installation(folder: Path, environ: Mapping[str, str] = os.environ, **settings: str) -> Installation:
    """An installation in that folder; a test may set facts about it, which are then not read."""
    given = {"socket_path": f"{folder}/agent.sock", "state_path": f"{folder}/state"} | settings
    return Installation(
        load(os.devnull, **given), config_path=os.devnull, config_failure=None, environ=environ
    )


def with_facts(folder: Path, **facts: object) -> Installation:
    made = installation(folder)
    for name, fact in facts.items():
        assert hasattr(type(made), name), name
        setattr(made, name, fact)
    return made


def documented() -> set[str]:
    """The names of findings in the manual."""
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    table = manual.partition("## The doctor")[2].partition("\n## ")[0]
    return set(re.findall(r"`(\w+\.\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))


def judged(findings: Iterable[Finding]) -> dict[str, str]:
    """The severity of each finding by its name; whatever is wrong says what to do."""
    findings = list(findings)
    assert {finding.name for finding in findings} <= documented()
    for finding in findings:
        assert finding.says
        assert finding.remedy or finding.severity.word in ("ok", "note")
    return {finding.name: finding.severity.word for finding in findings}
