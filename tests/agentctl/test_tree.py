from __future__ import annotations

from agentd_client.cli.commands.list import Branches, as_tree, short_ids
from agentd_client.protocol.results import SessionInfo

SIGNS = Branches("+", "`", "|", "_", "?")


def drawn(*pairs: tuple[str, str | None]) -> list[str]:
    sessions = [SessionInfo(id, "", 0, None, None, parent=parent) for id, parent in pairs]
    return [sign + session.id for sign, session in as_tree(sessions, SIGNS)]


def test_children_stand_below_their_parents_and_brothers_keep_their_order():
    assert drawn(("e", "c"), ("d", "a"), ("c", "a"), ("f", None), ("b", "d"), ("a", None)) == [
        *("f", "a", "+d", "|`b", "`c", "_`e")
    ]


def test_a_child_whose_parent_is_not_there_is_marked_and_its_own_children_are_below_it():
    assert drawn(("c", "b"), ("b", "a")) == ["?b", "`c"]


def test_sessions_that_name_each_other_as_parents_are_shown_all_the_same():
    assert sorted(drawn(("a", "b"), ("b", "a"), ("c", "c"), ("d", None))) == ["?a", "?b", "?c", "d"]


def test_a_thousand_generations_are_no_fault():
    chain = [(str(number), str(number - 1) if number else None) for number in range(1000)]
    assert drawn(*chain)[-1] == "_" * 998 + "`999"


def test_short_ids_tell_each_from_all_others():
    ids = ["abcde", "abcdf", "abx", "q", "abcde"]
    assert short_ids(ids, 2) == {"abcde": "abcde", "abcdf": "abcdf", "abx": "abx", "q": "q"}
    assert short_ids(["abcdef"], 2) == {"abcdef": "ab"}
    assert short_ids([], 2) == {}
