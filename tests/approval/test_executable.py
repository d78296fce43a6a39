"""The file that a process executes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from agentd.approval.executable import executable_of
from tests.approval import hanging_file_system
from tests.children import child


def test_it_is_the_file_and_not_its_path(tmp_path):
    shutil.copy("/bin/cat", tmp_path / "cat")
    os.link(tmp_path / "cat", tmp_path / "same")
    shutil.copy("/bin/cat", tmp_path / "copy")
    found = []
    for name in ("cat", "same", "copy"):
        with subprocess.Popen([tmp_path / name], stdin=subprocess.PIPE) as process:
            found.append(executable_of(process.pid))
    cat, same, copy = found
    assert cat == same != copy
    expected = os.stat(tmp_path / "cat")
    assert (cat.inode, os.makedev(*cat.device)) == (expected.st_ino, expected.st_dev)


def test_a_process_that_has_ended_executes_none():
    with child() as process:
        pass
    assert executable_of(process.pid) is None


def test_a_file_system_that_does_not_answer_holds_up_nobody(tmp_path):
    """Else one request from a sandbox could stop the agent for as long as its program likes."""
    command = [sys.executable, hanging_file_system.__file__, str(tmp_path)]
    with subprocess.Popen(
        ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        pid = server.stdout.readline().strip()
        if not pid:
            pytest.skip(f"no file system in user space here: {server.stderr.read()}")
        look = f"from agentd.approval.executable import executable_of; print(executable_of({pid}).inode)"
        with subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE, text=True) as looking:
            try:
                found, _ = looking.communicate(timeout=30)
            finally:
                server.stdin.close()  # the file system ends, and with it every wait for it
    assert found == f"{hanging_file_system.PROGRAM}\n"
