"""The checks of memory and clocks."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from agentd.doctor.installation import Answer
from agentd.doctor.machine import (
    check_memory,
    judge_clocks,
    judge_cores,
    judge_lock,
    judge_process,
    judge_secret,
    judge_swap,
    may_lock,
)
from agentd.sessions import Instant
from tests.doctor.judging import NOW, STATUS, judged, with_facts

UNLOCKED = STATUS._replace(memory_locked=False)
NOT_SECRET = STATUS._replace(memory_secret=False)


@pytest.mark.parametrize(
    ("status", "limit", "may_lock_all", "severity"),
    [
        (None, 8 << 20, False, "ok"),
        (None, 4096, False, "warning"),
        (None, 4096, True, "ok"),
        (None, resource.RLIM_INFINITY, False, "ok"),
        (STATUS, 4096, False, "ok"),
        (UNLOCKED, 8 << 20, True, "warning"),
    ],
)
def test_locked_memory(status, limit, may_lock_all, severity):
    assert judged([judge_lock(status, limit, may_lock_all)]) == {"memory.lock": severity}


@pytest.mark.parametrize(
    ("status", "has_secret", "severity"),
    [
        (None, True, "ok"),
        (None, False, "note"),
        (STATUS._replace(memory_secret=True), False, "ok"),
        (NOT_SECRET, True, "note"),
        (NOT_SECRET, False, "note"),
    ],
)
def test_secret_memory(status, has_secret, severity):
    assert judged(judge_secret(status, has_secret)) == {"memory.secret": severity}


def test_an_agent_that_does_not_say_whether_its_memory_is_secret_is_an_older_one():
    assert list(judge_secret(STATUS, True)) == []


@pytest.mark.parametrize(("has_secret", "refuser"), [(True, "its unit"), (False, "this kernel or a limit")])
def test_whether_the_unit_or_the_kernel_refuses_secret_memory_is_named(has_secret, refuser):
    (found,) = judge_secret(NOT_SECRET, has_secret)
    assert f"because {refuser} refuses it" in found.says


@pytest.mark.parametrize(
    ("swap", "is_locked", "severity"),
    [([], False, "ok"), (["/dev/sda2"], True, "ok"), (["/dev/sda2"], False, "warning")],
)
def test_swap(swap, is_locked, severity):
    assert judged([judge_swap(swap, is_locked)]) == {"memory.swap": severity}


COREDUMP = "|/usr/lib/systemd/systemd-coredump %P"


@pytest.mark.parametrize(
    ("pattern", "limit", "severity"),
    [("core", 0, "ok"), ("core", resource.RLIM_INFINITY, "note"), (COREDUMP, 0, "note")],
)
def test_cores(pattern, limit, severity):
    assert judged([judge_cores(pattern, limit)]) == {"memory.cores": severity}


def test_where_cores_go_is_named_without_arguments():
    assert judge_cores(COREDUMP, 0).says.endswith("go to /usr/lib/systemd/systemd-coredump")


@pytest.mark.parametrize(
    ("core_limit", "is_closed", "expected"),
    [
        (0, True, {"memory.process": "ok"}),
        (0, None, {"memory.process": "ok"}),
        (1, True, {"memory.process": "warning"}),
        (resource.RLIM_INFINITY, True, {"memory.process": "warning"}),
        (0, False, {"memory.process": "warning"}),
        (None, None, {}),
    ],
)
def test_the_process_of_the_agent(core_limit, is_closed, expected):
    assert judged(judge_process(core_limit, is_closed)) == expected


def test_memory_is_judged_whether_or_not_an_agent_runs(tmp_path):
    names = {"memory.lock", "memory.secret", "memory.swap", "memory.cores"}
    assert set(judged(check_memory(with_facts(tmp_path, serving=[])))) == names
    running = with_facts(tmp_path, serving=[os.getpid()], answer=Answer(NOT_SECRET))
    assert set(judged(check_memory(running))) == names | {"memory.process"}


@pytest.mark.parametrize(("limit", "severity"), [(0, "ok"), (4096, "warning")])
def test_the_core_limit_of_the_agent_is_that_of_its_process(tmp_path, limit, severity):
    if 0 <= resource.getrlimit(resource.RLIMIT_CORE)[1] < limit:
        pytest.skip("no process may leave a core here")
    with subprocess.Popen(["sleep", "60"]) as child:
        resource.prlimit(child.pid, resource.RLIMIT_CORE, (limit, limit))
        found = judged(check_memory(with_facts(tmp_path, serving=[child.pid], answer=Answer(STATUS))))
        child.kill()
    assert found["memory.process"] == severity


def test_the_right_to_lock_memory_is_read_from_the_capabilities():
    assert may_lock("Name:\tx\nCapEff:\t000001ffffffffff\n")
    assert not may_lock("Name:\tx\nCapEff:\t0000000000000000\n")
    assert not may_lock("")


TIME = {"now": Instant(NOW, 100.0, "boot"), "newest": NOW - 10, "status": STATUS}


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
    assert judged(judge_clocks(**TIME | changed))[name] == severity


def test_without_agent_and_store_the_clock_has_two_findings():
    assert judged(judge_clocks(TIME["now"], None, None)) == {"clock.year": "ok", "clock.boot": "ok"}
