"""How a failure of the agent's own is told to its log."""

from __future__ import annotations

import traceback


def describe_failure(error: BaseException) -> str:
    """Where it happened and what class it is, with every exception behind it.

    Never the exception's text: libraries quote the value that they could not use, and it may be a token.
    The number of an OSError is told, for without it one cannot tell a full disk from a broken one.
    """
    lines = []
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        name = f"{type(one).__module__}.{type(one).__qualname__}"
        number = f" errno {one.errno}" if isinstance(one, OSError) else ""
        lines.append(name + number)
        lines += [line.rstrip("\n") for line in traceback.format_tb(one.__traceback__)]
        behind = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        waiting += [behind] if behind is not None else []
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    return "\n".join(lines)
