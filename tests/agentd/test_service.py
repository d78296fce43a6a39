"""`agentd service install`, with a systemctl that only notes what it is asked.

tests/systemd and tests/packaging have a real user manager carry it out.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from agentd import service
from agentd.distribution import Installed, Way
from agentd.service import filled, isolated
from agentd_client.errors import AlreadyServingError, ConfigError, EnvironmentVariableError, StartError

LONG = "#!/bin/sh\n'''exec' {} \"$0\" \"$@\"\n' '''\nimport sys\n"


@pytest.mark.parametrize("before", ["", " -E", " -I"])
def test_a_command_that_an_installer_wrote_runs_python_isolated(before):
    usual = "#!/home/me/venv/bin/python3.11{}\nimport sys\n"
    assert isolated(usual.format(before), "-I") == usual.format(" -I")
    for path in ('"/home/of me/bin/python3"', "'/home/of me/bin/python3'", "/home/long/bin/python"):
        assert isolated(LONG.format(path + before), "-I") == LONG.format(f"{path} -I")


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\nexec python3 -m agentd\n",
        "import sys\n#!/usr/bin/python3\n",
        "#!/usr/bin/env python3\n",
        "",
    ],
)
def test_any_other_script_stays_as_it_is(script):
    assert isolated(script, "-I") == script


def test_what_stands_in_a_unit_means_itself_there():
    assert filled('A="@PATH@" @OTHER@', {"PATH": 'a%b\\c"d'}) == 'A="a%%b\\\\c\\"d" @OTHER@'


COMPLETIONS = {
    (command, shell): f"# {command} {shell}\n"
    for command in ("agentd", "agentctl")
    for shell in ("bash", "zsh", "fish")
}
FILES = ("bin/agentd", "bin/agentctl", "share/man/man1/agentd.1", "share/man/man7/agentd-protocol.7")


class Home:
    """A user with an empty home, an installed agentd, and a systemctl that fails as a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "home"
        self.prefix = folder / "prefix"
        self.state = self.path / ".local/state/agentd"
        self.commands = self.path / ".local/bin"
        self.units = self.path / ".config/systemd/user"
        self.asked = folder / "asked"
        self.failing = folder / "failing"
        self.said: list[str] = []
        self._monkeypatch = monkeypatch
        for made in (self.path, folder / "run"):
            made.mkdir(mode=0o700)
        programs = folder / "programs"
        programs.mkdir()
        for program in ("systemctl", "systemd-run"):
            (programs / program).write_text(
                f'#!/bin/sh\necho "{program} $*" >>{self.asked}\n'
                f'while read -r failing; do case "$*" in *"$failing"*) echo "it fails" >&2; exit 3;; esac; done <{self.failing}\n'
            )
            (programs / program).chmod(0o755)
        for file in FILES:
            (self.prefix / file).parent.mkdir(parents=True, exist_ok=True)
            (self.prefix / file).write_text("#!/v/bin/python3\n" if file.startswith("bin/") else file)
        self.failing.write_text("is-active\n")
        for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "AGENTD_SOCKET"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HOME", str(self.path))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        monkeypatch.setenv("PATH", f"{self.commands}:{programs}:/usr/bin:/bin")
        self.is_installed_with(Way.PIP)

    def is_installed_with(self, way: Way, files: tuple[str, ...] = FILES) -> None:
        found = Installed(way, {file: self.prefix / file for file in files})
        self._monkeypatch.setattr(service, "how_installed", lambda: found)

    def _say(self, what: str, about: object) -> None:
        self.said.append(f"{what} {about}".strip())

    def install(self) -> None:
        self.said.clear()
        service.install(COMPLETIONS, self._say)

    def uninstall(self, *, purge: bool = False) -> None:
        self.said.clear()
        service.uninstall(COMPLETIONS, self._say, purge=purge)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir()}


@pytest.fixture
def home(tmp_path, monkeypatch):
    return Home(tmp_path, monkeypatch)


