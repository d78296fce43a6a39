"""How `agentd` ends: with a code and a sentence, and no traceback unless it is asked for."""

from __future__ import annotations

import importlib
import io
import json
import os
import pty
import signal
import subprocess
import sys

import click
import pytest

from agentd import __version__, cli
from agentd.doctor.findings import Finding, Severity, as_lines
from agentd.exit_codes import MEANINGS
from agentd_client.errors import StoreError
from tests.agentd.socket_passing import served

pytestmark = pytest.mark.usefixtures("no_log")


def ended(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_help_lists_the_commands_and_every_exit_code(capsys):
    code, out, err = ended(capsys, "--help")
    assert (code, err) == (0, "")
    assert "serve" in out
    for number, meaning in MEANINGS.items():
        assert f"{number:<3} {meaning.split(':')[0]}" in out


def test_the_version(capsys):
    assert ended(capsys, "--version") == (0, f"agentd {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "err"),
    [
        ((), "agentd: Missing command. See `agentd --help`.\n"),
        (("frob",), "agentd: No such command. See `agentd --help`.\n"),
        (("serve", "--nope"), "agentd: No such option '--nope'. See `agentd serve --help`.\n"),
    ],
)
def test_a_wrong_command_line_is_64_and_says_where_to_look(capsys, arguments, err):
    assert ended(capsys, *arguments) == (64, "", err)


def test_the_arguments_are_the_processs_where_none_are_given(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["agentd", "--version"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert capsys.readouterr().out == f"agentd {__version__}\n"


def test_settings_that_are_wrong_are_78_and_the_traceback_only_on_request(capsys, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("nonsense = 1")
    code, _, err = ended(capsys, "--config", str(config), "serve")
    assert (code, err.count("\n")) == (78, 1)
    assert err.startswith(f"agentd: {config}: ")
    code, _, err = ended(capsys, "--debug", "--config", str(config), "serve")
    assert code == 78
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith(f"agentd: {config}: ")


def test_wrong_settings_are_reported_as_json_if_that_is_set(capsys):
    code, _, err = ended(capsys, "--log-format", "json", "--config", "/nonexistent", "serve")
    assert code == 78
    assert json.loads(err).items() >= {"level": "error", "message": "/nonexistent does not exist"}.items()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (StoreError("the store failed"), "the store failed"),
        (ExceptionGroup("", [ExceptionGroup("", [StoreError("inside")]), OSError()]), "inside"),
        (click.ClickException("no"), "no"),
        (click.UsageError("no"), "no. See `agentd --help`."),
        (KeyboardInterrupt(), "interrupted"),
        (FileNotFoundError(2, "not there", "/a/file"), "/a/file: not there"),
        (OSError(5, "broken"), "the system: broken"),
        (TimeoutError(), "the system: TimeoutError"),
        (RuntimeError("v4.local.secret"), "a bug in agentd (RuntimeError); --debug shows where"),
    ],
)
def test_an_error_is_one_sentence_without_secrets(error, sentence):
    assert cli.error_sentence(cli.innermost(error)) == sentence


def test_fresh_asks_on_a_terminal_and_a_no_is_130(capsys, home, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    state = home.path / "state"
    code, out, err = ended(capsys, "init", "--fresh", "--state", str(state))
    question = f"Delete every session and the keys in {state}? [y/N]: "
    assert (code, out, err) == (130, "", f"{question}agentd: interrupted\n")
    assert not state.exists()


def test_fresh_carries_it_out_after_a_yes(home):
    home.agentd("init")
    key = home.state / "keys" / "root.key"
    before = key.read_bytes()
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as terminal:
        terminal.write(b"y\n")
        answered = subprocess.run(
            [sys.executable, "-m", "agentd", "init", "--fresh"],
            stdin=theirs, capture_output=True, text=True, env=home.environ, timeout=60, check=False,
        )  # fmt: skip
        os.close(theirs)
    assert answered.returncode == 0, answered.stderr
    assert key.read_bytes() != before


def test_with_standard_error_closed_only_the_code_tells(home):
    command = [sys.executable, "-m", "agentd", "--config", "/nonexistent", "serve"]
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command], env=home.environ, timeout=60, check=False
    )
    assert ended.returncode == 78


def test_a_reader_that_went_away_does_not_change_the_code(home):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        command = [sys.executable, "-m", "agentd", "--config", "/nonexistent", "serve"]
        assert (
            subprocess.run(command, stderr=gone, env=home.environ, timeout=60, check=False).returncode == 78
        )


def test_every_command_refuses_unusable_sockets_from_systemd(home):
    with (home.path / "file").open("w+") as file:
        ended = served(home, file)
        _, err = ended.communicate(timeout=60)
    assert (ended.returncode, err) == (
        78,
        "agentd: systemd passed a descriptor that is not a socket: Socket operation on non-socket\n",
    )


def test_importing_the_main_module_runs_nothing():
    assert callable(importlib.import_module("agentd.__main__").main)


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["doctor"], ["doctor", "--json"], ["doctor", "--help"]]
)
def test_output_that_cannot_be_written_is_an_error_and_a_reader_that_went_away_is_none(home, args):
    command = [sys.executable, "-m", "agentd", *args]
    own = subprocess.run(command, env=home.environ, capture_output=True, timeout=60, check=False).returncode
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=home.environ, timeout=60, check=False
        )
    assert (ended.returncode, ended.stderr) == (74, "agentd: standard output: No space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        ended = subprocess.run(
            command, stdout=gone, stderr=subprocess.PIPE, text=True, env=home.environ, timeout=60, check=False
        )
    assert (ended.returncode, ended.stderr) == (own, "")


