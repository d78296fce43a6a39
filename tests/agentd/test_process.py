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


STARTS = {
    "python -m agentd": "import runpy; runpy.run_module('agentd', run_name='__main__', alter_sys=True)",
    "the installed command": "from importlib.metadata import entry_points as found;"
    "found(group='console_scripts', name='agentd')['agentd'].load()()",
}
LOADED_AT_FIRST = """
import sys
def heard(event, arguments):
    if event == "resource.setrlimit" and arguments == (4, (0, 0)) and not seen:  # RLIMIT_CORE
        seen.append(sorted({name.partition(".")[0] for name in sys.modules}))
        print(*seen[0], file=sys.stderr)
seen = []
sys.addaudithook(heard)
sys.argv = ["agentd", "--version"]
"""


@pytest.mark.parametrize("start", STARTS)
def test_the_command_is_hardened_before_anything_heavy_is_imported(start):
    started = python(LOADED_AT_FIRST + STARTS[start])
    loaded = set(started.stderr.split())
    assert {"agentd", "resource", "ctypes"} <= loaded
    assert not loaded & {
        "click",
        "msgspec",
        "trio",
        "lmdb",
        "nacl",
        "asyncio",
        "logging",
        "msgpack",
        "agentd_client.errors",
    }
    assert started.stdout.startswith("agentd 0")


def test_the_core_limit_that_the_process_was_started_with_is_known_afterwards():
    asked = python(
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096));"
        "from agentd import process; before = process.core_limit_of_caller();"
        "process.harden(); process.harden(); print(before, process.core_limit_of_caller())"
    )
    assert asked.stdout == "4096 4096\n"


def test_a_refusal_of_the_kernel_is_an_error(monkeypatch):
    class Refusing:
        def prctl(self, *arguments: int) -> int:
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(process.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(process.ctypes, "CDLL", lambda *_, **__: Refusing())
    with pytest.raises(PermissionError, match="Operation not permitted"):
        process.harden()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((100, 300), "True (200, 300)"),
        ((100, 200), "True (200, 200)"),
        ((100, 150), "False (150, 150)"),
        ((250, 300), "True (250, 300)"),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_needed_and_allowed(before, after):
    asked = python(
        f"import resource; of_files = resource.RLIMIT_NOFILE; resource.setrlimit(of_files, {before});"
        "from agentd import process; print(process.allow_descriptors(200), resource.getrlimit(of_files))"
    )
    assert asked.stdout == f"{after}\n"


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