def test_it_installs_everything_and_its_removal_leaves_nothing(home):
    home.install()
    assert home.files() == {
        *(f".local/bin/{command}" for command in ("agentd", "agentctl")),
        *(f".local/share/bash-completion/completions/{command}" for command in ("agentd", "agentctl")),
        *(f".local/share/zsh/site-functions/_{command}" for command in ("agentd", "agentctl")),
        *(f".config/fish/completions/{command}.fish" for command in ("agentd", "agentctl")),
        *(f".local/{file}" for file in FILES if file.startswith("share/")),
        *(f".config/systemd/user/{template.name}" for template in service._TEMPLATES.iterdir()),
    }
    assert home.state.stat().st_mode & 0o777 == 0o700
    assert f'ReadWritePaths="-{home.state}"' in (home.units / "agentd.service").read_text()
    assert "systemctl --user --quiet enable --now agentd.socket" in home.asked.read_text()
    others = "agentd-ask.socket, agentd-http.service, agentd-http.socket, agentd-prompt.service, agentd-verify.socket"
    assert any(line.endswith(f"; {others}, not enabled") for line in home.said)
    assert (home.prefix / "bin/agentd").read_text() == "#!/v/bin/python3 -I\n"
    home.uninstall()
    sockets = "agentd-ask.socket agentd-http.socket agentd-verify.socket agentd.socket"
    assert f"disable {sockets} agentd-prompt.service\n" in home.asked.read_text()
    assert home.files() == set()
    assert f"kept {home.state}" in home.said


def test_an_upgrade_stops_the_socket_only_where_its_unit_changed(home):
    home.install()
    home.asked.write_text("")
    home.install()
    assert " stop " not in home.asked.read_text()
    (home.units / "agentd.socket").write_text("[Socket]\n")
    home.install()
    assert "systemctl --user --quiet stop agentd.socket agentd.service" in home.asked.read_text()


def test_without_a_user_manager_it_names_the_remaining_step(home):
    home.failing.write_text("show-environment\n")
    home.install()
    assert any("systemctl --user enable --now agentd.socket" in line for line in home.said)
    assert "daemon-reload" not in home.asked.read_text()
    home.uninstall()
    assert home.files() == set()


def test_an_agent_that_was_started_by_hand_goes_on_until_the_next_login(home, tmp_path):
    lock = tmp_path / "run" / "agentd" / "agent.sock.lock"
    lock.parent.mkdir(mode=0o700)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        home.install()
    assert "systemctl --user --quiet enable agentd.socket" in home.asked.read_text()
    assert "enabled agentd.socket, from your next login on" in home.said


@pytest.mark.parametrize(
    ("failing", "says"),
    [("enable", "agentd.socket` failed: it fails"), ("try-restart agentd.service", "journalctl")],
)
def test_what_systemd_refuses_is_an_error(home, failing, says):
    home.failing.write_text(f"{failing}\n")
    with pytest.raises(StartError, match=says):
        home.install()


@pytest.mark.parametrize("way", [Way.PIPX, Way.UV])
def test_links_and_pages_of_another_installer_are_neither_replaced_nor_removed(home, way):
    home.is_installed_with(way)
    links = {".local/bin/agentd": "bin/agentd", ".local/share/man/man1/agentd.1": "share/man/man1/agentd.1"}
    for link, file in links.items():
        (home.path / link).parent.mkdir(parents=True, exist_ok=True)
        (home.path / link).symlink_to(home.prefix / file)
    home.install()
    assert not (home.commands / "agentctl").exists()
    home.uninstall()
    assert home.files() == set(links)
    assert {os.readlink(home.path / link) for link in links} == {
        str(home.prefix / file) for file in links.values()
    }


def test_a_file_of_the_same_name_among_the_commands_stays(home):
    home.commands.mkdir(parents=True)
    (home.commands / "agentd").write_text("mine")
    home.install()
    assert any("is another command, and stays" in line for line in home.said)
    home.uninstall()
    assert home.files() == {".local/bin/agentd"}


def test_nothing_is_written_by_one_that_is_not_installed_or_cannot_start(home, monkeypatch):
    home.is_installed_with(Way.CLONE, ())
    with pytest.raises(ConfigError, match="has no agentd installed"):
        home.install()
    home.is_installed_with(Way.PIP)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ConfigError, match="has no agentd installed"):
        home.install()
    assert home.files() == set()


def test_nothing_is_written_where_settings_or_home_cannot_be_used(home, monkeypatch):
    settings = home.path / ".config/agentd/config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("nonsense = 1\n")
    with pytest.raises(ConfigError, match="nonsense"):
        home.install()
    assert home.files() == {".config/agentd/config.toml"}
    home.uninstall()  # needs no settings
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(EnvironmentVariableError, match="set HOME to a folder of your own"):
        home.install()


def test_purging_removes_what_is_the_agents_and_nothing_else(home):
    home.install()
    for name in ("keys/root.key", "store/data.mdb", "notes"):
        (home.state / name).parent.mkdir(exist_ok=True)
        (home.state / name).touch()
    lock = home.state / "store" / "agentd.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AlreadyServingError, match="stop it, and purge again"):
            home.uninstall(purge=True)
        assert (home.state / "keys" / "root.key").exists()
    home.uninstall(purge=True)
    assert home.files() == {".local/state/agentd/notes"}
