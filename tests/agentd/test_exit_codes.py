from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from agentd import exit_codes
from agentd.exit_codes import INTERRUPTED, MEANINGS, exit_code
from agentd_client import errors
from agentd_client.cli import exit_codes as shared
from agentd_client.cli.output import OutputError

PROJECT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (click.UsageError("no such option"), 64),
        (errors.StoreDamagedError(), 65),
        (RuntimeError(), 70),
        (errors.LifecycleError(), 70),
        (OSError(5, "no"), 71),
        (errors.AlreadyServingError(), 73),
        (errors.StoreInUseError(), 73),
        (errors.StoreError(), 74),
        (errors.StoreFullError(), 74),
        (OutputError(), 74),
        (errors.ConfigError(), 78),
        (errors.SocketPathError(), 78),
        (errors.KeyFileError(), 78),
        (errors.PassphraseError(), 78),
        (errors.StoreKeyMismatchError(), 78),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_failure_has_the_code_of_its_nearest_class(error, code):
    assert exit_code(error) == code
    assert code in MEANINGS


def documented() -> dict[int, tuple[str, str]]:
    manual = (PROJECT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", manual.partition("## Exit codes")[2], re.MULTILINE)
    return {int(code): (meaning, restart) for code, meaning, restart in rows}


def test_the_manual_lists_every_code_that_a_service_manager_can_see():
    assert {code: meaning for code, (meaning, _) in documented().items()} == {
        code: meaning for code, meaning in MEANINGS.items() if code != INTERRUPTED
    }


def test_the_unit_does_not_restart_after_the_codes_that_a_restart_does_not_help():
    unit = (PROJECT / "agentd" / "units" / "agentd.service").read_text()
    (listed,) = re.findall(r"^RestartPreventExitStatus=(.+)$", unit, re.MULTILINE)
    helpless = [code for code, (_, restart) in documented().items() if restart == "no"]
    assert [int(code) for code in listed.split()] == helpless


def test_both_programs_mean_the_same_by_a_code():
    for name, code in vars(shared).items():
        if name.isupper() and isinstance(code, int):
            assert getattr(exit_codes, name, code) == code, name
    assert set(MEANINGS) <= {code for code in vars(shared).values() if isinstance(code, int)}
