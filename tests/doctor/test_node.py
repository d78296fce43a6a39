from __future__ import annotations

import os

import pytest

from agentd.doctor.finding import Severity
from agentd.doctor.node import FILE, FOLDER, OTHER, SOCKET, Node, judge_private, look, look_into


def test_what_stands_at_a_path(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    file.chmod(0o640)
    (tmp_path / "link").symlink_to(file)
    assert look(file)[:4] == (str(file), FILE, os.geteuid(), 0o640)
    assert look(tmp_path).kind == FOLDER
    assert look(tmp_path / "link").kind == OTHER
    assert look(tmp_path / "nothing").kind is None
    assert look(file / "below").kind is None
    assert [node.path for node in look_into(tmp_path)] == [str(file), str(tmp_path / "link")]
    assert look_into(tmp_path / "nothing") == []


def test_a_name_that_cannot_be_looked_at_is_said_to_be_so():
    node = look("x" * 5000)
    assert node.unreadable == "File name too long"
    assert judge_private("n", "it", node, FILE, 1).severity is Severity.ERROR


@pytest.mark.parametrize(
    ("node", "kind", "says", "remedy"),
    [
        (Node("p", FOLDER, 1, 0o700), FILE, "is not a regular file", "move it away"),
        (Node("p", FILE, 2, 0o600), FILE, "belongs to uid 2, not to you (uid 1)", "given to you"),
        (Node("p", FILE, 1, 0o604), FILE, "open to others (mode 0604)", "chmod 600 p"),
        (Node("p", SOCKET, 1, 0o666), SOCKET, "open to others", "chmod 600 p"),
        (Node("a b", FOLDER, 1, 0o710), FOLDER, "open to others", "chmod 700 'a b'"),
    ],
)
def test_what_is_not_private_is_an_error_that_says_what_to_do(node, kind, says, remedy):
    found = judge_private("a.name", "the thing", node, kind, 1)
    assert (found.name, found.severity) == ("a.name", Severity.ERROR)
    assert says in found.says
    assert remedy in found.remedy


def test_what_is_private_is_fine():
    assert judge_private("n", "it", Node("p", FOLDER, 1, 0o700), FOLDER, 1).severity is Severity.OK
