from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(manager, installed):
    """What a program of the same user found out, outside of any sandbox: the agent has only itself."""
    manager.write(manager.home / "attacks.py", (HERE / "attacks.py").read_text())
    manager.done("mkdir", "-m", "700", manager.home / "attacked")
    return json.loads(
        manager.done(manager.python, "-I", manager.home / "attacks.py", manager.home / "attacked")
    )


def test_a_program_of_the_same_user_sees_nothing_of_its_memory_environment_and_descriptors(results):
    assert results["agent"] == dict.fromkeys(results["agent"], "refused")


def test_a_process_that_opened_its_memory_before_hardening_reads_no_key(results):
    assert results["early"]["bytes"] > 1_000_000, "what was opened then stays open"
    assert results["early"]["copies"] == (0 if results["early"]["secret"] else 1)


def test_the_same_attacks_succeed_against_an_unprotected_process(results):
    assert results["ordinary"]["mem"] == results["ordinary"]["environ"] == results["ordinary"]["fd"] == "open"
    assert results["ordinary"]["pidfd_getfd"] == "open"


def test_a_crash_leaves_no_core(results):
    assert (results["died_of"], results["dumped_core"]) == (signal.SIGSEGV, False)
    assert results["left"] == ["agentd", "state"]
