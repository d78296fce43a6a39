"""Options, help and completion."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys

import click
import pytest

import agentd_client
from agentd_client.cli.current_token import token_from_stdin
from agentd_client.cli.group import COMMANDS, root
from agentd_client.cli.wording import size
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process, process, without_coverage


def test_the_table_says_what_each_command_says_of_itself():
    context = click.Context(root)
    assert root.list_commands(context) == list(COMMANDS)
    for name, entry in COMMANDS.items():
        command = root.get_command(context, name)
        assert command.name == name
        assert command.help.partition("\n")[0] == entry.summary


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_no_gaps_where_its_lines_are_joined(name):
    paragraphs = inspect.cleandoc(root.get_command(click.Context(root), name).help).split("\n\n")
    joined = [paragraph for paragraph in paragraphs if not paragraph.startswith("\b")]
    assert [paragraph for paragraph in joined if "\n " in paragraph] == []


LOADED = (
    "import sys; from agentd_client.cli.run import run\n"
    f"run(sys.argv[1:], now=lambda: {NOW}); print(*sys.modules, file=sys.stderr)"
)
ALL_COMMANDS = {f"agentd_client.cli.commands.{entry.module}" for entry in COMMANDS.values()}
SELDOM = {
    "json",
    "logging",
    "socket",
    "selectors",
    "subprocess",
    "tempfile",
    "shutil",
    "difflib",
    "fcntl",
    "asyncio",
}
SELDOM |= {
    f"agentd_client.{name}"
    for name in (
        "transport.repeating",
        "file_locks",
        "token_file.folder",
        "transport.events",
    )
}


@pytest.mark.parametrize("arguments", ["--version", "verify", "token", "verify -"])
def test_a_command_imports_its_own_module_and_what_it_uses(logged_in, arguments):
    before, after = (
        subprocess.run(
            [sys.executable, "-c", program, *arguments.split()],
            input="no token", capture_output=True, text=True, timeout=60, check=True, env=without_coverage(),
        ).stderr.split()
        for program in ("import click, sys; print(*sys.modules, file=sys.stderr)", LOADED)
    )  # fmt: skip
    loaded = set(after) - set(before)
    name = arguments.split()[0]
    own = {f"agentd_client.cli.commands.{name}"} if name in COMMANDS else set()
    assert loaded & ALL_COMMANDS == own
    assert loaded & SELDOM == set()


def test_help_shows_every_command_what_the_environment_does_and_what_it_is_honest_about():
    ended = in_process("--help")
    assert ended.code == 0
    for word in [
        *COMMANDS,
        "AGENTD_SOCKET",
        "AGENTD_TOKEN",
        "AGENTD_TOKEN_FD",
        "AGENTD_SESSION_TOKEN_PATH",
        "AGENTD_ASKPASS",
        "NO_COLOR",
    ]:
        assert word in ended.out


@pytest.mark.parametrize("name", ["login", "verify"])
def test_login_and_verify_say_who_can_open_sessions_and_where_things_come_from(name):
    shown = " ".join(in_process(name, "-h").out.split())
    assert "user and can reach the" in shown
    assert "can open sessions" in shown
    for variable in ("AGENTD_SOCKET", "AGENTD_TOKEN", "AGENTD_SESSION_TOKEN_PATH"):
        assert variable in shown


def test_without_a_command_the_help_is_an_error():
    ended = in_process()
    assert (ended.code, ended.out) == (64, "")
    assert ended.err.startswith("Usage: agentctl")


def test_the_version_is_the_packages():
    assert in_process("--version") == (0, f"agentctl {agentd_client.__version__}\n", "")


def test_an_unknown_command_is_an_error():
    ended = in_process("verfy")
    assert ended.code == 64
    assert ended.err.startswith("agentctl: No such command.")


@pytest.mark.parametrize("args", [["--json", "verify"], ["verify", "--json"], ["--json", "verify", "--json"]])
def test_an_option_counts_before_and_after_the_command(agent, args):
    assert json.loads(in_process(*args).out)["valid"] is False


def test_the_option_after_the_command_is_the_stronger_one(agent, folder):
    assert in_process("--socket", str(folder / "none"), "verify", "--socket", str(agent.path)).code == 1


def test_the_socket_of_the_environment_is_used(agent, monkeypatch, folder):
    moved = folder / "moved.sock"
    moved.symlink_to(agent.path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    monkeypatch.setenv("AGENTD_SOCKET", str(moved))
    monkeypatch.setenv("AGENTD_SESSION_TOKEN_PATH", str(folder / "elsewhere"))
    assert in_process("login").code == 0
    assert (folder / "elsewhere").exists()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "3601", "soon"])
def test_a_timeout_is_a_number_of_seconds_that_can_be_waited(agent, seconds):
    ended = in_process("--timeout", seconds, "verify")
    assert ended.code == 64
    assert "--timeout" in ended.err


@pytest.mark.parametrize("option", ["--socket", "--token-file"])
def test_an_empty_path_is_refused_because_an_unset_variable_must_not_mean_the_default(agent, option):
    ended = in_process("verify", option, "")
    assert ended.code == 64
    assert option in ended.err
    assert agent.calls == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(shell):
    script = in_process("completion", shell, terminal=True).out
    assert "_AGENTCTL_COMPLETE" in script
    assert in_process("completion", shell).out == script


def test_completion_is_for_the_shell_in_use_unless_one_is_named(monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert in_process("completion").out == in_process("completion", "fish").out
    assert json.loads(in_process("completion", "--json").out)["shell"] == "fish"
    monkeypatch.setenv("SHELL", "/bin/sh")
    assert in_process("completion").code == 64
    assert in_process("completion", "tcsh").code == 64


def test_the_bash_script_is_one_that_bash_can_read():
    script = in_process("completion", "bash").out
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False, timeout=60).returncode == 0


def complete(words: str, number: int) -> list[str]:
    ended = process_with(_AGENTCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number))
    return [line.partition(",")[2] for line in ended.stdout.splitlines()]


def process_with(**environ: str):
    return process(env=os.environ | environ)


def test_names_and_options_are_completed():
    assert complete("agentctl lo", 1) == ["login", "logout", "lock"]
    assert complete("agentctl re", 1) == ["renew", "request", "requests", "revoke", "reset-key"]
    assert complete("agentctl list --state ", 3) == ["active", "expired"]
    assert complete("agentctl exec --f", 2) == ["--file", "--fd"]
    assert complete("agentctl --js", 1) == ["--json"]
    assert complete("agentctl login --exp", 2) == ["--expiry"]
    assert complete("agentctl unlock --p", 2) == ["--passphrase-fd", "--passphrase-file", "--pinentry"]
    assert complete("agentctl completion z", 2) == ["zsh"]


def test_after_exec_commands_and_files_are_completed(tmp_path, monkeypatch):
    (tmp_path / "frobnicate").touch(0o755)
    (tmp_path / "frob-not-executable").touch(0o644)
    (tmp_path / "frob-folder").mkdir()
    monkeypatch.setenv("PATH", f"/no/such/folder:{tmp_path}")
    for words in ("agentctl exec -- frob", "agentctl exec frob", "agentctl exec --scope a -- frob"):
        assert complete(words, words.count(" ")) == ["frobnicate"]

    def completed(words: str) -> str:
        number = str(words.count(" "))
        return process_with(_AGENTCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number).stdout

    assert completed("agentctl exec -- cat REA") == "file,REA\n"
    assert completed("agentctl exec -- ./REA") == "file,./REA\n"


def test_sizes_are_told_in_the_unit_that_fits():
    assert [size(count) for count in (0, 1023, 1024, 1536 * 1024, 5 * 1024**3)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "1.5 MiB",
        "5.0 GiB",
    ]


def test_no_standard_input_is_an_empty_one(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert token_from_stdin() == ""
