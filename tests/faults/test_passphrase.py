from __future__ import annotations

import pytest

from tests.faults.passphrase import CHANGES, NEW, OLD, UNTOUCHED, run
from tests.faults.strace import Case, why_not

# `python -m tests.faults.passphrase` goes through all of them.
CASES = [
    ("set", Case("rename", "EIO", 1), OLD),
    ("change", Case("rename", "KILL", 1), OLD),
    ("change", Case("fsync", "ENOSPC", 1), OLD),
    ("change", Case("fsync", "KILL", 2), NEW),
    ("take", Case("fsync", "KILL", 1), OLD),
    ("take", Case("fsync", "EIO", 2), NEW),
]


@pytest.fixture(autouse=True)
def only_its_own_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What measures coverage in subprocesses writes files as well."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    if reason := why_not():
        pytest.skip(reason)


@pytest.mark.parametrize(("change", "case", "end"), CASES)
def test_an_interrupted_change_leaves_a_file_that_one_of_the_two_opens(change, case, end):
    assert run(change, case) == end


@pytest.mark.parametrize("change", CHANGES)
def test_without_a_fault_the_change_is_made(change):
    assert run(change, Case("fsync", "EIO", 1000)) == UNTOUCHED
