"""A runtime folder that is emptied under the agent: it comes back, and every command says which agent it is."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.e2e.daemon import START_SECONDS, scratch_home, serving


@pytest.fixture
def home():
    with scratch_home() as home:
        yield home


@pytest.mark.parametrize("what", ["folder", "socket"])
def test_an_agent_whose_socket_was_removed_can_be_reached_again(home, what):
    with serving(home) as agent:
        with agent.client() as client:
            token = client.create_token().token
        if what == "folder":
            shutil.rmtree(home.socket.parent)
        else:
            home.socket.unlink()
        with agent.client(START_SECONDS) as client:  # waits for it
            assert client.get_status().pid == agent.process.pid
            assert client.verify_token(token)
        assert "was removed while it was served; it was re-created" in agent.log.read_text()
        assert agent.stop() == 0
    assert not home.socket.exists()


def test_until_then_every_command_names_the_agent(home):
    with serving(home) as agent:
        pid = agent.process.pid
        agent.process.send_signal(signal.SIGSTOP)  # so that it cannot be faster
        try:
            shutil.rmtree(home.socket.parent)
            done = home.agentctl("verify", AGENTD_TOKEN="x")
            assert (done.returncode, f"process {pid} is the agent of that socket" in done.stderr) == (
                69,
                True,
            )
            for command in ("serve", "init"):
                done = home.agentd(command)
                assert done.returncode == 73, done.stderr
                assert (
                    f"another agent uses this store: process {pid}, which serves {home.socket}" in done.stderr
                )
                assert f"`kill {pid}`" in done.stderr
            done = home.agentd("doctor")
            assert f"process {pid}" in done.stdout
            assert f"and serves {home.socket}" in done.stdout
        finally:
            agent.process.send_signal(signal.SIGCONT)


def test_an_agent_at_another_socket_is_named_with_it(home):
    other = str(home.runtime / "other" / "agent.sock")
    with serving(home) as agent:
        pid = agent.process.pid
        done = home.agentctl("status", AGENTD_SOCKET=other)
        assert f"your agent is process {pid}, which serves {home.socket}: set AGENTD_SOCKET" in done.stderr
        done = home.agentd("serve", AGENTD_SOCKET=other)
        assert (done.returncode, f"process {pid}, which serves {home.socket}" in done.stderr) == (73, True)
        done = home.agentd("serve")
        assert (done.returncode, f"already serves {home.socket} (process {pid})" in done.stderr) == (73, True)


def test_what_a_killed_agent_wrote_names_nobody(home):
    with serving(home) as agent:
        agent.signal(signal.SIGKILL)
        assert str(agent.process.pid) in (home.state / "store" / "agentd.lock").read_text()
        done = home.agentctl("status")
        assert str(agent.process.pid) not in done.stderr
        assert "start one with `agentd serve`" in done.stderr
        assert os.path.exists(home.socket)
