"""Which characters may be shown, and how one that may not is named."""

from __future__ import annotations

import pytest

from agentd_client.shown_text import name_of, printable, unshown_character

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
TECHNICIAN = "\U0001f469\U0001f3fd\u200d\U0001f4bb"  # with a colour of skin
RAINBOW = "\U0001f3f3\ufe0f\u200d\U0001f308"  # with a variation selector
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # "I want"
SINHALA = "\u0dc1\u0dca\u200d\u0dbb\u0dd3"  # "Sri"


@pytest.mark.parametrize("text", ["", "plain", "größe 夜間", FAMILY, TECHNICIAN, RAINBOW, PERSIAN, SINHALA])
def test_what_people_write_is_shown_as_it_is(text):
    assert unshown_character(text) is None
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a\u200db", 1),  # it looks like "ab"
        ("pay\u200cpal", 3),
        ("é\u200dé", 1),
        ("\u0430\u200d\u0430", 1),
        ("\u200dx", 0),
        (FAMILY + "\u200d", 5),
        (PERSIAN + "\u200c\u200c" + PERSIAN, 8),
        ("1\u200d\U0001f467", 1),
        ("a\nb", 1),
        ("\u202eabc", 0),
        ("\U0001f3f4\U000e0067", 1),
        ("\ud800", 0),
        ("\u2028", 0),
    ],
)
def test_what_hides_or_steers_is_not(text, place):
    assert unshown_character(text) == place
    assert printable(text).isprintable() or "\u200d" in printable(text) or "\u200c" in printable(text)
    assert printable(text) != text


def test_a_character_is_named_by_its_code_point():
    assert name_of("\u202e") == "U+202E RIGHT-TO-LEFT OVERRIDE"
    assert name_of("\n") == "U+000A"
    assert name_of("\U000e0067") == "U+E0067 TAG LATIN SMALL LETTER G"
