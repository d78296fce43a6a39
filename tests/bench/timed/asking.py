"""The measuring end of tests/bench/worker.py: a line of JSON in, a line of JSON out.

The scripts beside this one run in whatever interpreter is measured. They import its packages and this module,
and nothing else of the bench.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Figures = dict[str, Any]


def questions() -> Iterator[tuple[str, int]]:
    """What is to be measured, and how many times."""
    for line in sys.stdin:
        operation, count = json.loads(line)
        yield operation, count


def answer(figures: Figures) -> None:
    print(json.dumps(figures), flush=True)


def serve(operations: Mapping[str, Callable[[int], Figures]]) -> None:
    for operation, count in questions():
        answer(operations[operation](count))


def one_by_one(call: Callable[[], object]) -> Callable[[int], Figures]:
    """The median of calls one after the other, after one that does not count."""

    def measure(count: int) -> Figures:
        call()
        seconds = []
        processor = time.process_time()
        for _ in range(count):
            begun = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begun)
        return {
            "value": statistics.median(seconds),
            "processor": (time.process_time() - processor) / count,
        }

    return measure


def in_threads(call: Callable[[], object], threads: int) -> Callable[[int], Figures]:
    """Calls a second, made by so many threads at once."""

    def repeat(count: int) -> None:
        for _ in range(count):
            call()

    def measure(count: int) -> Figures:
        at_work = [threading.Thread(target=repeat, args=(count // threads,)) for _ in range(threads)]
        made = count // threads * threads
        processor, begun = time.process_time(), time.perf_counter()
        for thread in at_work:
            thread.start()
        for thread in at_work:
            thread.join()
        return {
            "value": made / (time.perf_counter() - begun),
            "processor": (time.process_time() - processor) / made,
        }

    return measure
