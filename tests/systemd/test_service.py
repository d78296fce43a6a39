"""The agent's life under a real service manager."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.systemd.user_manager import UserManager, until

RESTARTS = 50
KILLS = 5
ANSWER_SECONDS = 2.0


def ask(service: UserManager, times: int, threads: int, timeout: float) -> list[tuple[str, str, float]]:
    script = service.scratch / "tests" / "ask.py"
    return [
        tuple(asked)
        for asked in json.loads(service.done(service.python, "-I", script, times, threads, timeout))
    ]


def main_pid_after(service: UserManager, before: int) -> int:
    until(lambda: service.main_pid not in (0, before))
    return service.main_pid


def test_the_first_connection_starts_it(service):
    assert service.show("ActiveState") == "inactive"
    began = time.monotonic()
    service.done("agentctl", "login")
    print(f"agentctl login from cold: {time.monotonic() - began:.2f} s")
    assert service.show("ActiveState") == "active"
    status = service.systemctl("status", "--no-pager", "agentd.service")
    assert "Active: active (running)" in status, "READY=1 arrived: the service is of Type=notify"
    assert 'Status: "serving; open sessions: ' in status
    assert "TriggeredBy: ● agentd.socket" in status


def test_the_status_line_follows_the_sessions(service):
    service.drop_in("[Service]\nWatchdogSec=300ms\n")
    service.done("agentctl", "login")
    until(lambda: service.show("StatusText") == "serving; open sessions: 1")
    service.done("agentctl", "logout")
    until(lambda: service.show("StatusText") == "serving; open sessions: 0")


def test_a_command_run_by_agentctl_ends_with_its_session_though_the_agent_sits_in_a_sandbox(service):
    """In its own user namespace the agent sees other processes, their names and their units, and their ends."""
    service.done("agentctl", "login", "--label", "above")

    def sessions():
        listed = json.loads(service.done("agentctl", "--json", "list", "--state", "active"))["sessions"]
        return {session["label"]: session for session in listed}

    command = service.start("agentctl", "exec", "--label", "below", "--", "sh", "-c", "echo $$; exec cat")
    pid = int(command.stdout.readline())
    below = sessions()["below"]
    assert below["boundPid"] == pid
    assert below["openedBy"]["exe"].startswith("[")
    service.systemctl("restart", "agentd.service")
    assert "below" in sessions(), "bound again by the next process"
    began = time.monotonic()
    service.kill("KILL", pid)
    until(lambda: "below" not in sessions())
    print(f"killed, its session was gone {time.monotonic() - began:.2f} s later")
    command.communicate(timeout=10)
    service.done("agentctl", "logout")


def test_it_is_restarted_50_times_in_a_stream_of_calls_and_no_call_fails(service):
    stream = service.start(service.python, "-I", service.scratch / "tests" / "stream.py")
    assert stream.stdout.readline() == "running\n"
    began = time.monotonic()
    for _ in range(RESTARTS):
        service.systemctl("restart", "agentd.service")
    seconds = time.monotonic() - began
    said, _ = stream.communicate(timeout=60)
    result = json.loads(said)
    print(f"{RESTARTS} restarts in {seconds:.1f} s: {said.strip()}")
    assert (result["failures"], result["unknown"], result["lost"]) == ([], 0, 0)
    assert all(result["succeeded"][call] > RESTARTS for call in ("verify", "status", "create"))
    assert result["sessions"] == result["succeeded"]["create"] + 1, "no call was carried out twice"


def test_after_kill_9_it_answers_within_two_seconds_and_the_sessions_are_there(service):
    service.done("agentctl", "login")
    seconds = []
    for _ in range(KILLS):
        before = service.main_pid
        service.kill("KILL", before)
        began = time.monotonic()
        service.done("agentctl", "--timeout", "10", "verify")
        seconds.append(time.monotonic() - began)
        assert main_pid_after(service, before)
    print(f"{KILLS} kills: an answer after {min(seconds):.2f} to {max(seconds):.2f} s")
    assert max(seconds) < ANSWER_SECONDS


def test_an_agent_that_hangs_is_restarted_by_the_watchdog_and_the_journal_says_where_it_hung(service):
    service.drop_in("[Service]\nWatchdogSec=1s\n")
    service.done("agentctl", "login")
    before, after = service.main_pid, service.cursor()
    service.kill("STOP", before)
    main_pid_after(service, before)
    service.done("agentctl", "--timeout", "10", "verify")
    assert service.show("NRestarts") == "1"
    journal = [entry["MESSAGE"] for entry in service.journal(after)]
    assert any("Fatal Python error: Aborted" in line for line in journal), journal


def test_a_busy_agent_is_not_taken_for_one_that_hangs(service):
    service.drop_in("[Service]\nWatchdogSec=500ms\n")
    outcomes = ask(service, 2000, 8, 30)
    assert {outcome for outcome, _, _ in outcomes} == {"answered"}
    assert service.show("NRestarts") == "0"


def break_settings(service: UserManager):
    config = service.home / ".config/agentd/config.toml"
    service.write(config, "nonsense = 1\n")
    return "nonsense", lambda: service.outside(config).unlink()


def break_store(service: UserManager):
    data = service.outside(service.state / "store" / "data.mdb")
    whole = data.read_bytes()
    os.truncate(data, 8192)
    return "cut short", lambda: data.write_bytes(whole)


def break_keys(service: UserManager):
    key = service.outside(service.state / "keys" / "root.key")
    key.rename(key.with_name("elsewhere"))
    return "root.key is gone", lambda: key.with_name("elsewhere").rename(key)


@pytest.mark.parametrize("break_it", [break_settings, break_store, break_keys])
def test_a_failed_start_is_reported_to_waiting_clients_and_leaves_the_socket(service, break_it):
    service.done("agentctl", "login")
    service.systemctl("stop", "agentd.service")
    reason, repair = break_it(service)

    outcomes = ask(service, 100, 8, 30)
    assert {outcome for outcome, _, _ in outcomes} == {"StartError"}
    assert all(reason in said for _, said, _ in outcomes)
    print(f"{reason}: answered after {max(seconds for _, _, seconds in outcomes):.2f} s at the most")
    refused = service.run("agentctl", "login")
    assert refused.returncode == 69
    assert "the agent could not start: " in refused.stderr
    assert service.systemctl("is-active", "agentd.socket") == "active\n"
    until(lambda: service.show("ActiveState") == "failed")
    assert service.show("NRestarts") == "0", "without a connection nothing starts it"

    repair()
    service.done("agentctl", "verify")


def test_an_agent_that_cannot_even_be_executed_leaves_the_socket_and_comes_back(service):
    service.done("agentctl", "login")
    service.systemctl("stop", "agentd.service")
    service.drop_in("[Service]\nExecStart=\nExecStart=/nonexistent\n")
    outcomes = ask(service, 30, 30, 4)  # long enough for five starts and the default limit's end of it
    assert {outcome for outcome, _, _ in outcomes} == {"AgentTimeoutError"}
    assert all(seconds < 5 for _, _, seconds in outcomes)
    assert service.systemctl("is-active", "agentd.socket") == "active\n"
    service.remove(service.units / "agentd.service.d")
    service.systemctl("daemon-reload")
    service.done("agentctl", "--timeout", "10", "verify")


def test_a_second_agent_on_the_managers_socket_is_refused(service):
    service.done("agentctl", "login")
    second = service.run("agentd", "serve")
    assert second.returncode == 73
    assert "agent.sock" in second.stderr
    service.done("agentctl", "verify")


def test_stopping_the_socket_takes_the_agent_and_the_socket_file_away(service):
    service.done("agentctl", "login")
    service.systemctl("stop", "agentd.socket", "agentd.service")
    assert not service.exists(service.runtime / "agentd" / "agent.sock")
    assert service.run("agentctl", "--timeout", "0.2", "verify").returncode == 69


def test_the_journal_has_levels_and_no_form_of_its_own(service):
    after = service.cursor()
    service.done("agentctl", "login")
    service.systemctl("stop", "agentd.service")
    service.write(service.home / ".config/agentd/config.toml", "nonsense = 1\n")
    assert service.run("agentctl", "login").returncode == 69
    until(lambda: service.show("ActiveState") == "failed")
    levels = {entry["MESSAGE"]: entry["PRIORITY"] for entry in service.journal(after)}
    assert levels["stopped"] == "6"
    assert [levels[message] for message in levels if "nonsense" in message] == ["3"]
    assert {entry["SYSLOG_IDENTIFIER"] for entry in service.journal(after)} == {"agentd"}


def test_the_journal_has_json_where_the_settings_say_so(service):
    service.write(service.home / ".config/agentd/config.toml", "log_format = 'json'\n")
    after = service.cursor()
    service.done("agentctl", "login")
    lines = [json.loads(entry["MESSAGE"]) for entry in service.journal(after)]
    assert {"level", "logger", "message", "time"} == lines[0].keys()
