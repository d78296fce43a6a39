"""Facts for the doctor's checks, and what a check finds in them."""

from __future__ import annotations

from agentd import __version__
from agentd.doctor.installation import Check
from agentd_client.private import Fault
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
OPEN = Fault("/r", "it is open to others (mode 0777)", "run `chmod 700 /r`")


def judged(facts: Check) -> dict[str, str]:
    """The severity of each finding by its name; whatever is wrong says what to do."""
    findings = list(facts.judge())
    assert {finding.name for finding in findings} <= set(facts.NAMES)
    for finding in findings:
        assert finding.says
        assert finding.remedy or finding.severity.word in ("ok", "note")
    return {finding.name: finding.severity.word for finding in findings}
