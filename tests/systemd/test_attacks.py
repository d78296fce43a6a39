from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def told(manager, installed):
    """What a program of the same user found out, outside of any sandbox: the agent has only itself."""
    manager.write(manager.home / "attacks.py", (HERE / "attacks.py").read_text())
    manager.done("mkdir", "-m", "700", manager.home / "attacked")
    return json.loads(
        manager.done(manager.python, "-I", manager.home / "attacks.py", manager.home / "attacked")
    )


def test_a_program_of_the_same_user_sees_nothing_of_its_memory_environment_and_descriptors(told):
    assert told["agent"] == dict.fromkeys(told["agent"], "refused")


def test_a_process_that_opened_its_memory_before_hardening_reads_no_key(told):
    assert told["early"]["bytes"] > 1_000_000, "what was opened then stays open"
    assert told["early"]["copies"] == (0 if told["early"]["secret"] else 1)


def test_the_same_attacks_succeed_against_an_unprotected_process(told):
    assert told["ordinary"]["mem"] == told["ordinary"]["environ"] == told["ordinary"]["fd"] == "open"
    assert told["ordinary"]["pidfd_getfd"] == "open"


def test_a_crash_leaves_no_core(told):
    assert (told["died_of"], told["dumped_core"]) == (signal.SIGSEGV, False)
    assert told["left"] == ["agentd", "state"]
