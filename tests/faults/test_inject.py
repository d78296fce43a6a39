from __future__ import annotations

import pytest

from tests.faults.inject import CLEAN_ERROR, KILLED, SERVED, SUBJECTS, UNTOUCHED, run
from tests.faults.strace import Case, why_not

# `python -m tests.faults.inject` goes through all of them.
CASES = [
    ("new", Case("fsync", "EIO", 2), CLEAN_ERROR),
    ("new", Case("rename", "ENOSPC", 1), CLEAN_ERROR),
    ("new", Case("rename", "KILL", 1), KILLED),
    ("new", Case("fallocate", "ENOSPC", 1), CLEAN_ERROR),
    ("existing", Case("openat", "EIO", 5), CLEAN_ERROR),
    ("existing", Case("fallocate", "ENOSPC", 1), SERVED),
    *(
        ("existing", Case("pwrite64", fault, when), CLEAN_ERROR)
        for fault in ("EIO", "ENOSPC")
        for when in (1, 2, 3)
    ),
    ("existing", Case("pwrite64", "EINTR", 2), SERVED),
    *(("existing", Case("pwrite64", "KILL", when), KILLED) for when in (1, 2, 3, 4)),
    *(("existing", Case("fdatasync", "EIO", when), CLEAN_ERROR) for when in (1, 3, 5)),
    ("existing", Case("fdatasync", "KILL", 4), KILLED),
    ("agent", Case("pwrite64", "ENOSPC", 4), CLEAN_ERROR),
    ("agent", Case("fdatasync", "EIO", 2), CLEAN_ERROR),
    ("agent", Case("fdatasync", "KILL", 3), KILLED),
]


@pytest.fixture(autouse=True)
def only_its_own_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What measures coverage in subprocesses writes files as well."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("subject", "case", "end"), CASES)
def test_a_failing_system_call_ends_in_a_clean_error_or_a_restart_that_kept_every_promise(
    subject: str, case: Case, end: str
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    assert run(subject, case) == end


@pytest.mark.parametrize("subject", SUBJECTS)
def test_without_a_fault_nothing_is_refused(subject: str) -> None:
    if reason := why_not():
        pytest.skip(reason)
    assert run(subject, Case("fsync", "EINTR", 1000)) == UNTOUCHED
