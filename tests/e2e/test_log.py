"""The agent's log, where its reader has stopped, and where a peer does all it can to fill it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
from contextlib import contextmanager

import pytest

from agentd_client import Client
from tests.e2e.daemon import START_SECONDS, serving


@contextmanager
def a_full_pipe():
    """What is written to it, and what makes it writable again."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)

    def stop():
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x")
        except BlockingIOError:
            os.set_blocking(writing, True)  # the agent has the same open file

    yield writing, stop, lambda: os.read(reading, 65536)
    os.close(reading)
    os.close(writing)


@contextmanager
def a_terminal():
    ours, theirs = pty.openpty()

    def start():
        termios.tcflow(theirs, termios.TCOON)
        return os.read(ours, 65536)

    yield theirs, lambda: termios.tcflow(theirs, termios.TCOOFF), start
    os.close(ours)
    os.close(theirs)


@pytest.fixture(params=[a_full_pipe, a_terminal], ids=["full pipe", "stopped terminal"])
def stopped(request, home):
    """An agent whose standard error takes nothing more; and what makes it take something again."""
    with request.param() as (writing, stop, start):
        process = subprocess.Popen(
            [sys.executable, "-m", "agentd", "serve"],
            env=home.environ,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
        )
        try:
            with Client.connect(str(home.socket), timeout=START_SECONDS) as agent:
                agent.hello()
                stop()
                yield process, agent, start
        finally:
            process.kill()
            process.wait()


def test_a_log_that_nobody_takes_holds_up_no_answer_and_no_stop(home, stopped):
    process, agent, _ = stopped
    for _ in range(3):
        agent.reset_key()  # each writes a line
    assert agent.verify_token(agent.create_token().token)
    process.send_signal(signal.SIGTERM)
    assert process.wait(START_SECONDS) == 0
    assert not home.socket.exists()


def test_what_waited_is_written_once_somebody_takes_it(stopped):
    process, agent, start = stopped
    agent.reset_key()
    shown = start()
    while b"session key replaced" not in shown:
        shown += start()
    process.send_signal(signal.SIGTERM)
    assert process.wait(START_SECONDS) == 0


def test_a_peer_that_repeats_what_is_worth_a_line_does_not_fill_the_log(home):
    malformed = [b"\xc1", b"\x05"]
    with serving(home) as daemon:
        for number in range(300):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(home.socket))
                peer.sendall(malformed[number % 2])
                while peer.recv(4096):
                    pass
        assert daemon.stop() == 0
    cut_off = [line for line in daemon.log.read_text().splitlines() if "malformed" in line]
    distinct = {line.partition(" WARNING ")[2].partition(" [")[0] for line in cut_off}
    assert len(distinct) == 2, "each cause has its line"
    assert len(cut_off) < 100, "and the repetitions are counted, every ten seconds at most"
    told = [re.search(r"\[(\d+) more", line) for line in cut_off]
    assert sum(1 if count is None else int(count[1]) for count in told) == 300


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_a_line_and_without_its_socket(home, number):
    with serving(home) as daemon:
        assert daemon.signal(number) == 0
        assert not home.socket.exists()
        assert f"{number.name}: answering the requests in flight, then stopping" in daemon.log.read_text()
        assert daemon.log.read_text().endswith("stopped\n")


def test_under_nohup_it_outlives_its_terminal(home):
    log = home.path / "agentd.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            ["nohup", sys.executable, "-m", "agentd", "serve"],
            env=home.environ,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    with Client.connect(str(home.socket), timeout=START_SECONDS) as agent:
        agent.hello()
        process.send_signal(signal.SIGHUP)
        agent.reset_key()
    process.send_signal(signal.SIGTERM)
    assert process.wait(START_SECONDS) == 0
    assert "SIGHUP" not in log.read_text()
