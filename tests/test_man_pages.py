"""The man pages name every command, option, setting, default and exit code that there is, and no other."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import get_args

import click
import pytest

from agentd import exit_codes as agentd_codes
from agentd.cli import agentd
from agentd.config import FilePath, LogFormat, LogLevel, Settings, SocketMode
from agentd_client.cli import exit_codes as agentctl_codes
from agentd_client.cli.group import COMMANDS, ENVIRONMENT, root
from agentd_client.cli.options import shared_options
from agentd_client.durations import parse_duration

ROOT = Path(__file__).parent.parent
PAGES = ("client/man/agentctl.1", "docs/man/agentd.1", "docs/man/agentd.toml.5")
AGENTCTL, AGENTD, SETTINGS = ((ROOT / page).read_text() for page in PAGES)
ALWAYS = {"--help", "--version"}


def parts(page: str, macro: str) -> dict[str, str]:
    """What follows each heading of the kind, by the heading's first word."""
    _, *rest = re.split(rf"^\.{macro} ", page, flags=re.MULTILINE)
    split = (part.partition("\n") for part in rest)
    return {heading if macro == "Sh" else heading.split()[0]: text for heading, _, text in split}


def listed(text: str) -> set[str]:
    return {f"-{name}" for name in re.findall(r"^\.It Fl (-\S+)", text, re.MULTILINE)}


def options(params: list[click.Parameter]) -> set[str]:
    return {max(param.opts, key=len) for param in params if isinstance(param, click.Option)}


def codes(page: str) -> list[int]:
    return [int(code) for code in re.findall(r"^\.It (\d+)$", parts(page, "Sh")["EXIT STATUS"], re.MULTILINE)]


def test_agentctl_has_exactly_these_commands_and_options():
    page = parts(AGENTCTL, "Sh")
    shared = options(shared_options())
    assert listed(page["OPTIONS"]) == shared | ALWAYS
    sections = parts(page["COMMANDS"], "Ss")
    assert list(sections) == list(COMMANDS)
    for name, text in sections.items():
        command = root.get_command(click.Context(root), name)
        assert command is not None
        assert listed(text) == options(command.params) - shared, name


def test_agentd_has_exactly_these_commands_and_options():
    page = parts(AGENTD, "Sh")
    assert listed(page["OPTIONS"]) == options(agentd.params) | ALWAYS
    sections = parts(page["COMMANDS"], "Ss")
    assert set(sections) == set(agentd.commands)
    for name, text in sections.items():
        command = agentd.commands[name]
        commands = command.commands.values() if isinstance(command, click.Group) else [command]
        assert listed(text) == options([param for one in commands for param in one.params]), name


def test_the_exit_codes_are_those_of_the_programs():
    assert codes(AGENTCTL) == list(agentctl_codes.MEANINGS)
    assert codes(AGENTD) == list(agentd_codes.MEANINGS)


def test_agentctl_reads_these_variables():
    named = re.findall(r"^\.It Ev (\S+)$", parts(AGENTCTL, "Sh")["ENVIRONMENT"], re.MULTILINE)
    assert named == [name for name, _ in ENVIRONMENT]


def test_the_settings_and_their_defaults_are_those_of_the_agent():
    rows = re.findall(r"^\.It Cm (\w+) No = Ar (.+)$", SETTINGS, re.MULTILINE)
    assert {name for name, _ in rows} == set(Settings.__struct_fields__)
    defaults = Settings(socket_path=FilePath(""), state_path=FilePath(""))
    for name, shown in rows:
        default = getattr(defaults, name)
        if default in ("", None):  # a placeholder stands there
            assert re.fullmatch(r"[a-z]+", shown)
            continue
        value = tomllib.loads(f"value = {shown.replace(chr(92) + '(dq', chr(34))}")["value"]
        if isinstance(value, str) and isinstance(default, int):
            value = parse_duration(value)
        assert (name, value) == (name, default)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("log_level", LogLevel),
        ("log_format", LogFormat),
        ("verify_socket_mode", SocketMode),
        ("ask_socket_mode", SocketMode),
    ],
)
def test_a_choice_has_all_of_its_values(name, choices):
    text = SETTINGS.partition(f".It Cm {name} ")[2].partition("\n.It ")[0].replace("\\(dq", "")
    described = set(re.findall(r"^\.Ql (\S+)", text, re.MULTILINE))
    assert described == set(get_args(choices))


@pytest.mark.parametrize("page", PAGES)
def test_it_renders_without_a_warning(page):
    if shutil.which("man") is None:
        pytest.skip("there is no man here")
    rendered = subprocess.run(
        ["man", "--warnings=all", "-l", str(ROOT / page)], capture_output=True, text=True, check=True
    )
    assert rendered.stderr == ""
    assert "NAME" in rendered.stdout
