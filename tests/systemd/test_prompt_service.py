"""agentd-prompt.service: the notifications of a desktop, from a sandbox that sees the agent and the session bus."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.locking.stand_in import what_is_missing
from tests.systemd.user_manager import PROJECT, SYSTEM_PYTHON, UserManager, until

SERVICE = "agentd-prompt.service"
NOTIFICATIONS = ("org.freedesktop.Notifications", "/org/freedesktop/Notifications")
MOCK = "org.freedesktop.DBus.Mock"
MANUAL = (PROJECT / "docs" / "operations.md").read_text()
MANUAL = MANUAL.partition("\n## Prompts at the desktop\n")[2].partition("\n## ")[0]
WITH_A_DISPLAY = re.findall(r"```ini\n(.*?)```", MANUAL, re.DOTALL)[-1]
"""The documented settings for a program that opens a window."""

ASKS = """
from agentd_client import Client
with Client.connect(timeout=60) as agent:
    granted = agent.request_token(600, scopes=["deploy"], reason="push the release")
    print(granted.scopes, agent.verify_token(granted.token, scopes=["deploy"]))
"""

LISTENS = """
import socket, sys
listeners = []
for path in (sys.argv[1], "\\0" + sys.argv[2]):
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[-1].bind(path)
    listeners[-1].listen()
print("listening", flush=True)
sys.stdin.read()
"""
PINENTRY = """#!/usr/bin/python3
import socket, sys
print("OK", flush=True)
for line in sys.stdin:
    if line.startswith("CONFIRM"):
        for path in ({wayland!r}, "\\0" + {x11!r}):
            socket.socket(socket.AF_UNIX).connect(path)
    print("OK", flush=True)
"""
"""Says yes if it reaches the display by Wayland's socket and by X11's abstract one."""


@pytest.fixture
def prompting(service):
    """The unit as installed, and a desktop with notifications."""
    reason = what_is_missing()
    if reason is not None:
        pytest.skip(reason)
    mock = service.start(
        "env", f"DBUS_SESSION_BUS_ADDRESS=unix:path={service.runtime}/bus",
        SYSTEM_PYTHON, "-I", "-m", "dbusmock", "--template", "notification_daemon",
        "-p", json.dumps({"capabilities": "body body-markup actions"}),
    )  # fmt: skip
    until(lambda: busctl(service, "status", NOTIFICATIONS[0]).returncode == 0)
    yield service
    service.run("systemctl", "--user", "disable", "--now", SERVICE)
    service.run("pkill", "-u", "64123", "-f", "dbusmock")
    mock.communicate()
    service.remove(service.units / f"{SERVICE}.d")
    service.systemctl("daemon-reload")


def busctl(service: UserManager, *arguments: str):
    return service.run("busctl", "--user", "--json=short", *arguments)


def called(service: UserManager, method: str, signature: str, *arguments: str):
    done = busctl(service, "call", *NOTIFICATIONS, MOCK, method, signature, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["data"] if done.stdout else None


def shown(service: UserManager) -> list[str]:
    (calls,) = called(service, "GetMethodCalls", "s", "Notify")
    return [arguments[4]["data"] for _, arguments in calls]


def test_it_is_installed_and_not_enabled(service):
    assert service.run("systemctl", "--user", "is-enabled", SERVICE).stdout == "disabled\n"
    assert service.show("ActiveState", SERVICE) == "inactive"
    assert not re.search("@[A-Z_]+@", service.outside(service.units / SERVICE).read_text())
    checked = service.run("systemd-analyze", "--user", "verify", service.units / SERVICE)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_person_is_asked_and_the_program_gets_its_session(prompting):
    prompting.systemctl("start", SERVICE)
    program = prompting.start(prompting.python, "-c", ASKS)
    until(lambda: shown(prompting))
    (body,) = shown(prompting)
    assert 'says: "push the release"' in body
    called(
        prompting,
        "EmitSignal",
        "sssav",
        NOTIFICATIONS[0],
        "ActionInvoked",
        "us",
        "2",
        "u",
        "1",
        "s",
        "approve",
    )
    assert program.communicate(timeout=60)[0] == "['deploy'] True\n"

    prompting.systemctl("restart", "agentd.socket", "agentd.service")
    program = prompting.start(prompting.python, "-c", ASKS)
    until(lambda: len(shown(prompting)) == 2)
    prompting.systemctl("stop", SERVICE)
    assert prompting.show("Result", SERVICE) == "success"
    prompting.systemctl("stop", "agentd.socket", "agentd.service")
    program.communicate()


def test_it_is_started_with_the_graphical_session_once_it_is_enabled(prompting):
    assert prompting.run("systemctl", "--user", "enable", SERVICE).returncode == 0
    assert SERVICE in prompting.show("Wants", "graphical-session.target")


def test_it_sees_the_agents_folder_and_the_bus_and_neither_keys_nor_store_nor_settings(prompting):
    prompting.write(prompting.home / ".config/agentd/config.toml", "")
    prompting.done("agentctl", "--timeout", "30", "login")
    prompting.systemctl("start", SERVICE)
    pid = int(prompting.show("MainPID", SERVICE))
    seen = Path(f"/proc/{pid}/root")

    def listed(folder: Path | str) -> list[str]:
        return sorted(prompting.done("ls", "-A", f"{seen}{folder}", root=True).split())

    assert prompting.exists(prompting.state / "keys" / "root.key")
    assert listed(prompting.state) == []
    assert listed(prompting.home / ".config/agentd") == []
    assert listed(prompting.runtime) == ["agentd", "bus"]
    assert listed("/tmp") == []
    mounts = prompting.done("cat", f"/proc/{pid}/mountinfo", root=True)
    options = {line.split()[4]: line.split()[5] for line in mounts.splitlines()}
    writable = {at for at, given in options.items() if given.startswith("rw")}
    assert not any(at.startswith((str(prompting.runtime), "/home")) or at == "/" for at in writable), writable
    found = prompting.done("cat", f"/proc/{pid}/status", root=True)
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert f"\n{line}\n" in found
    interfaces = prompting.done("cat", f"/proc/{pid}/net/dev", root=True).splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_with_the_documented_settings_a_dialogue_reaches_the_display(prompting):
    wayland, x11 = f"{prompting.runtime}/wayland-7", "/tmp/.X11-unix/X7"
    displays = prompting.start(SYSTEM_PYTHON, "-c", LISTENS, wayland, x11)
    assert displays.stdout.readline() == "listening\n"
    program = prompting.home / "bin/pinentry"
    prompting.write(program, PINENTRY.format(wayland=wayland, x11=x11))
    prompting.done("chmod", "700", program)
    path = 'Environment="PATH=%h/bin:/usr/bin:/bin"\n'
    prompting.write(prompting.units / f"{SERVICE}.d" / "override.conf", WITH_A_DISPLAY + path)
    prompting.systemctl("daemon-reload")
    prompting.systemctl("start", SERVICE)
    asking = prompting.start(prompting.python, "-c", ASKS)
    assert asking.communicate(timeout=60)[0] == "['deploy'] True\n"
    displays.communicate()
    assert shown(prompting) == []


def test_systemds_own_analysis_puts_the_exposure_below_two(service):
    analysis = ("systemd-analyze", "security", "--offline=true", "--user", "--no-pager", "--threshold=20")
    said = service.done(*analysis, service.units / SERVICE)
    print(re.search("Overall exposure level.*", said).group())
