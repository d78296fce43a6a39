"""Is there an order of a history's operations, true to real time, in which every answer is right?

Wing and Gong's search ("Testing and Verifying Concurrent Objects", 1993), which remembers what it has been
through (Lowe, "Testing for Linearizability", 2017): the operations that are done and the state that they left.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.histories.model import Operation, State, steps


def unexplained(history: Sequence[Operation], start: State) -> str | None:
    """None where there is such an order; otherwise how far any order goes, in words."""
    history = sorted(history, key=lambda operation: operation.invoked)
    resets = [operation for operation in history if operation.kind == "reset"]
    for each in history:
        each.is_beside_reset = any(
            reset.invoked < each.answered and each.invoked < reset.answered for reset in resets
        )
    everything = (1 << len(history)) - 1
    been: set[object] = set()
    farthest: tuple[int, int, State] = (0, 0, start)
    stack = [(0, start)]
    while stack:
        done, state = stack.pop()
        if done == everything:
            return None
        if (place := (done, state.frozen)) in been:
            continue
        been.add(place)
        if done.bit_count() >= farthest[0]:
            farthest = (done.bit_count(), done, state)
        following = []
        for at in _next(history, done):
            after = done | 1 << at
            if history[at].answer is None:
                following.append((after, state))  # it was never carried out
            following += [(after, found) for found in steps(state, history[at])]
        stack += reversed(following)
    _, done, state = farthest
    lines = [f"{'done' if done >> at & 1 else '----'} {each}" for at, each in enumerate(history)]
    return "\n".join(["no order explains it; the farthest:", *lines, str(state)])


def _next(history: Sequence[Operation], done: int) -> list[int]:
    """The operations that may come next: those that began before any that is left was answered."""
    left = [at for at in range(len(history)) if not done >> at & 1]
    first_answer = min(history[at].answered for at in left)
    able = [at for at in left if history[at].invoked < first_answer]
    return sorted(able, key=lambda at: history[at].answered)
