from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

import pytest

from agentd import process

GET_DUMPABLE = 3  # prctl(2)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_hardened_process_dumps_no_core_and_is_closed_to_others_of_its_user():
    asked = python(
        "from agentd import process; process.harden(); import ctypes, resource;"
        f"print(ctypes.CDLL(None).prctl({GET_DUMPABLE}), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert asked.stdout == "0 (0, 0)\n"


def test_what_the_kernel_refuses_is_an_error(monkeypatch):
    class Refusing:
        def prctl(self, *arguments: int) -> int:
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(process.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(process.ctypes, "CDLL", lambda *_, **__: Refusing())
    with pytest.raises(PermissionError, match="Operation not permitted"):
        process.harden()


def test_an_abort_says_where_the_process_was_and_no_values():
    aborted = python(
        "from agentd import process; process.explain_aborts(); import os\n"
        "def hang(secret): os.abort()\n"
        "hang('v4.local.secret')"
    )
    assert aborted.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in aborted.stderr
    assert "in hang" in aborted.stderr
    assert "secret" not in aborted.stderr


def test_with_standard_error_closed_there_is_nowhere_to_say_it(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    process.explain_aborts()
    assert os.getpid()
