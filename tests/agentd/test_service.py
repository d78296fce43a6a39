"""`agentd service install`: what it writes. tests/systemd and tests/packaging have a user manager carry it out."""

from __future__ import annotations

import pytest

from agentd.service import filled, isolated

LONG = "#!/bin/sh\n'''exec' {} \"$0\" \"$@\"\n' '''\nimport sys\n"


@pytest.mark.parametrize("before", ["", " -E", " -I"])
def test_a_command_that_an_installer_wrote_runs_python_isolated(before):
    usual = "#!/home/me/venv/bin/python3.11{}\nimport sys\n"
    assert isolated(usual.format(before), "-I") == usual.format(" -I")
    for path in ('"/home/of me/bin/python3"', "'/home/of me/bin/python3'", "/home/long/bin/python"):
        assert isolated(LONG.format(path + before), "-I") == LONG.format(f"{path} -I")


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\nexec python3 -m agentd\n",
        "import sys\n#!/usr/bin/python3\n",
        "#!/usr/bin/env python3\n",
        "",
    ],
)
def test_any_other_script_stays_as_it_is(script):
    assert isolated(script, "-I") == script


def test_what_stands_in_a_unit_means_itself_there():
    assert filled('A="@PATH@" @OTHER@', {"PATH": 'a%b\\c"d'}) == 'A="a%%b\\\\c\\"d" @OTHER@'
