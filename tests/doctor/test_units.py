"""The check of the systemd units."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agentd.doctor.units import Units, program_of
from tests.doctor.judging import judged

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
