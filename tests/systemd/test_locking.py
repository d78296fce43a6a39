"""The agent's passphrase under a real user manager: credentials, the lock signal, restarts."""

from __future__ import annotations

import json

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
    assert status(service)["memoryLocked"] is True
