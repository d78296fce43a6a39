"""The agent's passphrase under a real user manager: credentials, the lock signal, restarts."""

from __future__ import annotations

import json
from pathlib import Path

from tests.keys.ordinary_memory import HAS_SECRET_MEMORY
from tests.systemd.user_manager import UserManager, until

PASSPHRASE = "correct horse battery staple"
PATIENT = ("agentctl", "--timeout", "60")  # a first answer waits for Argon2id, on a machine with other work


def status(service: UserManager) -> dict[str, object]:
    return json.loads(service.done(*PATIENT, "--json", "status"))["agent"]


def protect(service: UserManager) -> None:
    """A key file with a passphrase, which the manager hands over at every start."""
    secret = service.home / ".config/agentd/passphrase"
    service.write(secret, PASSPHRASE + "\n")
    service.done("chmod", "600", secret)
    service.drop_in("[Service]\nLoadCredential=agentd.passphrase:%h/.config/agentd/passphrase\n")


def test_with_a_credential_it_starts_unlocked_unless_it_was_locked_on_purpose(service):
    protect(service)
    service.done(*PATIENT, "login")
    assert (status(service)["protected"], status(service)["locked"]) == (True, False)
    service.systemctl("restart", "agentd.service")
    service.done(*PATIENT, "verify")

    service.done(*PATIENT, "lock")
    locked = service.run(*PATIENT, "verify")
    assert locked.returncode not in (0, 1), "locked is neither yes nor no"
    assert "agentctl unlock" in locked.stderr
    service.kill("KILL", service.main_pid)
    until(lambda: status(service)["locked"])
    service.systemctl("restart", "agentd.service")
    assert status(service)["lockReason"] == "start"
    assert service.show("StatusText").startswith("locked")

    service.done(*PATIENT, "unlock", "--passphrase-file", service.home / ".config/agentd/passphrase")
    service.done(*PATIENT, "verify")
    service.systemctl("kill", "--signal=USR1", "agentd.service")
    until(lambda: status(service)["lockReason"] == "signal")


def test_keys_stay_in_locked_memory_and_argon2id_has_its_memory_inside_the_sandbox(service):
    protect(service)
    service.done(*PATIENT, "login")
    said = status(service)
    assert said["memoryLocked"] is True
    assert said["memorySecret"] is HAS_SECRET_MEMORY


def test_a_drop_in_keeps_the_keys_out_of_secret_memory_so_that_the_machine_can_hibernate(service):
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    service.drop_in(manual.partition("## Secret memory")[2].partition("```ini\n")[2].partition("```")[0])
    service.done(*PATIENT, "login")
    said = status(service)
    assert (said["memorySecret"], said["memoryLocked"]) == (False, True)
    assert "/secretmem" not in service.done("cat", f"/proc/{service.main_pid}/maps", root=True)
