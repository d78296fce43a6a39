"""In a user namespace that does not map the user: every stranger looks like oneself there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.e2e.daemon import serving
from tests.other_user import needs_root

UNMAPPED = ["unshare", "--user"]
MAPPED = ["unshare", "--user", "--map-current-user"]

pytestmark = pytest.mark.skipif(
    subprocess.run([*UNMAPPED, "true"], capture_output=True, check=False).returncode != 0,
    reason="this system lets nobody make a user namespace",
)


def run(home, within: list[str], module: str, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*within, sys.executable, "-m", module, *args],
        env=home.environ | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["serve", "init"])
def test_an_agent_that_would_hear_everybody_does_not_start_and_makes_nothing(home, command):
    done = run(home, UNMAPPED, "agentd", command)
    assert (done.returncode, done.stdout) == (78, "")
    assert "stands for everybody whom this user namespace does not map" in done.stderr
    assert "unshare --map-current-user" in done.stderr
    assert not home.state.exists()
    assert list(home.runtime.iterdir()) == []


def test_an_agent_whose_user_is_mapped_starts(home):
    done = run(home, MAPPED, "agentd", "init")
    assert (done.returncode, done.stderr.count("refused")) == (0, 0)


@needs_root
@pytest.mark.parametrize("within", [UNMAPPED, MAPPED])
def test_a_client_sends_nothing_to_another_user_however_that_looks_to_it(home, tmp_path, within):
    path = home.runtime / "impostor"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.seteuid(1000)  # SO_PEERCRED shows who called listen(2)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        token = "v4.local." + "A" * 100
        done = run(home, within, "agentd_client.cli", "verify", AGENTD_SOCKET=str(path), AGENTD_TOKEN=token)
        assert "nothing was sent" in done.stderr
        listener.setblocking(False)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(10)
            assert accepted.recv(1) == b""


def test_a_client_without_a_number_of_its_own_does_not_use_the_agent_of_its_user(home):
    with serving(home):
        done = run(home, UNMAPPED, "agentd_client.cli", "status")
        assert done.returncode != 0
        assert "others look like you" in done.stderr
        assert run(home, MAPPED, "agentd_client.cli", "status").returncode == 0
