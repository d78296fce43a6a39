"""The example of docs/testing.md, run by pytest in a folder of its own with the installed plugin."""

from __future__ import annotations

import re
from pathlib import Path

pytest_plugins = ["pytester"]

DOCUMENT = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
SERVER, TESTS, UNITTEST = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_example_runs_as_it_stands(pytester, monkeypatch):
    monkeypatch.delenv("AGENTD_SOCKET", raising=False)
    pytester.makepyfile(notes=SERVER, test_notes=TESTS, test_without_pytest=UNITTEST)
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={pytester.path / 'base'}"
    )
    result.assert_outcomes(passed=TESTS.count("\ndef test_") + 1)
