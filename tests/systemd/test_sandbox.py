"""What the unit's settings do, seen from inside."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.systemd.user_manager import SYSTEM_PYTHON

HERE = Path(__file__).parent
LOADS_CODE = {
    "LD_PRELOAD": "/nonexistent/preloaded.so",
    "LD_LIBRARY_PATH": "/nonexistent",
    "PYTHONPATH": "{home}/evil",
    "PYTHONHOME": "/nonexistent",
    "OPENSSL_CONF": "/nonexistent",
    "AGENTD_SOCKET": "/nonexistent/agent.sock",
    "AGENTD_TOKEN": "v4.local.secret",
}


class Sockets(NamedTuple):
    """Sockets of other programs, which take commands, and those that the agent needs."""

    others: list[str]
    needed: list[str]


@pytest.fixture(scope="module")
def sockets(manager):
    """Programs that listen where a desktop has them, and where the agent needs one."""
    runtime, home, own = manager.runtime, manager.home, f"agentd-test-{os.getpid()}"
    users = [
        f"{runtime}/wayland-0", f"{runtime}/gnupg/d.x/S.gpg-agent", f"{runtime}/nvim.4711.0",
        f"{runtime}/keyring/ssh", f"{runtime}/podman/podman.sock",
        f"/tmp/{own}/agent.4711", f"/var/tmp/{own}/editor.sock",
        f"{home}/.gnupg/S.gpg-agent", f"{home}/.ssh/agent/s.1", f"{home}/.docker/run/docker.sock",
        f"@/tmp/.X11-unix/{own}",
    ]  # fmt: skip
    roots, needed = ["/run/docker.sock"], ["/run/dbus/system_bus_socket"]
    programs = [
        manager.start(SYSTEM_PYTHON, manager.scratch / "tests/listening.py", *names, root=root)
        for names, root in ((users, False), ([*roots, *needed], True))
    ]
    try:
        for program in programs:
            assert program.stdout.readline() == "listening\n"
        yield Sockets([*users, *roots, f"{runtime}/bus", f"{runtime}/systemd/private"], needed)
    finally:
        for program in programs:
            program.communicate()


@pytest.fixture(scope="module")
def probed(manager, installed, sockets):
    """What a process found out that the unit started in the agent's place."""
    manager.tidy()
    manager.write(manager.home / "probe.py", (HERE / "probe.py").read_text())
    command = (
        manager.python,
        "-I",
        manager.home / "probe.py",
        manager.state,
        manager.runtime / "agentd",
        manager.home,
        *sockets.others,
        *sockets.needed,
    )
    quoted = " ".join(f'"{word}"' for word in command).replace("%", "%%")
    manager.drop_in(f"[Service]\nType=oneshot\nExecStart=\nExecStart={quoted}\n")
    after = manager.cursor()
    manager.systemctl("start", "agentd.service")
    lines = [entry["MESSAGE"] for entry in manager.journal(after)]
    return json.loads(next(line for line in lines if line.startswith("{")))


def test_it_has_no_capability_and_can_gain_none(probed):
    assert probed["status"] == {
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }


def test_it_writes_to_its_state_and_the_sockets_folder_only(probed, manager):
    own = {str(manager.state), str(manager.runtime / "agentd")}
    private = {"/tmp", "/var/tmp"}
    for folder, outcome in probed["write"].items():
        assert (folder, outcome in {"EROFS", "EACCES"}) == (folder, folder not in own | private)
    assert probed["tmp"] == []


def test_it_has_unix_sockets_and_no_others_and_no_network(probed):
    refused = "EAFNOSUPPORT"
    assert probed["socket"] == {
        "AF_INET": refused,
        "AF_INET6": refused,
        "AF_NETLINK": refused,
        "AF_UNIX": "done",
    }
    assert probed["interfaces"] == ["lo"]


def test_it_reaches_no_socket_through_which_it_could_command_another_program(probed, sockets, manager):
    connect = (
        "import socket, sys; sys.argv.pop(0)\n"
        "for name in sys.argv: socket.socket(1).connect(chr(0) + name[1:] if name[0] == '@' else name)"
    )
    manager.done("python3", "-c", connect, *sockets.others, *sockets.needed)  # outside they can be reached
    assert {
        name: probed["connect"][name] for name in sockets.others if probed["connect"][name] == "done"
    } == {}


def test_it_reaches_what_it_needs_and_sees_nothing_else_there(probed, sockets, manager):
    assert {name: probed["connect"][name] for name in sockets.needed} == dict.fromkeys(sockets.needed, "done")
    assert probed["run"][str(manager.runtime)] == ["agentd", "systemd"]
    assert set(probed["run"]["/run"]) <= {"dbus", "systemd", "user", "nscd", "current-system"}


def test_it_has_no_devices_no_namespaces_no_debugger_and_no_writable_code(probed):
    assert probed["devices"] == []
    for attempt in ("unshare", "ptrace", "personality", "exec_memory"):
        assert (attempt, probed[attempt]) == (attempt, "EPERM")
    assert probed["core_limit"] == [0, 0]
    assert probed["umask"] == 0o077


def test_the_agent_itself_runs_like_that(service):
    service.done("agentctl", "login")
    status = service.done("cat", f"/proc/{service.main_pid}/status")
    for line in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert f"\n{line}\n" in status
    assert re.search(
        r"\nMax core file size +0 +0 ", service.done("cat", f"/proc/{service.main_pid}/limits", root=True)
    )
    # Closed to other processes of its own user, in the way that PR_SET_DUMPABLE closes it.
    assert service.run("cat", f"/proc/{service.main_pid}/environ").returncode != 0


def test_variables_that_load_foreign_code_do_not_reach_it(service):
    service.write(service.home / "evil" / "sitecustomize.py", "raise SystemExit('evil')")
    service.write(service.home / "evil" / "msgpack.py", "raise SystemExit('evil')")
    variables = {name: value.format(home=service.home) for name, value in LOADS_CODE.items()}
    service.systemctl(
        "set-environment", *(f"{name}={value}" for name, value in variables.items()), "HARMLESS=1"
    )
    try:
        after = service.cursor()
        service.done("agentctl", "login")
        environ = service.done("cat", f"/proc/{service.main_pid}/environ", root=True).split("\0")
        names = {entry.partition("=")[0] for entry in environ}
        assert "HARMLESS" in names, "the manager's environment does reach the service"
        assert not names & variables.keys()
        assert not any("ld.so" in entry["MESSAGE"] for entry in service.journal(after))
    finally:
        service.systemctl("unset-environment", *variables, "HARMLESS")


def test_systemds_own_analysis_puts_the_exposure_below_two(service):
    analysis = ("systemd-analyze", "security", "--offline=true", "--user", "--no-pager", "--threshold=20")
    said = service.done(*analysis, service.units / "agentd.service")
    print(re.search("Overall exposure level.*", said).group())


def test_the_documented_drop_in_for_systems_without_user_namespaces_starts_it(service):
    manual = (HERE.parent.parent / "docs" / "operations.md").read_text()
    section = manual.partition("## Without user namespaces")[2]
    service.drop_in(section.partition("```ini\n")[2].partition("```")[0])
    service.done("agentctl", "login")
    assert service.show("PrivateUsers") == "no"
    status = service.done("cat", f"/proc/{service.main_pid}/status")
    assert "\nNoNewPrivs:\t1\n" in status
    assert "\nSeccomp:\t2\n" in status
