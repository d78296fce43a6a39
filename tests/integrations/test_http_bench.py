"""`python -m tests.bench.http` measures every row. Whether fast or slow is not looked at."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench import http
from tests.bench.subject import Subject


def test_it_measures_every_row(monkeypatch):
    monkeypatch.setattr(http, "REVOKED", 3)
    found = list(http.rows(Subject(Path(sys.executable).parent), 1, calls=32))
    assert all(row.absent or row.ours.median > 0 for row in found)
    assert [row.name.partition(",")[0] for row in found if row.aim] == ["/check", "/check"]
