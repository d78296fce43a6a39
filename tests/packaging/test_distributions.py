"""agentd-daemon and agentd-client, built and installed as a user does."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agentd_client import __version__
from tests.e2e.daemon import START_SECONDS, scratch_home
from tests.packaging.distributions import INSTALLERS, PROJECT, done, install_with_pip, installer, places

PAGES = {
    "agentd-daemon": {"agentctl.1", "agentd.1", "agentd.toml.5", "agentd-protocol.7"},
    "agentd-client": {"agentctl.1"},
}


@pytest.mark.parametrize("way", INSTALLERS)
def test_the_daemon_brings_both_commands_and_they_work(built, tmp_path, way):
    commands = INSTALLERS[way](built, tmp_path / "installed", "agentd-daemon")
    with scratch_home() as home:

        def run(command: str, *arguments: str) -> str:
            return done(commands / command, *arguments, environ=home.environ, cwd=home.path)

        assert run("agentd", "--version") == f"agentd {__version__}\n"
        assert run("agentctl", "--version") == f"agentctl {__version__}\n"
        agent = subprocess.Popen(
            [commands / "agentd", "serve"], env=home.environ, cwd=home.path, stderr=subprocess.DEVNULL
        )
        try:
            run("agentctl", f"--timeout={START_SECONDS}", "login")
            run("agentctl", "verify")
        finally:
            agent.terminate()
            assert agent.wait(START_SECONDS) == 0


@pytest.mark.parametrize("tool", ["pipx", "uv"])
def test_the_documented_command_installs_from_a_clone(built, tmp_path, tool):
    [command] = re.findall(
        f"^{tool} .*install .*$", (PROJECT / "docs/operations.md").read_text(), re.MULTILINE
    )
    script = f'{tool}() {{ {shlex.join(installer(tool))} "$@"; }}; {command}'
    done("sh", "-c", script, environ=places(tool, tmp_path), cwd=built.daemon_source)
    for name in ("agentd", "agentctl"):
        assert done(tmp_path / "bin" / name, "--version") == f"{name} {__version__}\n"
    assert "jeepney is installed" in doctor(tmp_path / "bin")


def doctor(commands: Path) -> str:
    with scratch_home() as home:
        ended = subprocess.run(
            [commands / "agentd", "doctor"], env=home.environ, capture_output=True, text=True, check=False
        )
    return ended.stdout


@pytest.mark.parametrize(("way", "says"), [("pip", "pip"), ("pipx", "pipx"), ("uv", "uv tool")])
def test_the_doctor_tells_how_it_was_installed(built, tmp_path, way, says):
    found = doctor(INSTALLERS[way](built, tmp_path, "agentd-daemon"))
    assert f"agentd {__version__}, installed with {says} in {tmp_path}" in found
    advice = {
        "pip": f"{tmp_path}/bin/python -m pip",
        "pipx": "pipx inject agentd-daemon",
        "uv": "uv pip install",
    }
    assert f"→ `{advice[way]}" in found


def test_the_client_alone_brings_agentctl_and_no_daemon(built, tmp_path):
    commands = install_with_pip(built, tmp_path / "installed", "agentd-client[cli]")
    assert done(commands / "agentctl", "--version") == f"agentctl {__version__}\n"
    assert not (commands / "agentd").exists()


@pytest.mark.parametrize("distribution", PAGES)
def test_a_wheel_has_its_manual_pages_and_its_licence(built, distribution):
    names = zipfile.ZipFile(built.wheel(distribution)).namelist()
    pages = {name.rpartition("/")[2] for name in names if "/data/share/man/man" in name}
    assert pages == PAGES[distribution]
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
def test_man_finds_the_pages_of_the_commands_in_path(built, tmp_path):
    commands = install_with_pip(built, tmp_path / "installed", "agentd-daemon")
    environ = {"PATH": f"{commands}:/usr/bin:/bin", "MANPATH": "", "MANWIDTH": "80"}
    for page in PAGES["agentd-daemon"]:
        name, _, section = page.rpartition(".")
        found = done("man", "-w", section, name, environ=environ).strip()
        assert found == f"{tmp_path}/installed/share/man/man{section}/{page}"
        assert re.search(f"{name} (-|—) ", done("man", section, name, environ=environ))


def test_the_protocol_page_has_every_section_and_no_link_into_a_document(built):
    wheel = zipfile.ZipFile(built.wheel("agentd-daemon"))
    [name] = (name for name in wheel.namelist() if name.endswith("agentd-protocol.7"))
    page = wheel.read(name).decode()
    sections = re.findall("^## (.*)$", (PROJECT / "docs/protocol.md").read_text(), re.MULTILINE)
    assert re.findall(r"^\.SH (.*)$", page, re.MULTILINE) == ["NAME", "DESCRIPTION", *sections]
    assert not re.search(r"System Message|\]\(", page)


def test_a_wheel_is_the_same_from_the_sdist_and_from_the_clone(built, tmp_path):
    for distribution, source in (("agentd-daemon", PROJECT), ("agentd-client", PROJECT / "client")):
        done(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, source)
        from_sdist = zipfile.ZipFile(built.wheel(distribution))
        [path] = tmp_path.glob(f"{distribution.replace('-', '_')}-*.whl")
        assert zipfile.ZipFile(path).namelist() == from_sdist.namelist()


def test_make_test_works_in_the_unpacked_sdist_of_the_daemon(built):
    source = built.daemon_source
    done(
        "make", "test", f"PYTHON={sys.executable}", "ARGS=tests/tokens tests/e2e/test_sessions.py", cwd=source
    )
    collected = (source / ".venv/bin/python", "-m", "pytest", "-q", "--collect-only")
    done(*collected, "--ignore=tests/integrations", cwd=source)  # fails where a test lacks a file
