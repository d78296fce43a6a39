from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentd_client import paths


def test_with_everything_set_the_variables_say_where(tmp_path: Path) -> None:
    environ = {
        "XDG_RUNTIME_DIR": "/run/me",
        "XDG_STATE_HOME": "/state",
        "XDG_CONFIG_HOME": "/config",
        "HOME": "/home/me",
    }
    assert paths.socket_path(environ) == "/run/me/agentd/agent.sock"
    assert paths.session_token_path(environ) == "/run/me/agentd/session-token"
    assert paths.state_dir(environ) == "/state/agentd"
    assert paths.config_path(environ) == "/config/agentd/config.toml"


@pytest.mark.parametrize("unset", ["", "relative/folder"])
def test_an_empty_or_relative_folder_counts_as_unset(unset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_USER_RUNTIME", "/nowhere/{uid}")
    environ = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"), unset)
    environ["HOME"] = "/home/me"
    assert paths.state_dir(environ) == "/home/me/.local/state/agentd"
    assert paths.config_path(environ) == "/home/me/.config/agentd/config.toml"
    assert paths.socket_path(environ) == "/home/me/.local/state/agentd/run/agent.sock"


def test_without_a_runtime_folder_the_users_own_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / str(os.geteuid())
    monkeypatch.setattr(paths, "_USER_RUNTIME", str(tmp_path / "{uid}"))
    assert paths.runtime_dir({"HOME": "/h"}) == "/h/.local/state/agentd/run"
    own.touch()
    assert paths.runtime_dir({"HOME": "/h"}) == "/h/.local/state/agentd/run", "a file is none"
    own.unlink()
    own.mkdir()
    assert paths.runtime_dir({"HOME": "/h"}) == f"{own}/agentd"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_anothers_runtime_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_USER_RUNTIME", str(tmp_path / "{uid}"))
    own = tmp_path / str(os.geteuid())
    own.mkdir()
    os.chown(own, 65534, -1)
    assert paths.runtime_dir({"HOME": "/h"}) == "/h/.local/state/agentd/run"


def test_the_projects_own_variables_win() -> None:
    environ = {"AGENTD_SOCKET": "/s", "AGENTD_SESSION_TOKEN_PATH": "/t", "XDG_RUNTIME_DIR": "/run/me"}
    assert paths.socket_path(environ) == "/s"
    assert paths.session_token_path(environ) == "/t"
    assert paths.socket_is_set(environ)
    assert not paths.socket_is_set({"AGENTD_SOCKET": ""})


def test_a_token_may_come_from_the_environment() -> None:
    assert paths.environment_token({"AGENTD_TOKEN": " token\n"}) == "token"
    assert paths.environment_token({"AGENTD_TOKEN": " "}) is None
    assert paths.environment_token({}) is None


def test_without_home_the_password_database_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    assert paths.state_dir({}) == os.path.expanduser("~") + "/.local/state/agentd"
