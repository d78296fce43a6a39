"""The async twin of `waiting`, by way of anyio: what blocks and is no socket is done in worker threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
from anyio.to_thread import run_sync

from .errors import AgentdError

if TYPE_CHECKING:
    from .connection import Steps, Wait
    from .protocol.calls import Call
    from .protocol.results import Verification
    from .renewal import CheckSteps

T = TypeVar("T")


async def run(steps: Steps[T]) -> T:
    """Carry out the steps to their end and return their result; raises what they raise."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(await _wait(wait))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()  # a cancellation hit the waiting, not the steps: they close the connection now


class CarriesOut(Protocol):
    """Makes a call to the agent: `seconds` is the most it may take, None what the client is set to."""

    async def __call__(self, call: Call[Any], seconds: float | None) -> Any:
        """The answer; raises the refusal."""


async def follow(steps: CheckSteps, carry_out: CarriesOut) -> Verification:
    """Carry out the steps of a check to their end and return its result; raises what they raise."""
    try:
        step = next(steps)
        while True:
            try:
                done = await (run_sync(step) if callable(step) else carry_out(step.call, step.seconds))
            except AgentdError as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as end:
        result: Verification = end.value
        return result
    finally:
        steps.close()  # a cancellation hit the work, not the steps: they let go of the token file now


async def _wait(wait: Wait) -> bool:
    if wait.waited_for is None:
        await anyio.sleep(wait.seconds or 0)
        return True
    with anyio.move_on_after(wait.seconds):
        if wait.writable:
            await anyio.wait_writable(wait.waited_for)
        else:
            await anyio.wait_readable(wait.waited_for)
        return True
    return False
