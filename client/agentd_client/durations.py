"""Durations as people write and read them: `90`, `30m`, `1h30m`, `never`; "7 h 59 min"."""

from __future__ import annotations

from .protocol.methods import NEVER

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_FORM = r"(?:(\d{1,6})d)?(?:(\d{1,7})h)?(?:(\d{1,9})m)?(?:(\d{1,10})s)?"
_NAMES = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def parse_duration(text: object) -> int | str:
    """Whole seconds, or `NEVER`; a bare number is seconds. The ValueError lists the accepted forms."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    if isinstance(text, str):
        import re  # only needed to parse one

        if text == NEVER:
            return NEVER
        if re.fullmatch(r"[0-9]{1,10}", text):
            return int(text)
        found = re.fullmatch(_FORM, text)
        if found and text:
            return sum(
                int(count or 0) * unit for count, unit in zip(found.groups(), _SECONDS.values(), strict=True)
            )
    raise ValueError(f"must be a duration: 90 (seconds), 30m, 8h, 1h30m, 2d or {NEVER}")


def format_duration(seconds: float, units: int = 2) -> str:
    """The duration in its largest units: "7 h 59 min", or with one unit "7 h"; "12 s"."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, unit in _NAMES:
        count, left = divmod(left, unit)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
        elif parts:
            break
    return " ".join(parts[:units])
