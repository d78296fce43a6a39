from __future__ import annotations

import logging
import math
import sys
import weakref

from agentd.log_limit import (
    INTERVAL_SECONDS,
    MAX_INTERVAL_SECONDS,
    MAX_KINDS,
    MAX_SUBJECTS,
    SECONDS_PER_SUBJECT,
    LogLimit,
)

STOLEN = "a superseded token of session %s was used by process %s"


def record(template=STOLEN, *args, exc_info=None):
    return logging.LogRecord("agentd.sessions", logging.WARNING, "", 0, template, args, exc_info)


def messages(records):
    return [record.getMessage() for record in records]


def test_the_same_line_is_written_once_and_then_counted():
    limit = LogLimit()
    admitted = [limit.admits(record(STOLEN, "s1", 7), 100 + number / 1000) for number in range(5000)]
    assert admitted == [True] + [False] * 4999
    assert limit.next_due() == 100 + INTERVAL_SECONDS
    assert limit.due(100 + INTERVAL_SECONDS - 0.01) == []
    (summary,) = limit.due(100 + INTERVAL_SECONDS)
    assert summary.getMessage() == (
        "a superseded token of session s1 was used by process 7 [4999 more since the last such line]"
    )
    assert (summary.name, summary.levelno) == ("agentd.sessions", logging.WARNING)


def test_each_distinct_cause_has_a_line_of_its_own():
    limit = LogLimit()
    causes = ["a map key twice", "a nesting too deep", "no such type"]
    for _ in range(3):
        for cause in causes:
            limit.admits(record("closed: malformed message%s", f" ({cause})"), 0)
    assert messages(limit.due(INTERVAL_SECONDS)) == [
        f"closed: malformed message ({cause}) [2 more since the last such line]" for cause in causes
    ]


def test_subjects_that_a_peer_makes_up_are_written_up_to_a_number_and_counted_together():
    limit = LogLimit()
    admitted = [limit.admits(record(STOLEN, number, 7), 0) for number in range(1000)]
    assert sum(admitted) == MAX_SUBJECTS
    assert messages(limit.due(INTERVAL_SECONDS)) == [
        "a superseded token of session 999 was used by process 7 "
        f"[the last of {1000 - MAX_SUBJECTS} more lines of this kind]"
    ]


def test_another_kind_is_not_held_up_by_a_flood_of_one():
    limit = LogLimit()
    for number in range(1000):
        limit.admits(record(STOLEN, number, 7), 0)
    assert limit.admits(record("the store cannot grow: %s", "no room"), 0)


def test_a_flood_of_new_subjects_gets_one_line_more_every_now_and_then():
    limit = LogLimit()
    written = 0
    seconds = 3600
    for second in range(seconds):
        written += sum(limit.admits(record(STOLEN, f"{second}-{number}", 7), second) for number in range(20))
        written += len(limit.due(second))
    assert MAX_SUBJECTS + seconds / SECONDS_PER_SUBJECT <= written + 1
    assert written <= MAX_SUBJECTS + seconds / SECONDS_PER_SUBJECT + 12


def test_subjects_that_go_on_and_on_do_not_become_more():
    limit = LogLimit()
    for round_ in range(1, MAX_SUBJECTS * 4):
        now = round_ * SECONDS_PER_SUBJECT
        for number in range(round_):  # all of the earlier ones, and a new one
            limit.admits(record(STOLEN, number, 7), now)
        limit.due(now)
    assert len(limit.due(math.inf)) == MAX_SUBJECTS + 1


def test_a_flood_that_goes_on_is_summed_up_ever_more_rarely():
    limit = LogLimit()
    summaries = []
    for second in range(3000):
        limit.admits(record(STOLEN, "s1", 7), second)
        summaries += [second for _ in limit.due(second)]
    pauses = [after - before for before, after in zip([0, *summaries], summaries, strict=False)]
    assert (
        pauses == [10, 20, 40, 80, 160, 320, MAX_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS, 640][: len(pauses)]
    )
    assert len(pauses) >= 7


def test_after_a_quiet_time_the_line_is_written_at_once_again():
    limit = LogLimit()
    assert limit.admits(record(STOLEN, "s1", 7), 0)
    assert limit.due(INTERVAL_SECONDS) == []
    assert limit.admits(record(STOLEN, "s1", 7), INTERVAL_SECONDS)


def test_the_counts_are_bounded_and_dropped_in_the_end():
    limit = LogLimit()
    for number in range(MAX_KINDS * 3):
        for subject in range(MAX_SUBJECTS * 3):
            limit.admits(record(f"made up {number} %s", subject), 0)
    kinds = limit._kinds
    assert len(kinds) == MAX_KINDS + 1
    assert all(len(kind.subjects) <= MAX_SUBJECTS + 1 for kind in kinds.values())
    limit.due(INTERVAL_SECONDS)
    limit.due(MAX_SUBJECTS * SECONDS_PER_SUBJECT + 1)
    assert kinds == {}
    assert limit.next_due() == math.inf


def test_all_counts_are_available_at_exit():
    limit = LogLimit()
    for _ in range(3):
        limit.admits(record(STOLEN, "s1", 7), 0)
    assert len(limit.due(math.inf)) == 1
    assert limit.due(math.inf) == []


def test_counted_records_keep_no_exception_alive():
    class HolderError(Exception):
        pass

    limit = LogLimit()

    def fail():
        try:
            raise HolderError
        except HolderError as error:
            limit.admits(record("it failed: %s", "x", exc_info=sys.exc_info()), 0)
            return weakref.ref(error)

    fail()
    assert fail()() is None
    (summary,) = limit.due(INTERVAL_SECONDS)
    assert summary.exc_info is None
