"""The check of the systemd units."""

from __future__ import annotations

import pytest

from agentd.doctor.units import check_units, judge_lingering, program_of
from tests.doctor.judging import installation, judged

SERVICE = 'ExecStart="/v/bin/python" -I -m agentd serve\nReadWritePaths="-/s/agentd" "-%t/agentd"\n'


@pytest.fixture
def home(tmp_path):
    """A home with both units, and the socket enabled."""
    units, commands = tmp_path / "systemd" / "user", tmp_path / "bin"
    (units / "sockets.target.wants").mkdir(parents=True)
    commands.mkdir()
    (commands / "python").touch(0o755)
    for name in ("agentd.socket", "sockets.target.wants/agentd.socket"):
        (units / name).touch()
    write_service(tmp_path, f"{tmp_path}/state")
    return tmp_path


def write_service(home, state: str) -> None:
    text = f'ExecStart="{home}/bin/python" -I -m agentd serve\nReadWritePaths="-{state}" "-%t/agentd"\n'
    (home / "systemd" / "user" / "agentd.service").write_text(text)


def judged_units(home, **settings: str) -> dict[str, str]:
    made = installation(home, {"PATH": f"{home}/bin"}, **settings)
    made.unit_folders = [home / "nothing", home / "systemd" / "user"]
    found = judged(check_units(made))
    found.pop("user.lingering", None)
    return found


FINE = dict.fromkeys(("units.files", "units.enabled", "units.program", "units.state"), "ok")


def test_units_as_they_are_installed(home):
    assert judged_units(home) == FINE


@pytest.mark.parametrize(
    ("removed", "changed"),
    [
        ("systemd/user/sockets.target.wants/agentd.socket", {"units.enabled": "warning"}),
        ("bin/python", {"units.program": "error"}),
    ],
)
def test_what_is_missing_is_found(home, removed, changed):
    (home / removed).unlink()
    assert judged_units(home) == FINE | changed


def test_a_program_without_the_right_to_execute_it_is_an_error(home):
    (home / "bin" / "python").chmod(0o644)
    assert judged_units(home) == FINE | {"units.program": "error"}


def test_a_service_that_starts_nothing_is_an_error(home):
    service = home / "systemd" / "user" / "agentd.service"
    service.write_text(service.read_text().partition("\n")[2])
    assert judged_units(home) == FINE | {"units.program": "error"}


def test_one_unit_without_the_other_is_an_error_and_none_a_note(home):
    (home / "systemd" / "user" / "agentd.service").unlink()
    assert judged_units(home) == {"units.files": "error"}
    (home / "systemd" / "user" / "agentd.socket").unlink()
    assert judged_units(home) == {"units.files": "note"}


@pytest.mark.parametrize("state", ["/t/agentd", "/s"])
def test_a_state_folder_that_the_service_may_not_write_to_is_an_error(home, state):
    write_service(home, "/s/agentd")
    assert judged_units(home, state_path="/s/agentd") == FINE
    assert judged_units(home, state_path=state) == FINE | {"units.state": "error"}


def test_a_state_folder_with_characters_that_systemd_escapes_is_found(home):
    write_service(home, '/s/100%% \\"a\\"')
    assert judged_units(home, state_path='/s/100% "a"') == FINE


def test_lingering():
    assert judged([judge_lingering(True)]) == {"user.lingering": "ok"}
    assert judged([judge_lingering(False)]) == {"user.lingering": "note"}


def test_the_program_of_a_unit_is_read_as_systemd_reads_it():
    assert program_of(SERVICE) == "/v/bin/python"
    assert program_of("ExecStart=/v/bin/python -I\n") == "/v/bin/python"
    assert program_of('ExecStart="/of 100%% & co/\\"x\\"/\\\\y" -I\n') == '/of 100% & co/"x"/\\y'
    assert program_of("[Service]\n") == ""
