"""What a check finds in given facts."""

from __future__ import annotations

from agentd.doctor.scene import Check


def judged(facts: Check) -> dict[str, str]:
    """The severity of each finding by its name; whatever is wrong says what to do."""
    findings = list(facts.judge())
    assert {finding.name for finding in findings} <= set(facts.NAMES)
    for finding in findings:
        assert finding.says
        assert finding.remedy or finding.severity.word in ("ok", "note")
    return {finding.name: finding.severity.word for finding in findings}
