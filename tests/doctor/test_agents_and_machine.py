"""The running agent, memory, clock, store and units: facts in, findings out."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from agentd import __version__
from agentd.doctor.agent import RunningAgent
from agentd.doctor.machine import Clocks, Memory, may_lock
from agentd.doctor.scene import Limits, StoreLook
from agentd.doctor.store import Store
from agentd.doctor.units import Units, program_of
from agentd.sessions import Instant
from agentd.store import OfflineCheck, Seals
from agentd.store.data_file import Meta
from agentd_client.errors import StoreDamagedError, StoreKeyMismatchError
from agentd_client.protocol.results import Counters, Status
from tests.doctor.judging import judged

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
AGENTS = RunningAgent("/r/agent.sock", "/s/store", [7], [7], STATUS, None, "", False)


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "agent.alone", "ok"),
        ({}, "agent.answer", "ok"),
        ({}, "agent.version", "ok"),
        ({}, "agent.places", "ok"),
        ({}, "agent.lock", "ok"),
        ({"status": STATUS._replace(locked=True, lock_reason="idle")}, "agent.lock", "note"),
        ({"storing": [8]}, "agent.alone", "error"),
        ({"serving": [], "storing": [8], "status": None}, "agent.alone", "error"),
        ({"status": None, "failure": "no agent answers; start one"}, "agent.answer", "error"),
        ({"status": None, "serving": [], "storing": []}, "agent.answer", "note"),
        ({"status": STATUS._replace(version="0.0.1")}, "agent.version", "warning"),
        ({"status": STATUS._replace(store_path="/t/store")}, "agent.places", "warning"),
        ({"is_enabled": True, "unit": "agentd.service"}, "agent.supervisor", "ok"),
        ({"is_enabled": True, "unit": "session-3.scope"}, "agent.supervisor", "warning"),
    ],
)
def test_agents(changed, name, severity):
    assert judged(replace(AGENTS, **changed))[name] == severity


def test_two_agents_are_both_named():
    found = next(iter(replace(AGENTS, storing=[8]).judge()))
    assert "process 7" in found.says
    assert "process 8" in found.says
    assert "`kill 7 8`" in found.remedy


@pytest.mark.parametrize(
    ("changed", "starts"),
    [
        ({}, "`agentd serve` starts it"),
        ({"is_enabled": True}, "the first connection starts it"),
        ({"is_awaited": True}, "the first connection starts it"),
    ],
)
def test_how_an_agent_that_does_not_run_is_started(changed, starts):
    facts = replace(AGENTS, status=None, serving=[], storing=[], **changed)
    assert [finding.says for finding in facts.judge()] == [f"no agent runs here; {starts}"]


def test_an_agent_without_a_supervisor_is_no_finding():
    assert "agent.supervisor" not in judged(AGENTS)
    assert "agent.supervisor" not in judged(replace(AGENTS, is_enabled=True, unit=None))
    assert "agent.alone" not in judged(replace(AGENTS, storing=[]))


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


WHOLE = OfflineCheck(Meta(4096, 9, 5), problems=[], seals=Seals(7, 7, 0, []))
DAMAGED = StoreDamagedError("it is cut short; restore it")
MISMATCH = StoreKeyMismatchError("it was sealed with another key; put it back")


def judged_store(
    examined: OfflineCheck | None, failure: str | None = None, sealed: str | None = None
) -> dict[str, str]:
    return judged(Store("/s", StoreLook(examined, failure, sealed), 1 << 30))


def test_a_whole_store():
    fine = {
        "store.file": "ok",
        "store.structure": "ok",
        "store.key": "ok",
        "store.seals": "ok",
        "store.room": "ok",
    }
    assert judged_store(WHOLE) == fine
    assert judged_store(WHOLE._replace(seals=Seals(100, 1000, 0, []))) == fine
    assert judged_store(WHOLE._replace(problems=None)) == fine | {"store.structure": "note"}


@pytest.mark.parametrize(
    ("look", "free_bytes", "has_file_left", "severity"),
    [
        (StoreLook(), 1 << 30, True, "ok"),
        (StoreLook(), (1 << 20) - 1, True, "error"),
        (StoreLook(), 1 << 20, True, "warning"),
        (StoreLook(), 1 << 30, False, "error"),
        (StoreLook(WHOLE), 0, True, "warning"),
        (StoreLook(failure="/s: Permission denied"), 0, True, "warning"),
    ],
)
def test_the_room_that_a_store_needs(look, free_bytes, has_file_left, severity):
    assert judged(Store("/s", look, free_bytes, has_file_left))["store.room"] == severity


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (StoreLook(), {"store.file": "note"}),
        (StoreLook(failure="/s: Permission denied"), {"store.file": "error"}),
        (StoreLook(OfflineCheck(error=DAMAGED)), {"store.file": "error"}),
        (StoreLook(OfflineCheck(overtaken=True)), {"store.structure": "note"}),
        (StoreLook(WHOLE._replace(problems=["page 3 is …", "page 4 is …"], seals=None)), {"store.file": "ok", "store.structure": "error"}),
        (StoreLook(WHOLE._replace(key_error=MISMATCH, seals=None)), {"store.file": "ok", "store.structure": "ok", "store.key": "error"}),
        (StoreLook(WHOLE._replace(key_error=DAMAGED, seals=None)), {"store.file": "ok", "store.structure": "ok", "store.key": "error"}),
        (StoreLook(WHOLE._replace(seals=None), sealed="that is not the passphrase", is_passphrase_refused=True), {"store.file": "ok", "store.structure": "ok", "store.seals": "warning"}),
        (StoreLook(WHOLE._replace(seals=None), sealed="it is locked; unlock it"), {"store.file": "ok", "store.structure": "ok", "store.seals": "note"}),
        (StoreLook(WHOLE._replace(seals=Seals(7, 7, 4, ["a", "b", "c"]))), {"store.file": "ok", "store.structure": "ok", "store.key": "ok", "store.seals": "error"}),
    ],
)  # fmt: skip
def test_a_store_that_is_not_whole(look, expected):
    assert judged(Store("/s", look, None)) == expected


def test_a_sample_is_called_one_and_broken_seals_are_named():
    facts = Store("/s", StoreLook(WHOLE._replace(seals=Seals(100, 1000, 0, []))), None)
    assert [finding.says for finding in facts.judge()][
        -1
    ] == "100 of 1000 values, drawn at random, are genuine"
    facts = Store("/s", StoreLook(WHOLE._replace(seals=Seals(9, 9, 4, ["a", "b", "c"]))), None)
    assert [finding.says for finding in facts.judge()][-1].endswith("by this agent: a, b, c, …")


SERVICE = 'ExecStart="/v/bin/python" -I -m agentd serve\nReadWritePaths="-/s/agentd" "-%t/agentd"\n'
UNITS = Units(
    {"agentd.socket": "", "agentd.service": SERVICE},
    True, "/v/bin/python", True, "/s/agentd", {"agentd": "/b/agentd", "agentctl": "/b/agentctl"}, True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "units.files", "ok"),
        ({"units": {}}, "units.files", "note"),
        ({"units": {"agentd.socket": ""}}, "units.files", "error"),
        ({}, "units.enabled", "ok"),
        ({"is_enabled": False}, "units.enabled", "warning"),
        ({}, "units.program", "ok"),
        ({"has_program": False}, "units.program", "error"),
        ({"has_program": False, "program": ""}, "units.program", "error"),
        ({}, "units.state", "ok"),
        ({"state_path": "/t/agentd"}, "units.state", "error"),
        ({"state_path": "/s"}, "units.state", "error"),
        ({}, "user.lingering", "ok"),
        ({"lingers": False}, "user.lingering", "note"),
        ({}, "path.commands", "ok"),
        ({"commands": {"agentd": "/b/agentd", "agentctl": None}}, "path.commands", "warning"),
    ],
)
def test_units(changed, name, severity):
    assert judged(replace(UNITS, **changed))[name] == severity


def test_the_program_of_a_unit_is_read_as_systemd_reads_it():
    assert program_of(SERVICE) == "/v/bin/python"
    assert program_of("ExecStart=/v/bin/python -I\n") == "/v/bin/python"
    assert program_of('ExecStart="/of 100%% & co/\\"x\\"/\\\\y" -I\n') == '/of 100% & co/"x"/\\y'
    assert program_of("[Service]\n") == ""


def test_without_systemd_lingering_means_nothing():
    assert "user.lingering" not in judged(replace(UNITS, lingers=None))


def test_a_state_folder_with_characters_that_systemd_escapes_is_found():
    service = SERVICE.replace("/s/agentd", '/s/100%% \\"a\\"')
    facts = replace(UNITS, units=UNITS.units | {"agentd.service": service}, state_path='/s/100% "a"')
    assert judged(facts)["units.state"] == "ok"
