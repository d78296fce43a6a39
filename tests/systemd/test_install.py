"""`make install`, which calls `agentd service install`, for a user with nothing but an empty home."""

from __future__ import annotations

import json
import re
import shutil

import pytest

COMMANDS = (".local/bin/agentd", ".local/bin/agentctl")
COMPLETIONS = tuple(
    path.format(command)
    for path in (
        ".local/share/bash-completion/completions/{}",
        ".local/share/zsh/site-functions/_{}",
        ".config/fish/completions/{}.fish",
    )
    for command in ("agentd", "agentctl")
)
MANUAL = (
    ".local/share/man/man1/agentctl.1",
    ".local/share/man/man1/agentd.1",
    ".local/share/man/man5/agentd.toml.5",
    ".local/share/man/man7/agentd-protocol.7",
)
SOCKETS = ("agentd.socket", "agentd-verify.socket", "agentd-ask.socket")


def test_it_installs_everything_and_reports_it(manager, installed):
    said = installed.splitlines()
    for path in (*COMMANDS, *COMPLETIONS, *MANUAL):
        assert manager.exists(manager.home / path)
        assert any(line.endswith(f"{manager.home}/{path}") for line in said), path
    assert any(line.startswith("installed   agentd ") for line in said)
    assert any(line.startswith("enabled     agentd.socket") for line in said)
    assert any("loginctl enable-linger" in line for line in said)
    assert manager.systemctl("is-enabled", "agentd.socket") == "enabled\n"
    assert manager.systemctl("is-active", "agentd.socket") == "active\n"
    assert manager.outside(manager.state).stat().st_mode & 0o777 == 0o700


def test_the_units_hold_no_unknown_setting_and_no_word_of_the_template(manager, installed):
    paths = [manager.units / name for name in SOCKETS] + [manager.units / "agentd.service"]
    assert not re.search("@[A-Z_]+@", manager.outside(paths[-1]).read_text())
    checked = manager.run("systemd-analyze", "--user", "verify", *paths)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_commands_take_nothing_from_pythons_environment_or_the_current_folder(manager, installed):
    for path in COMMANDS:
        assert re.search(r"python[0-9.]*\"? -I", manager.run("head", "-n", "2", manager.home / path).stdout)


def test_an_upgrade_in_place_runs_the_new_version_and_keeps_the_sessions(service):
    service.done("agentctl", "login")
    before = service.main_pid
    version = service.source / "client" / "agentd_client" / "__init__.py"
    old = version.read_text()
    version.write_text(re.sub('__version__ = ".*"', '__version__ = "99.1"', old))
    try:
        assert "installed   agentd 99.1 in " in service.make("install")
        assert service.main_pid not in (0, before)
        assert json.loads(service.done("agentctl", "--json", "status"))["agent"]["version"] == "99.1"
        service.done("agentctl", "verify")
    finally:
        version.write_text(old)
        service.make("install")
    service.done("agentctl", "verify")


def test_it_stops_at_settings_that_are_wrong_and_names_them(service):
    service.write(service.home / ".config/agentd/config.toml", "nonsense = 1\n")
    ended = service.run("make", "-C", service.source, "install", "PYTHON=/usr/bin/python3")
    assert ended.returncode != 0
    assert "agentd/config.toml: " in ended.stderr
    assert "nonsense" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_keys_and_store_go_where_the_settings_say(service):
    elsewhere = service.home / 'my "sessions"'
    service.write(service.home / ".config/agentd/config.toml", f"state_path = '{elsewhere}'\n")
    try:
        service.make("install")
        service.done("agentctl", "login")
        assert service.exists(elsewhere / "keys" / "root.key")
        assert not service.exists(service.state / "keys")
    finally:
        service.tidy()
        service.remove(elsewhere)
        service.make("install")


def test_an_agent_that_was_started_by_hand_is_left_alone(service):
    service.systemctl("stop", "agentd.socket")
    by_hand = service.start("agentd", "serve")
    service.done("agentctl", "--timeout", "30", "login")
    pid = json.loads(service.done("agentctl", "--json", "status"))["agent"]["pid"]
    try:
        assert "an agent that was started by hand serves now" in service.make("install")
        assert service.systemctl("is-enabled", "agentd.socket") == "enabled\n"
        service.done("agentctl", "verify")
    finally:
        service.kill("TERM", pid)
        by_hand.communicate(timeout=30)
    assert by_hand.returncode == 0
    service.systemctl("start", "agentd.socket")
    service.done("agentctl", "verify")


def test_without_a_user_manager_it_installs_and_names_the_remaining_step(service):
    said = service.done(
        "make",
        "-C",
        service.source,
        "install",
        "PYTHON=/usr/bin/python3",
        XDG_RUNTIME_DIR="/nonexistent",
        seconds=240,
    )
    assert "systemctl --user enable --now agentd.socket" in said


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
def test_man_finds_the_pages_by_the_path_of_the_commands(manager, installed):
    for page in MANUAL:
        name = page.rpartition("/")[2].rpartition(".")[0]
        assert manager.run("man", "-w", name).stdout == f"{manager.home}/{page}\n"
