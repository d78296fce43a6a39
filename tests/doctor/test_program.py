"""The check of how agentd was installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.distribution import Installed, Way
from agentd.doctor.program import check_program, judge_logind
from agentd.doctor.units import check_units
from tests.doctor.judging import installation, judged

FINE = {"program.installed": "ok", "path.commands": "ok", "program.logind": "ok"}


@pytest.fixture
def made(tmp_path):
    """An installation with both commands in PATH."""
    for command in ("agentd", "agentctl"):
        (tmp_path / command).touch(0o755)
    made = installation(tmp_path, {"PATH": str(tmp_path)})
    made.installed = Installed(Way.PIPX, {"bin/agentd": tmp_path / "agentd"})
    made.unit_folders = []
    return made


def test_both_commands_in_path(made):
    assert judged(check_program(made)) == FINE


def test_a_command_that_path_does_not_lead_to_is_a_warning(made, tmp_path):
    (tmp_path / "agentctl").unlink()
    assert judged(check_program(made)) == FINE | {"path.commands": "warning"}


def test_a_program_that_was_not_installed_is_a_note(made):
    made.installed = Installed(Way.CLONE, {})
    assert judged(check_program(made)) == FINE | {"program.installed": "note"}


@pytest.mark.parametrize(
    ("way", "advised"),
    [
        (Way.PIPX, "pipx inject agentd-daemon jeepney"),
        (Way.UV, "uv pip install --python "),
        (Way.USER, "-m pip install --user jeepney"),
        (Way.CLONE, "-m pip install jeepney"),
        (Way.PIP, "-m pip install jeepney"),
    ],
)
def test_what_is_advised_fits_how_it_was_installed(way, advised):
    assert advised in judge_logind(Installed(way, {}), has_jeepney=False).remedy


def test_the_advice_to_install_the_service_can_be_typed_as_it_is(made, tmp_path):
    [found] = check_units(made)
    assert found.remedy == "`agentd service install`"
    made.environ = {"PATH": "/nonexistent"}
    [found] = check_units(made)
    assert found.remedy == f"`{Path(tmp_path, 'agentd')} service install`"
