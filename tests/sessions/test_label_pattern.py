from __future__ import annotations

import random
from fnmatch import fnmatchcase

import pytest

from agentd.sessions.listing import LabelPattern


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        (
            "",
            [
                "",
            ],
            ["a"],
        ),
        ("plain", ["plain"], ["Plain", "plain ", ""]),
        ("*", ["", "anything", "**", "a\nb"], []),
        ("**", ["", "a"], []),
        ("?", ["a", "?", "\N{SNOWMAN}"], ["", "ab"]),
        ("*?", ["a", "ab"], [""]),
        ("a*", ["a", "ab"], ["", "ba"]),
        ("*a", ["a", "ba"], ["ab"]),
        ("a*b*c", ["abc", "a1b2c", "abcbc"], ["ab", "acb"]),
        ("[a]*", ["[a]", "[a]b"], ["a"]),
        ("[!a]", ["[!a]"], ["b"]),
        ("a\\*", ["a\\b"], ["a*"]),
    ],
)
def test_patterns_match(pattern, fits, fits_not):
    for label in fits:
        assert LabelPattern(pattern).matches(label)
    for label in fits_not:
        assert not LabelPattern(pattern).matches(label)


def test_it_agrees_with_fnmatch_on_thousands_of_patterns():
    chance = random.Random(1)
    agreed = {True: 0, False: 0}
    for _ in range(5000):
        pattern = "".join(chance.choices("ab*?", k=chance.randrange(8)))
        label = "".join(chance.choices("ab", k=chance.randrange(8)))
        fits = fnmatchcase(label, pattern)
        assert LabelPattern(pattern).matches(label) is fits, (pattern, label)
        agreed[fits] += 1
    assert min(agreed.values()) > 500


class CountingText(str):
    """Counts how often one of its characters is examined."""

    looks = 0

    def __iter__(self):
        for character in super().__iter__():
            CountingText.looks += 1
            yield character


@pytest.mark.parametrize(
    "pattern", ["*" + "a" * 100 + "b", "*a" * 100 + "b", "*?" * 99 + "b", "*" * 199 + "b"]
)
def test_each_character_is_examined_once_whatever_the_pattern(pattern):
    CountingText.looks = 0
    assert not LabelPattern(pattern).matches(CountingText("a" * 200))
    assert CountingText.looks <= 200
