from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from agentd import doctor
from agentd.doctor.findings import (
    Severity,
    as_json,
    as_lines,
    error,
    exit_status,
    note,
    ok,
    refused,
    warning,
    worst,
)
from tests.doctor.judging import documented

ALL = [
    ok("a.fine", "fine"),
    note("b.note", "so it is"),
    warning("c.weak", "weak", "fix it"),
    error("d", "gone", "restore"),
]


def test_the_exit_status_is_that_of_the_worst():
    assert [exit_status(ALL[:count]) for count in range(5)] == [0, 0, 0, 1, 2]
    assert worst([]) is Severity.OK


def test_lines_show_the_worst_first_each_with_its_remedy_then_the_counts():
    assert [line for _, line in as_lines(ALL, None)] == [
        "error    d       gone",
        "                 → restore",
        "warning  c.weak  weak",
        "                 → fix it",
        "note     b.note  so it is",
        "ok       a.fine  fine",
        "1 error, 1 warning, 1 note, 1 in order",
    ]


def test_on_a_terminal_long_sentences_are_wrapped_and_indented():
    lines = [line for _, line in as_lines([note("n", "word " * 30)], 60)]
    assert all(len(line) <= 60 for line in lines)
    assert [line[:12].strip() for line in lines[1:-1]] == [""] * (len(lines) - 2)
    assert len(lines) > 3


def test_only_the_first_line_of_a_finding_has_a_severity():
    assert [severity for severity, _ in as_lines(ALL[2:3], None)] == [Severity.WARNING, None, None]


def test_json_is_one_object_with_every_finding():
    found = json.loads(as_json(ALL))
    assert found["severity"] == "error"
    assert found["findings"][0] == {"name": "a.fine", "severity": "ok", "says": "fine", "remedy": None}
    assert [finding["severity"] for finding in found["findings"]] == ["ok", "note", "warning", "error"]


def test_a_refusal_is_split_into_reason_and_remedy():
    assert refused("n", "it is gone; restore it") == error("n", "it is gone", "restore it")
    assert refused("n", "it is gone; lost; restore it") == error("n", "it is gone; lost", "restore it")
    assert refused("n", "it is gone") == error("n", "it is gone", "fix that")


def test_the_manual_lists_every_finding():
    named = set()
    for module in Path(doctor.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(args=[ast.Constant(value=str(name)), *_]) if re.fullmatch(r"\w+\.\w+", name):
                    named.add(name)
    assert documented() == named
