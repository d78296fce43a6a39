"""How blocking code carries out the steps of `repeating`, waiting with poll(2), and those of `renewal`."""

from __future__ import annotations

import select
import time

from .errors import AgentdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeVar

    from .connection import Steps, Wait
    from .protocol.calls import Call
    from .protocol.results import Verification
    from .renewal import CheckSteps

    T = TypeVar("T")

    class CarriesOut(Protocol):
        """Makes a call to the agent: `seconds` is the most it may take, None what the client is set to."""

        def __call__(self, call: Call[Any], seconds: float | None) -> Any:
            """The answer; raises the refusal."""


def run(steps: Steps[T]) -> T:
    """Carry out the steps to their end and return their result; raises what they raise."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(_wait(wait))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()  # an interruption hit the waiting, not the steps: they close the connection now


def follow(steps: CheckSteps, carry_out: CarriesOut) -> Verification:
    """Carry out the steps of a check to their end and return its result; raises what they raise."""
    try:
        step = next(steps)
        while True:
            try:
                done = step() if callable(step) else carry_out(step.call, step.seconds)
            except AgentdError as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as end:
        result: Verification = end.value
        return result
    finally:
        steps.close()  # an interruption hit the work, not the steps: they let go of the token file now


def _wait(wait: Wait) -> bool:
    if wait.waited_for is None:
        time.sleep(wait.seconds or 0)
        return True
    poller = select.poll()
    poller.register(wait.waited_for, select.POLLOUT if wait.writable else select.POLLIN)
    return bool(poller.poll(None if wait.seconds is None else wait.seconds * 1000))
