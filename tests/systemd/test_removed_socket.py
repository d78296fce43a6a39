"""The socket unit's socket, removed under the agent in its sandbox."""

from __future__ import annotations

from tests.systemd.user_manager import until


def test_a_removed_socket_is_made_again_and_without_its_folder_the_remedy_is_logged(service):
    service.done("agentctl", "--timeout", "30", "login")
    pid, folder = service.main_pid, service.runtime / "agentd"
    service.done("rm", folder / "agent.sock")
    until(lambda: service.run("agentctl", "verify").returncode == 0)
    assert service.main_pid == pid

    service.done("rm", "-r", folder)
    ended = service.run("agentctl", "status")
    assert ended.returncode == 69
    assert f"process {pid} is the agent of that socket, which was removed under it" in ended.stderr
    assert "`systemctl --user restart agentd.socket`" in ended.stderr
    service.systemctl("restart", "agentd.socket")
    service.done("agentctl", "--timeout", "30", "login")
    service.done("agentctl", "--timeout", "30", "verify")
