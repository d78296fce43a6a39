"""The checks of memory and clocks."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from agentd.doctor.installation import Limits
from agentd.doctor.machine import Clocks, Memory, may_lock
from agentd.sessions import Instant
from tests.doctor.judging import NOW, STATUS, judged

CALM = Memory(Limits(8 << 20, 0), None, False, True, None, [], "core", None)


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "memory.lock", "ok"),
        ({"limits": Limits(4096, 0)}, "memory.lock", "warning"),
        ({"limits": Limits(4096, 0), "unlimited": True}, "memory.lock", "ok"),
        ({"limits": Limits(4096, 0), "status": STATUS}, "memory.lock", "ok"),
        ({"status": STATUS._replace(memory_locked=False)}, "memory.lock", "warning"),
        ({}, "memory.secret", "ok"),
        ({"has_secret": False}, "memory.secret", "note"),
        ({"status": STATUS._replace(memory_secret=True), "has_secret": False}, "memory.secret", "ok"),
        ({"status": STATUS._replace(memory_secret=False)}, "memory.secret", "note"),
        ({"status": STATUS._replace(memory_secret=False), "has_secret": False}, "memory.secret", "note"),
        ({}, "memory.swap", "ok"),
        ({"swap": ["/dev/sda2"]}, "memory.swap", "ok"),
        ({"swap": ["/dev/sda2"], "limits": Limits(0, 0)}, "memory.swap", "warning"),
        ({"swap": ["/dev/sda2"], "status": STATUS._replace(memory_locked=False)}, "memory.swap", "warning"),
        ({}, "memory.cores", "ok"),
        ({"limits": Limits(8 << 20, math.inf)}, "memory.cores", "note"),
        ({"core_pattern": "|/usr/lib/systemd/systemd-coredump %P"}, "memory.cores", "note"),
        ({"agent_limits": Limits(8 << 20, 0), "is_closed": True}, "memory.process", "ok"),
        ({"agent_limits": Limits(8 << 20, 0)}, "memory.process", "ok"),
        ({"agent_limits": Limits(8 << 20, 1), "is_closed": True}, "memory.process", "warning"),
        ({"agent_limits": Limits(8 << 20, 0), "is_closed": False}, "memory.process", "warning"),
    ],
)
def test_memory(changed, name, severity):
    assert judged(replace(CALM, **changed))[name] == severity


def test_an_agent_that_does_not_say_whether_its_memory_is_secret_is_an_older_one():
    assert "memory.secret" not in judged(replace(CALM, status=STATUS))


def test_whether_the_unit_or_the_kernel_refuses_secret_memory_is_named():
    def says(**changed: object) -> str:
        facts = replace(CALM, status=STATUS._replace(memory_secret=False), **changed)
        return next(finding.says for finding in facts.judge() if finding.name == "memory.secret")

    assert "because its unit refuses it" in says()
    assert "because this kernel or a limit refuses it" in says(has_secret=False)


def test_a_hidden_process_is_no_finding():
    assert "memory.process" not in judged(replace(CALM, agent_limits=Limits(None, None)))
    assert "memory.process" not in judged(CALM)


def test_where_cores_go_is_named_without_arguments():
    facts = replace(CALM, core_pattern="|/usr/lib/systemd/systemd-coredump %P")
    (says,) = (finding.says for finding in facts.judge() if finding.name == "memory.cores")
    assert says.endswith("go to /usr/lib/systemd/systemd-coredump")


def test_the_right_to_lock_memory_is_read_from_the_capabilities():
    assert may_lock("Name:\tx\nCapEff:\t000001ffffffffff\n")
    assert not may_lock("Name:\tx\nCapEff:\t0000000000000000\n")
    assert not may_lock("")


TIME = Clocks(Instant(NOW, 100.0, "boot"), NOW - 10, STATUS)


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "clock.year", "ok"),
        ({"now": Instant(0.0, 1.0, "boot")}, "clock.year", "error"),
        ({"now": Instant(-5.0, 1.0, "boot")}, "clock.year", "error"),
        ({"now": Instant(5e9, 1.0, "boot")}, "clock.year", "error"),
        ({"now": Instant(1e30, 1.0, "boot")}, "clock.year", "error"),
        ({}, "clock.records", "ok"),
        ({"newest": NOW + 59}, "clock.records", "ok"),
        ({"newest": NOW + 61}, "clock.records", "warning"),
        ({"newest": 1e30}, "clock.records", "warning"),
        ({}, "clock.set", "ok"),
        ({"status": STATUS._replace(started_at=NOW)}, "clock.set", "note"),
        ({"status": STATUS._replace(uptime_seconds=10.0)}, "clock.set", "note"),
        ({}, "clock.boot", "ok"),
        ({"now": Instant(NOW, 1.0, "")}, "clock.boot", "warning"),
    ],
)
def test_the_clock(changed, name, severity):
    assert judged(replace(TIME, **changed))[name] == severity


def test_without_agent_and_store_the_clock_has_two_findings():
    assert judged(replace(TIME, newest=None, status=None)) == {"clock.year": "ok", "clock.boot": "ok"}
