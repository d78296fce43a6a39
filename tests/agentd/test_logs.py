from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from agentd import logs
from agentd.config import LOG_FORMATS

pytestmark = pytest.mark.usefixtures("no_log")


@contextmanager
def standard_error(path, monkeypatch, *, is_journal=False):
    with path.open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}" if is_journal else "1:1")
        monkeypatch.setattr(sys, "stderr", stream)
        yield
        logs.finish()
    monkeypatch.undo()


def raise_and_log(logger):
    try:
        raise RuntimeError("failed\non two lines")
    except RuntimeError:
        logger.exception("it failed")


def test_for_people_a_line_has_time_and_level(tmp_path, monkeypatch):
    with standard_error(tmp_path / "log", monkeypatch):
        logs.configure("info").getChild("store").warning("nearly %s", "full")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING nearly full\n", (tmp_path / "log").read_text(), re.ASCII
    )


def test_for_the_journal_a_line_begins_with_its_severity(tmp_path, monkeypatch):
    with standard_error(tmp_path / "log", monkeypatch, is_journal=True):
        logger = logs.configure("debug")
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(logger, level)(level)
        logger.log(25, "between two levels")
    assert (tmp_path / "log").read_text().splitlines() == [
        "<7>debug", "<6>info", "<4>warning", "<3>error", "<2>critical", "<6>between two levels"
    ]  # fmt: skip


def test_every_line_of_a_traceback_has_the_severity(tmp_path, monkeypatch):
    with standard_error(tmp_path / "log", monkeypatch, is_journal=True):
        raise_and_log(logs.configure("info"))
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


def test_json_is_one_object_a_line_also_for_the_journal(tmp_path, monkeypatch):
    with standard_error(tmp_path / "log", monkeypatch, is_journal=True):
        logger = logs.configure("info", "json")
        logger.getChild("keys").info("made\na key")
        raise_and_log(logger)
    made, failed = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert made.pop("time") > 0
    assert made == {"level": "info", "logger": "agentd.keys", "message": "made\na key"}
    assert "RuntimeError: failed" in failed["traceback"]


def test_records_below_the_level_are_dropped_and_none_reach_the_root_logger(tmp_path, monkeypatch, caplog):
    with standard_error(tmp_path / "log", monkeypatch):
        logger = logs.configure("error")
        logger.warning("left out")
        logger.error("kept")
    assert "left out" not in (tmp_path / "log").read_text()
    assert "kept" in (tmp_path / "log").read_text()
    assert caplog.records == []


def test_configuring_again_replaces_what_was_there(tmp_path, monkeypatch):
    with standard_error(tmp_path / "log", monkeypatch):
        logs.configure("info")
        logs.configure("info", "json").info("once")
    assert len((tmp_path / "log").read_text().splitlines()) == 1


@pytest.mark.parametrize("form", LOG_FORMATS)
def test_with_standard_error_closed_logging_has_no_effect(monkeypatch, form):
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure("info", form).error("unheard")
    logs.log_fatal("unheard")


def test_standard_error_without_a_descriptor_is_for_people(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    logs.configure("info").info("hello")
    logs.finish()
    assert sys.stderr.getvalue().endswith(" INFO hello\n")


@pytest.mark.parametrize(
    ("form", "is_journal", "said"),
    [("auto", False, "agentd: it is over\n"), ("auto", True, "<3>it is over\n"), ("json", False, None)],
)
def test_log_fatal_writes_an_error_in_the_logs_form_or_a_sentence_for_people(
    tmp_path, monkeypatch, form, is_journal, said
):
    with standard_error(tmp_path / "log", monkeypatch, is_journal=is_journal):
        logs.configure("info", form)
        logs.log_fatal("it is over")
    written = (tmp_path / "log").read_text()
    if said is None:
        assert json.loads(written).items() >= {"level": "error", "message": "it is over"}.items()
    else:
        assert written == said


@pytest.mark.parametrize(("is_journal", "said"), [(False, "agentd: it is over\n"), (True, "<3>it is over\n")])
def test_before_the_settings_are_known_log_fatal_uses_the_form_of_the_stream(
    tmp_path, monkeypatch, is_journal, said
):
    with standard_error(tmp_path / "log", monkeypatch, is_journal=is_journal):
        logs.log_fatal("it is over")
    assert (tmp_path / "log").read_text() == said


def test_log_fatal_does_not_interpret_percent_signs(tmp_path, monkeypatch):
    with standard_error(tmp_path / "log", monkeypatch, is_journal=True):
        logs.log_fatal("100% of %s")
    assert (tmp_path / "log").read_text() == "<3>100% of %s\n"


def test_the_loggers_are_those_of_the_package():
    assert logs.LOGGER is logging.getLogger("agentd")


def test_a_flood_of_one_line_is_one_line_and_a_count(tmp_path, monkeypatch):
    with standard_error(tmp_path / "log", monkeypatch, is_journal=True):
        logger = logs.configure("info").getChild("sessions")
        for _ in range(5000):
            logger.warning("a superseded token of session %s was used by process %s", "s1", 7)
        logger.warning("another thing")
    assert (tmp_path / "log").read_text().splitlines() == [
        "<4>a superseded token of session s1 was used by process 7",
        "<4>another thing",
        "<4>a superseded token of session s1 was used by process 7 [4999 more since the last such line]",
    ]


def test_a_record_that_cannot_be_formatted_is_logged_as_one_line(tmp_path, monkeypatch):
    with standard_error(tmp_path / "log", monkeypatch, is_journal=True):
        logs.configure("info").info("%d sessions", "many")
    assert (tmp_path / "log").read_text() == "<6>a log record could not be formatted: %d sessions\n"


def test_what_python_itself_would_print_is_logged_without_its_text():
    program = """if True:
        import logging, sys, threading, warnings
        from agentd import logs

        class Secret:
            def __del__(self):
                raise ValueError("hunter" + str(2))  # not in the source, which tracebacks show

        logs.configure("info")
        logs.take_over()
        warnings.warn("look here")
        logging.getLogger("trio.something").warning("of trio")
        Secret()
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        sys.stderr = None  # nobody writes to it directly
        logs.finish()
    """
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for line in ("look here", "WARNING of trio", "builtins.ValueError", "builtins.ZeroDivisionError"):
        assert line in ended.stderr
    assert "hunter2" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert "Traceback" not in ended.stderr
