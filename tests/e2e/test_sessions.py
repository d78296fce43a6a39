from __future__ import annotations

import subprocess
import sys

import pytest

from agentd_client import Client
from tests.e2e import sharing, uses
from tests.e2e.daemon import START_SECONDS, scratch_home, serving

AGENTCTL = [sys.executable, "-m", "agentd_client.cli"]


def test_limited_uses_are_counted_exactly_however_many_ask_at_once(daemon):
    attempts = uses.CONNECTIONS * uses.ATTEMPTS
    assert uses.use_up(daemon, uses.new_token(daemon)) == (uses.USES, attempts - uses.USES)


def test_a_kill_in_the_middle_never_gives_a_use_back(home):
    before, after = uses.use_up_across_a_kill(home, 30)
    assert before > 0
    assert after > 0
    # What was counted and not answered is lost: at most one use for each connection.
    assert uses.USES - uses.CONNECTIONS <= before + after <= uses.USES


def test_a_narrower_session_inside_a_wider_one_cannot_use_the_token_of_that(daemon):
    home = daemon.home
    assert home.agentctl("login").returncode == 0
    # Every file or memory that the innermost command inherited, and what it finds by itself.
    asks = """
        for each in /proc/self/fd/*; do [ ! -f "$each" ] || "$@" --scope deploy - <"$each"; done
        "$@" --scope deploy; "$@" --scope read
    """
    for way in ("--fd", "--file", "--env"):
        ended = home.agentctl(
            "exec", "--fd", "--scope", "deploy", "--scope", "read", "--", *AGENTCTL, "exec", way, "--scope", "read", "--",
            "sh", "-c", asks, "sh", *AGENTCTL, "verify",
        )  # fmt: skip
        answers = ended.stdout.split("\n")
        assert answers[-3:] == ["invalid MISSING_SCOPE", "valid", ""], ended.stderr
        assert "valid" not in answers[:-2]


def test_processes_that_share_a_token_file_renew_once_each_period_and_never_fail(daemon):
    lifetime, processes = 2, 8
    found = sharing.share(daemon, processes, lifetime)
    assert found.failed == []
    assert found.ended_cleanly == processes
    assert len(found.renewals) == found.renew_requests == sharing.RENEWALS
    assert all(seconds >= lifetime * 2 / 3 - sharing.TOLERANCE_SECONDS for seconds in sharing.periods(found))


def test_logging_in_at_a_second_agent_with_the_same_token_file_names_what_it_replaces(daemon):
    first = daemon.home
    assert first.agentctl("login").returncode == 0
    with scratch_home() as second, serving(second):
        same_file = {"AGENTD_SESSION_TOKEN_PATH": str(first.token_file)}
        assert second.agentctl("verify", **same_file).stdout == "invalid OTHER_AGENT\n"
        ended = second.agentctl("login", **same_file)
        assert ended.returncode == 0
        assert f"{first.token_file} held a token of another agent" in ended.stderr
    assert first.agentctl("verify").stdout == "invalid OTHER_AGENT\n"


def test_exec_towards_an_agent_in_another_pid_namespace_says_so(home):
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no PID namespace can be made here")
    agent = subprocess.Popen(
        [*apart, sys.executable, "-m", "agentd", "serve"], env=home.environ, stderr=subprocess.PIPE
    )
    try:
        with Client.connect(str(home.socket), START_SECONDS) as client:
            client.hello()
        assert home.agentctl("login").returncode == 0
        ended = home.agentctl("exec", "--", "true")
        assert ended.returncode == 71
        assert "outside of the agent's PID namespace" in ended.stderr
        assert "has ended, or" not in ended.stderr
    finally:
        agent.kill()
        agent.communicate(timeout=START_SECONDS)
