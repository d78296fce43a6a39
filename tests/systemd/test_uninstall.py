"""`make uninstall`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.systemd.test_install import COMMANDS, COMPLETIONS, MANUAL


@pytest.fixture
def service(service):
    """Installed again afterwards, for the tests that follow."""
    yield service
    service.make("install")


def test_it_undoes_the_installation_and_keeps_keys_and_store_without_purge(service):
    service.done("agentctl", "login")
    service.write(service.home / ".local/bin/other", "not ours")
    pid = service.main_pid
    said = service.make("uninstall")
    kept = service.state
    for path in (*COMMANDS, *COMPLETIONS, *MANUAL, ".local/share/agentd"):
        assert not service.exists(service.home / path)
    assert list(service.outside(service.units).rglob("agentd*")) == []
    assert not service.exists(service.runtime / "agentd" / "agent.sock")
    assert service.show("LoadState") == "not-found"
    assert not service.exists(Path(f"/proc/{pid}"))
    assert service.exists(service.home / ".local/bin/other")
    assert service.exists(kept / "keys" / "root.key")
    assert service.exists(kept / "store" / "data.mdb")
    assert f"kept        {kept}" in said

    assert f"removed     {kept}/keys" in service.make("uninstall", "PURGE=1")
    assert not service.exists(kept)
    assert not service.exists(service.runtime / "agentd")
