from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agentd_client import paths
from agentd_client.errors import EnvironmentVariableError
from agentd_client.token_file.descriptor import environment_token


def test_with_everything_set_the_variables_say_where(tmp_path: Path) -> None:
    environ = {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "XDG_STATE_HOME": "/state",
        "XDG_CONFIG_HOME": "/config",
        "HOME": "not looked at",
    }
    assert paths.socket_path(environ) == f"{tmp_path}/agentd/agent.sock"
    assert paths.session_token_path(environ) == f"{tmp_path}/agentd/session-token"
    assert paths.state_dir(environ) == "/state/agentd"
    assert paths.config_path(environ) == "/config/agentd/config.toml"


@pytest.mark.parametrize("unset", ["", "relative/folder"])
def test_an_empty_or_relative_folder_counts_as_unset(
    unset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_USER_RUNTIME", "/nowhere/{uid}")
    environ = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"), unset)
    environ["HOME"] = str(tmp_path)
    assert paths.state_dir(environ) == f"{tmp_path}/.local/state/agentd"
    assert paths.config_path(environ) == f"{tmp_path}/.config/agentd/config.toml"
    assert paths.socket_path(environ) == f"{tmp_path}/.local/state/agentd/run/agent.sock"


def test_without_a_runtime_folder_the_users_own_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / str(os.geteuid())
    monkeypatch.setattr(paths, "_USER_RUNTIME", str(tmp_path / "{uid}"))
    home = {"HOME": str(tmp_path)}
    assert paths.runtime_dir(home) == f"{tmp_path}/.local/state/agentd/run"
    own.touch()
    assert paths.runtime_dir(home) == f"{tmp_path}/.local/state/agentd/run", "a file is none"
    own.unlink()
    own.mkdir()
    assert paths.runtime_dir(home) == f"{own}/agentd"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_anothers_runtime_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_USER_RUNTIME", str(tmp_path / "{uid}"))
    own = tmp_path / str(os.geteuid())
    own.mkdir()
    os.chown(own, 65534, -1)
    assert paths.runtime_dir({"HOME": str(tmp_path)}) == f"{tmp_path}/.local/state/agentd/run"


def test_the_projects_own_variables_win() -> None:
    environ = {"AGENTD_SOCKET": "/s", "AGENTD_SESSION_TOKEN_PATH": "/t", "XDG_RUNTIME_DIR": "/run/me"}
    assert paths.socket_path(environ) == "/s"
    assert paths.session_token_path(environ) == "/t"
    assert paths.socket_is_set(environ)
    assert not paths.socket_is_set({"AGENTD_SOCKET": ""})


def test_a_token_may_come_from_the_environment() -> None:
    assert environment_token({"AGENTD_TOKEN": " token\n"}) == "token"
    assert environment_token({"AGENTD_TOKEN": " "}) is None
    assert environment_token({}) is None


def test_without_home_the_password_database_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    assert paths.state_dir({}) == os.path.expanduser("~") + "/.local/state/agentd"


# --- what does not lead to a place of this user's ---


def refusal(path: Callable[[Mapping[str, str]], str], environ: Mapping[str, str]) -> str:
    with pytest.raises(EnvironmentVariableError) as caught:
        path(environ)
    return caught.value.sentence


@pytest.mark.parametrize("path", [paths.state_dir, paths.config_path])
@pytest.mark.parametrize(
    ("home", "reason"),
    [
        ("", "HOME is empty; "),
        ("relative/home", "HOME is 'relative/home', which is not an absolute path; "),
        ("~", "HOME is '~', which is not an absolute path; "),
        ("/nowhere/home", "HOME is /nowhere/home, which does not exist; "),
    ],
)
def test_a_home_that_is_none_is_refused(
    path: Callable[[Mapping[str, str]], str], home: str, reason: str
) -> None:
    assert refusal(path, {"HOME": home}).startswith(reason)
    assert path({"HOME": home, "XDG_STATE_HOME": "/x", "XDG_CONFIG_HOME": "/x"}).startswith("/x/agentd")


def test_a_user_whom_nobody_knows_needs_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    said = refusal(paths.state_dir, {})
    assert said.startswith("HOME is not set, and uid 54321 is not in the password database; set HOME ")
    assert said.endswith("or XDG_STATE_HOME")


def test_another_users_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    monkeypatch.setattr(paths, "_USER_RUNTIME", "/nowhere/{uid}")
    for path in (paths.state_dir, paths.config_path, paths.socket_path, paths.session_token_path):
        assert f"HOME is {tmp_path}, which belongs to uid {uid}, and you are uid {uid + 1}; " in refusal(
            path, {"HOME": str(tmp_path)}
        )


def test_another_users_runtime_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/"}
    for path in (paths.runtime_dir, paths.socket_path, paths.session_token_path):
        said = refusal(path, environ)
        assert said.startswith(f"XDG_RUNTIME_DIR is {tmp_path}, which belongs to uid {uid}, and you are uid")
        assert "unset it" in said
    assert paths.socket_path(environ | {"AGENTD_SOCKET": "/s"}) == "/s"
