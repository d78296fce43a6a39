"""Nothing that stands on a command line by mistake is repeated, by neither program."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

import agentd as agentd_package
import agentd_client
from agentd import systemd
from agentd.cli import agentd, error_sentence
from agentd_client import paths
from agentd_client.cli.group import COMMANDS, root
from tests.agentctl.running import in_process
from tests.e2e.daemon import scratch_home

SECRET = "hunter2-correct-horse"
PLACES = ("--socket", "--token-file", "--config", "--state", "--passphrase-file", "--askpass")
"""These are named, where the place is what is wrong."""

TEXTS = ("--label", "--audience", "--scope", "--after", "--parent")
"""These are handed on to the agent."""


def values(command):
    """Every option of a command that takes a value which is no place, nor any text."""
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_flag and option.opts[0] not in PLACES + TEXTS:
            yield option.opts[0]


def mistakes(group, names):
    yield [SECRET]
    yield ["--" + SECRET]
    yield ["--passphrase=" + SECRET]
    yield ["-q" + SECRET]
    for option in values(group):
        yield [option, SECRET, names[0]]
    for name in names:
        command = group.get_command(click.Context(group), name)
        yield [name, "--" + SECRET]
        yield [name, "--pass=" + SECRET]
        yield [name, "--passphrase=" + SECRET]
        yield [name, "--help=" + SECRET]
        yield [name, "-q" + SECRET]
        if name not in ("exec", "completion"):
            yield [name, SECRET, SECRET]
        for option in values(command):
            yield [name, option, SECRET]
            yield [name, f"{option}={SECRET}"]


@pytest.mark.parametrize("arguments", [*mistakes(root, list(COMMANDS))], ids=" ".join)
def test_agentctl_repeats_no_argument(arguments):
    ended = in_process(*arguments)
    assert ended.code != 0
    assert "hunter2" not in ended.out + ended.err
    assert ended.err


@pytest.mark.parametrize("more", ["--json", "--debug"])
@pytest.mark.parametrize(
    "arguments", [["login", "--max-uses", SECRET], ["login", SECRET], [SECRET]], ids=" ".join
)
def test_nor_as_json_nor_with_a_traceback(arguments, more):
    ended = in_process(more, *arguments)
    assert ended.code == 64
    assert "hunter2" not in ended.out + ended.err


@pytest.mark.parametrize("arguments", [*mistakes(agentd, list(agentd.commands))], ids=" ".join)
def test_agentd_repeats_no_argument(arguments):
    with pytest.raises(click.UsageError) as caught:
        agentd.main(arguments, prog_name="agentd", standalone_mode=False, obj=systemd.Passed())
    sentence = error_sentence(caught.value)
    assert "hunter2" not in sentence
    assert sentence.endswith("--help`.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--timeout", SECRET, "status"], "Invalid value for '--timeout': must be a number"),
        (
            ["login", "--max-uses", SECRET],
            "Invalid value for '--max-uses': must be a whole number, at least 1",
        ),
        (["list", "--state", SECRET], "Invalid value for '--state': must be one of active, expired"),
        (["login", "--expiry", SECRET], "Invalid value for '--expiry': must be a duration: 90"),
        (["status", SECRET], "Too many arguments for `agentctl status`."),
        ([SECRET], "No such command."),
        (["status", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
        (["status", "--jsn=" + SECRET], "No such option '--jsn'. Did you mean '--json'?"),
        (["status", "--" + SECRET], "No such option."),
        (["status", "--json=" + SECRET], "Option '--json' does not take a value."),
    ],
)
def test_what_is_wrong_is_said_all_the_same(arguments, said):
    ended = in_process(*arguments)
    assert ended.code == 64
    assert ended.err.startswith(f"agentctl: {said}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "--passphrase", SECRET],
        ["init", f"--passphrase={SECRET}"],
        ["serve", "--passphrase-fd", SECRET],
        ["serve", "--passphrase-file", SECRET],
        ["serve", "--passphrase-file", f"{SECRET}/{SECRET}"],
        ["doctor", "--passphrase-file", SECRET],
        ["--debug", "serve", "--passphrase-fd", SECRET],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("form", [[], ["--log-format", "json"]], ids=["", "json"])
def test_agentd_repeats_no_passphrase_in_its_errors_and_its_log(arguments, form):
    with scratch_home() as home:
        ended = home.agentd(*form, *arguments)
        assert ended.returncode in (64, 78)
        assert "hunter2" not in ended.stdout + ended.stderr
        assert ended.stderr


@pytest.mark.parametrize("option", ["--passphrase-file", "--askpass"])
def test_agentctl_repeats_no_passphrase_that_was_typed_for_a_path(agent, option):
    agent.passphrase, agent.locked = b"secret", True
    ended = in_process("unlock", option, SECRET)
    assert ended.code != 0
    assert "hunter2" not in ended.out + ended.err
    assert "No such file" in ended.err


def test_a_path_in_a_folder_that_is_there_is_named(agent, folder):
    ended = in_process("passwd", "--new-passphrase-file", str(folder / "missing"))
    assert f"{folder}/missing cannot be read: No such file" in ended.err


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("lisst", "list"), ("LIST", "list"), ("reset_key", "reset-key"), ("statsu", "status")],
)
def test_a_mistyped_command_gets_the_nearest_one(typed, nearest):
    ended = in_process(typed)
    assert ended.code == 64
    assert ended.err.startswith(f"agentctl: No such command. Did you mean '{nearest}'")
    assert typed not in ended.err


def test_where_nothing_is_near_nothing_is_suggested():
    assert in_process("hunter2").err.startswith("agentctl: No such command.\n")


def test_no_variable_of_the_programs_own_can_hold_a_passphrase():
    packages = [Path(package.__file__).parent for package in (agentd_package, agentd_client)]
    sources = [path.read_text() for package in packages for path in package.rglob("*.py")]
    named = {name for source in sources for name in re.findall(r"_?AGENTD_[A-Z_]+", source)}
    assert named == {*paths.TOKEN_VARIABLES, paths.SOCKET_VARIABLE, "AGENTD_ASKPASS", "_AGENTD_COMPLETE"}
