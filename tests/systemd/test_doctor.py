"""`agentd doctor` under a real service manager."""

from __future__ import annotations

import json
import sys


def findings(service) -> dict[str, dict[str, str]]:
    ended = service.run("agentd", "doctor", "--json")
    assert ended.stderr == ""
    return {finding["name"]: finding for finding in json.loads(ended.stdout)["findings"]}


def test_it_checks_an_installed_agent_without_starting_it(service):
    found = findings(service)
    assert service.show("ActiveState") == "inactive"
    assert "the first connection starts it" in found["agent.answer"]["says"]
    names = [
        "units.files",
        "units.enabled",
        "units.program",
        "units.state",
        "path.commands",
        "socket.listener",
    ]
    assert {found[name]["severity"] for name in names} == {"ok"}, found


def test_it_starts_no_agent_where_the_socket_is_started_and_not_enabled(service):
    service.systemctl("disable", "agentd.socket")
    try:
        assert service.show("ActiveState", "agentd.socket") == "active"
        found = findings(service)
        assert service.show("ActiveState") == "inactive"
    finally:
        service.systemctl("enable", "agentd.socket")
    assert "the first connection starts it" in found["agent.answer"]["says"]
    assert found["socket.listener"]["severity"] == "ok"
    assert found["units.enabled"]["severity"] == "warning"


def test_a_healthy_service_has_nothing_worse_than_notes(service):
    service.done("agentctl", "login")
    ended = service.run("agentd", "doctor")
    print(ended.stdout, file=sys.stderr)
    assert ended.returncode == 0, ended.stdout
    found = findings(service)
    assert found["agent.supervisor"]["severity"] == "ok"
    assert found["agent.alone"]["severity"] == "ok"
    assert found["memory.process"]["severity"] == "ok"
    assert found["store.seals"]["severity"] == "ok"


def test_a_state_folder_that_the_sandbox_closes_is_named(service):
    settings = service.home / ".config" / "agentd" / "config.toml"
    service.write(settings, f'state_path = "{service.home}/elsewhere/agentd"\n')
    try:
        found = findings(service)
    finally:
        service.remove(settings)
    assert found["units.state"]["severity"] == "error"
    assert "agentd service install` again" in found["units.state"]["remedy"]
