"""Folders in which another user could replace keys, store, socket, settings or a token: refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.daemon import Home, scratch_home, serving
from tests.other_user import needs_root


@pytest.fixture
def home():
    with scratch_home() as home:
        yield home


def folder_of(home: Home, place: str) -> Path:
    """One that decides about that place, made where it is missing."""
    folder = {
        "state": home.path / "state",
        "state itself": home.state,
        "runtime": home.runtime,
        "settings": home.path / "config" / "agentd",
        "home": home.path,
    }[place]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("command", ["serve", "init"])
@pytest.mark.parametrize("place", ["state", "state itself", "runtime", "settings", "home"])
def test_an_agent_does_not_start_below_a_folder_that_others_may_write_to(home, place, command):
    folder = folder_of(home, place)
    folder.chmod(0o777)
    done = home.agentd(command)
    assert done.returncode == 78, done.stderr
    assert f"{folder} is refused: " in done.stderr
    assert f"chmod go-w {folder}" in done.stderr or f"chmod 700 {folder}" in done.stderr
    assert not (home.state / "keys").exists()
    folder.chmod(0o700)
    assert home.agentd("init").returncode == 0


@needs_root
@pytest.mark.parametrize("place", ["state", "state itself", "runtime", "settings"])
def test_an_agent_does_not_start_below_another_users_folder(home, place):
    folder = folder_of(home, place)
    os.chown(folder, 4711, -1)
    done = home.agentd("init")
    assert done.returncode == 78, done.stderr
    assert str(folder) in done.stderr
    assert "belongs to uid 4711" in done.stderr
    assert not (home.state / "keys").exists()


def test_a_state_folder_that_is_sticky_and_open_to_all_is_refused_all_the_same(home):
    home.state.mkdir(parents=True)
    home.state.chmod(0o1777)
    done = home.agentd("init")
    assert (done.returncode, f"chmod 700 {home.state}" in done.stderr) == (78, True), done.stderr


@pytest.mark.parametrize("what", ["file", "folder"])
def test_settings_that_others_may_write_to_are_refused(home, what):
    file = home.path / "config" / "agentd" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("log_level = 'info'\n")
    (file if what == "file" else file.parent).chmod(0o666 if what == "file" else 0o777)
    done = home.agentd("init")
    assert (done.returncode, "chmod go-w " in done.stderr) == (78, True), done.stderr
    assert not home.state.exists()


def test_settings_behind_a_link_are_judged_by_what_it_leads_to(home):
    real = home.path / "dotfiles" / "agentd.toml"
    real.parent.mkdir()
    real.write_text("log_level = 'error'\n")
    link = home.path / "config" / "agentd" / "config.toml"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    assert home.agentd("init").returncode == 0
    real.parent.chmod(0o777)
    done = home.agentd("init")
    assert (done.returncode, f"chmod go-w {real.parent}" in done.stderr) == (78, True), done.stderr


def test_a_passphrase_file_in_an_open_folder_is_refused(home):
    file = home.path / "open" / "secret"
    file.parent.mkdir()
    file.touch(0o600)
    file.write_text("a real passphrase\n")
    file.parent.chmod(0o777)
    done = home.agentd("init", "--passphrase-file", str(file))
    assert (done.returncode, f"chmod go-w {file.parent}" in done.stderr) == (78, True), done.stderr
    assert not (home.state / "keys" / "root.key").exists()


def test_a_client_reads_and_writes_no_token_below_an_open_folder(home):
    token_file = home.path / "open" / "below" / "token"
    with serving(home):
        assert home.agentctl("--token-file", str(token_file), "login").returncode == 0
        assert home.agentctl("--token-file", str(token_file), "verify").returncode == 0
        token_file.parent.parent.chmod(0o777)
        for command in ("verify", "login", "renew"):
            done = home.agentctl("--token-file", str(token_file), command)
            assert done.returncode > 1, "neither yes nor no"
            assert f"chmod go-w {token_file.parent.parent}" in done.stderr, command
        token_file.parent.parent.chmod(0o755)
        assert home.agentctl("--token-file", str(token_file), "verify").returncode == 0
