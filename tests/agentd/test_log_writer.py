"""The writing thread, on real pipes and terminals that stop taking data."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import select
import signal
import termios
import threading

import pytest

from agentd import logs
from agentd.logs import LogWriter

SECONDS = 30.0


def describe_loss(lines):
    return f"{lines} missing"


def read_lines(descriptor, last):
    """What comes up to the line `last`."""
    read = b""
    while not read.endswith(last + b"\n"):
        assert select.select([descriptor], [], [], SECONDS)[0], read[-200:]
        read += os.read(descriptor, 65536)
    return read.decode().splitlines()


@pytest.fixture
def pipe():
    """Its reading end, and a stream on the other end that is full."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    os.write(writing, b"x" * 4095 + b"\n")
    os.set_blocking(writing, True)
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
        os.close(reading)


def test_lines_are_written_in_their_order(tmp_path):
    with (tmp_path / "log").open("w") as stream:
        writer = LogWriter(stream, describe_loss)
        for number in range(100):
            writer.put(f"line {number}")
        assert writer.flush(SECONDS)
    assert (tmp_path / "log").read_text().splitlines() == [f"line {number}" for number in range(100)]


def test_a_full_pipe_blocks_no_caller_and_the_loss_is_logged_in_its_place(pipe, monkeypatch):
    monkeypatch.setattr(logs, "MAX_WAITING_CHARACTERS", 30)
    reading, stream = pipe
    writer = LogWriter(stream, describe_loss)
    for number in range(100):
        writer.put(f"line {number}")
    assert not writer.flush(0)
    writer.put("the last one", must=True)
    expected = 0
    for line in read_lines(reading, b"the last one")[1:-1]:
        number, _, missing = line.partition(" ")
        if missing == "missing":
            expected += int(number)
        else:
            assert line == f"line {expected}"
            expected += 1
    assert expected == 100


def test_a_loss_at_the_end_is_logged_too(pipe, monkeypatch):
    monkeypatch.setattr(logs, "MAX_WAITING_CHARACTERS", 10)
    reading, stream = pipe
    writer = LogWriter(stream, describe_loss)
    writer.put("a line that is longer")
    writer.put("b" * 20)
    writer.put("c" * 20)
    lines = read_lines(reading, b"missing")
    assert lines[1] == "a line that is longer"
    assert lines[-1].endswith(" missing")


def test_a_stopped_terminal_blocks_no_caller():
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)  # what Ctrl-S does
    with os.fdopen(theirs, "w") as stream:
        writer = LogWriter(stream, describe_loss)
        writer.put("held")
        assert not writer.flush(0)
        termios.tcflow(stream.fileno(), termios.TCOON)
        assert writer.flush(SECONDS)
    assert os.read(ours, 100) == b"held\r\n"
    os.close(ours)


def test_a_non_blocking_descriptor_loses_no_lines(pipe):
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)
    writer = LogWriter(stream, describe_loss)
    writer.put("y" * 10_000)
    writer.put("end")
    assert read_lines(reading, b"end")[1:] == ["y" * 10_000, "end"]


class Failing(io.StringIO):
    """A stream without a descriptor whose first writes fail."""

    def __init__(self, failures):
        super().__init__()
        self.left = failures

    def write(self, text):
        if self.left:
            self.left -= 1
            raise OSError(errno.ENOSPC, "full")
        return super().write(text)


def test_unwritable_lines_are_counted_until_writing_works_again():
    stream = Failing(4)
    writer = LogWriter(stream, describe_loss)
    for line in ("a", "b", "c"):  # "b" has the count of "a" before it, which fails as well
        writer.put(line)
        assert writer.flush(SECONDS)
    writer.put("d")
    assert writer.flush(SECONDS)
    lines = stream.getvalue().splitlines()
    assert "d" in lines
    missing = sum(int(line.split()[0]) for line in lines if line.endswith(" missing"))
    assert missing + len([line for line in lines if line in "abcd"]) == 4


def test_a_pipe_without_a_reader_is_no_failure():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        writer = LogWriter(stream, describe_loss)
        writer.put("unheard")
        assert writer.flush(SECONDS)


def test_the_thread_starts_with_the_first_line_and_keeps_no_process_alive(tmp_path):
    with (tmp_path / "log").open("w") as stream:
        writer = LogWriter(stream, describe_loss)
        assert writer._thread is None
        writer.put("a line")
        assert writer.flush(SECONDS)
        assert writer._thread in threading.enumerate()
        assert writer._thread.daemon


def test_between_lines_is_called_again_after_the_time_it_returned(tmp_path):
    called = threading.Semaphore(0)

    def between_lines():
        called.release()
        return 0.001

    with (tmp_path / "log").open("w") as stream:
        LogWriter(stream, describe_loss, between_lines).put("a line")
        for _ in range(5):
            assert called.acquire(timeout=SECONDS)
        stream.flush()


def test_the_writing_thread_takes_no_signal_and_so_writes_to_a_terminal_that_stops_background_jobs(tmp_path):
    blocked = []

    def between_lines():
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    with (tmp_path / "log").open("w") as stream:
        writer = LogWriter(stream, describe_loss, between_lines)
        writer.put("a line")
        assert writer.flush(SECONDS)
    assert {signal.SIGTTOU, signal.SIGTERM, signal.SIGINT} <= blocked[0]


def test_a_line_that_is_logged_while_another_is_queued_waits_for_nothing(tmp_path):
    class Collecting(str):
        """Looking at it collects garbage, and something among that logs a line."""

        __slots__ = ()

        def __len__(self):
            writer.put("logged meanwhile")
            return super().__len__()

    with (tmp_path / "log").open("w") as stream:
        writer = LogWriter(stream, describe_loss)
        putting = threading.Thread(target=writer.put, args=(Collecting("a line"),), daemon=True)
        putting.start()
        putting.join(SECONDS)
        assert not putting.is_alive()
        assert writer.flush(SECONDS)
    assert {"a line", "logged meanwhile"} <= set((tmp_path / "log").read_text().splitlines())