@pytest.mark.parametrize("module", ["click", "agentd.process", "agentd.cli", "trio", "lmdb"])
def test_ctrl_c_while_it_imports_is_quiet_and_ends_it(home, module):
    program = f"""
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass

sys.meta_path.insert(0, Finder())
sys.argv = ["agentd", "serve"]
from agentd.__main__ import main
main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False,
        env={name: value for name, value in home.environ.items() if not name.startswith("COVERAGE_")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")
    assert not home.socket.exists()


@pytest.mark.parametrize(("typed", "nearest"), [("initt", "init"), ("docter", "doctor")])
def test_a_mistyped_command_gets_the_nearest_one(capsys, typed, nearest):
    code, _, err = ended(capsys, typed)
    assert (code, err) == (64, f"agentd: No such command. Did you mean '{nearest}'? See `agentd --help`.\n")


def test_the_report_of_the_doctor_fits_a_narrow_terminal():
    says = "the folder is open to others, who could put files there or take them away"
    finding = Finding("state.folder.mode", Severity.ERROR, says, "run the command that mends it")
    for width in (40, 60, 80):
        assert all(len(line) <= width for _, line in as_lines([finding], width))
    assert next(as_lines([finding], 40))[1].endswith("state.folder.mode")


@pytest.mark.parametrize(
    "typed", [["service"], ["service", "install", "--purge"], ["--config", "/a", "service", "install"]]
)
def test_a_service_command_that_would_do_something_else_than_meant_is_refused(capsys, typed):
    code, said, _ = ended(capsys, *typed)
    assert (code, said) == (64, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(capsys, shell):
    code, script, _ = ended(capsys, "completion", shell)
    assert code == 0
    assert "_AGENTD_COMPLETE" in script


def test_commands_and_options_are_completed(capsys, monkeypatch):
    monkeypatch.setenv("_AGENTD_COMPLETE", "bash_complete")
    for words, number, completed in (
        ("agentd se", 1, ["serve", "service"]),
        ("agentd serve --st", 2, ["--state"]),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(number))
        _, shown, _ = ended(capsys)
        assert [line.partition(",")[2] for line in shown.splitlines()] == completed
