"""`agentd service install` of a wheel that pip, pipx or uv installed, under a real user manager."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.packaging.distributions import BUILD_SECONDS
from tests.systemd.user_manager import SYSTEM_PYTHON, UserManager

pytestmark = pytest.mark.serial
COMMANDS = ("agentd", "agentctl")
PAGES = ("man1/agentctl.1", "man1/agentd.1", "man5/agentd.toml.5", "man7/agentd-protocol.7")


class Way:
    """How the user of the manager installs agentd, and where its commands are then."""

    commands = ".local/bin"

    def __init__(self, manager: UserManager) -> None:
        self.manager = manager
        self.links = ("--find-links", manager.scratch)

    def run(self, *command: object, **environ: str) -> None:
        self.manager.done(*command, seconds=BUILD_SECONDS, **environ)

    def agentd(self, *arguments: str) -> str:
        command = self.manager.home / self.commands / "agentd"
        return self.manager.done(command, *arguments, seconds=BUILD_SECONDS)

    def environment(self, name: str, *wanted: object) -> None:
        folder = self.manager.home / name
        if not self.manager.exists(folder):
            self.run(SYSTEM_PYTHON, "-m", "venv", folder)
            self.run(folder / "bin" / "pip", "install", *wanted)

    def tool(self, name: str, *arguments: object) -> None:
        """pipx or uv, from an environment of the user's that stays for the tests that follow."""
        self.environment(name, name)
        self.run(self.manager.home / name / "bin" / name, *arguments)


class Pip(Way):
    commands = "venv/bin"

    def install(self) -> None:
        self.environment("venv", *self.links, "agentd-daemon")

    def remove(self) -> None:
        self.manager.remove(self.manager.home / "venv")


class PipUser(Way):
    def install(self) -> None:
        if self.manager.run(SYSTEM_PYTHON, "-m", "pip", "--version").returncode != 0:
            pytest.skip(f"{SYSTEM_PYTHON} has no pip")
        self.pip("install", "--user", *self.links, "agentd-daemon")

    def remove(self) -> None:
        self.pip("uninstall", "--yes", "agentd-daemon", "agentd-client")

    def pip(self, *arguments: object) -> None:
        self.run(SYSTEM_PYTHON, "-m", "pip", *arguments, PIP_BREAK_SYSTEM_PACKAGES="1")  # PEP 668


class Pipx(Way):
    def install(self) -> None:
        links = f"--pip-args=--find-links {self.manager.scratch}"
        self.tool("pipx", "install", "--python", SYSTEM_PYTHON, links, "agentd-daemon")

    def remove(self) -> None:
        self.tool("pipx", "uninstall", "agentd-daemon")


class Uv(Way):
    def install(self) -> None:
        self.tool("uv", "tool", "install", "--python", SYSTEM_PYTHON, *self.links, "agentd-daemon")

    def remove(self) -> None:
        self.tool("uv", "tool", "uninstall", "agentd-daemon")


@pytest.fixture(params=[Pip, PipUser, Pipx, Uv])
def way(request, manager) -> Iterator[Way]:
    chosen: Way = request.param(manager)
    chosen.install()
    yield chosen
    # Only after a failure is there anything left of the service.
    command = (manager.home / chosen.commands / "agentd", "service", "install", "--uninstall", "--purge")
    manager.run(*command, seconds=BUILD_SECONDS)
    chosen.remove()


def files(manager: UserManager) -> set[str]:
    """Files and links of the home, but caches."""
    return {
        path
        for path in manager.done("find", manager.home, "-not", "-type", "d").splitlines()
        if "/.cache/" not in path and "__pycache__" not in path
    }


def test_the_service_works_and_its_removal_leaves_what_the_installer_made(manager, way):
    before = files(manager)
    said = way.agentd("service", "install")
    assert "enabled     agentd.socket" in said
    assert manager.systemctl("is-active", "agentd.socket") == "active\n"
    manager.done("agentctl", "--timeout", "30", "login")
    program = f"/proc/{manager.main_pid}/cmdline"
    started = manager.done("cat", program).split("\0")
    assert started[1] == ("-EP" if isinstance(way, PipUser) else "-I")
    for command in COMMANDS:
        assert (
            manager.run("head", "-n", "2", manager.home / way.commands / command).stdout.count(started[1])
            == 1
        )
        # Isolated: a variable that would stop any other Python changes nothing.
        assert manager.done(command, "--version", PYTHONHOME="/nonexistent").startswith(command)
    for page in PAGES:
        name, _, section = page.rpartition("/")[2].rpartition(".")
        shown = manager.done("man", "-w", section, name)  # the page itself, where pipx made a link
        assert shown.startswith(f"{manager.home}/.local/share/")
        assert shown.endswith(f"/share/man/{page}\n")
    found = json.loads(manager.run("agentd", "doctor", "--json").stdout)["findings"]
    severities = {finding["name"]: finding["severity"] for finding in found}
    names = ("path.commands", "units.files", "units.enabled", "units.program", "units.state")
    assert {name: severities[name] for name in names} == dict.fromkeys(names, "ok")

    after = files(manager)
    assert "linked" not in way.agentd("service", "install").split()  # an upgrade in place
    assert files(manager) == after
    manager.done("agentctl", "verify")

    assert "removed" in way.agentd("service", "install", "--uninstall", "--purge")
    assert files(manager) == before
    assert manager.show("LoadState") == "not-found"
    assert way.agentd("--version").startswith("agentd ")


@pytest.fixture(scope="module")
def installed(manager):
    """The service of what pip installed."""
    way = Pip(manager)
    way.install()
    way.agentd("service", "install")
    yield
    way.agentd("service", "install", "--uninstall", "--purge")
    way.remove()


COMPLETED = (("agentd", "agentd serv", "service"), ("agentctl", "agentctl logi", "login"))


@pytest.mark.parametrize(("command", "typed", "completed"), COMPLETED)
def test_bash_completes_both_commands(manager, installed, command, typed, completed):
    script = manager.home / ".local/share/bash-completion/completions" / command
    asked = f'COMP_WORDS=({typed}); COMP_CWORD=1; . "{script}"; _{command}_completion {command}'
    assert completed in manager.done("bash", "-c", f'{asked}; echo "${{COMPREPLY[*]}}"').split()


@pytest.mark.parametrize(("command", "typed", "completed"), COMPLETED)
def test_fish_completes_both_commands(manager, installed, command, typed, completed):
    if shutil.which("fish") is None:
        pytest.skip("there is no fish here")
    assert completed in manager.done("fish", "-c", f"complete -C '{typed}'").split()


def test_zsh_finds_the_completions_of_both_commands(manager, installed):
    if shutil.which("zsh") is None:
        pytest.skip("there is no zsh here")
    script = "fpath+=(~/.local/share/zsh/site-functions); autoload -Uz compinit; compinit -u -D; print $_comps[agentd] $_comps[agentctl]"
    assert manager.done("zsh", "-f", "-c", script) == "_agentd _agentctl\n"
