"""Patterns for labels, in which * stands for any text and ? for any character."""

from __future__ import annotations


class LabelPattern:
    """A pattern, matched in time linear in the label's length, whatever the pattern is.

    It simulates the automaton of the pattern with one state for each character that has to match, held as the
    bits of an integer. There is no backtracking, which a peer could drive up, and nothing is kept beyond the
    pattern itself, as the cache of compiled expressions behind `fnmatch` is. Brackets stand for themselves.
    """

    __slots__ = ("_after", "_any", "_end", "_loops", "_plain")

    def __init__(self, pattern: str) -> None:
        # Bit i of a set of states: the first i characters that have to match have been matched.
        self._plain = None if "*" in pattern or "?" in pattern else pattern
        self._after: dict[str, int] = {}  # the states in which a character is the next one
        self._any = 0  # those in which any character is
        self._loops = 0  # those that a * keeps, whatever comes
        place = 1
        for character in pattern:
            if character == "*":
                self._loops |= place
                continue
            if character == "?":
                self._any |= place
            else:
                self._after[character] = self._after.get(character, 0) | place
            place <<= 1
        self._end = place

    def matches(self, label: str) -> bool:
        """Whether the whole label fits."""
        if self._plain is not None:
            return label == self._plain
        after, any_character, loops = self._after.get, self._any, self._loops
        states = 1
        for character in label:
            states = (states & loops) | ((states & (after(character, 0) | any_character)) << 1)
            if not states:
                return False
        return bool(states & self._end)
