"""The scripts of timed/ answer every question that the rows ask. Whether fast or slow is not looked at."""

from __future__ import annotations

import sys

import pytest

from tests.bench.figures import AbsentError
from tests.bench.worker import worker
from tests.e2e.daemon import scratch_home, serving

CALLS = 16


def test_what_client_calls_measures():
    with (
        scratch_home() as home,
        serving(home),
        worker(sys.executable, "client_calls.py", str(home.socket), environ=home.environ) as client,
    ):
        for operation in ("bytes", "verify", "verify under trio", "verify under asyncio", "create"):
            assert client.microseconds(operation, CALLS).value > 0
        assert client.rate("create in threads", CALLS).value > 0


def test_the_parts_of_a_create_in_process_are_less_than_the_whole(tmp_path):
    with worker(sys.executable, "manager_calls.py", str(tmp_path)) as manager:
        found = manager.ask("create", CALLS)
        assert 0 < found["commit"] < found["value"]
        assert 0 < found["operation"] < found["value"]


def test_what_token_file_calls_measures(tmp_path):
    with worker(sys.executable, "token_file_calls.py", str(tmp_path)) as files:
        for operation in ("write", "write raw", "read", "read raw"):
            assert files.microseconds(operation, CALLS).value > 0


def test_what_is_not_installed_is_absent_and_the_rest_is_measured(tmp_path):
    with worker(sys.executable, "in_process_calls.py", str(tmp_path), environ={"PATH": ""}) as others:
        assert others.microseconds("sqlite insert", CALLS).value > 0
    with worker(sys.executable, "not_there.py") as broken, pytest.raises(RuntimeError):
        broken.ask("anything", CALLS)
    (tmp_path / "redis.py").write_text("raise ImportError")
    with (
        worker(
            sys.executable, "redis_calls.py", "socket", "key", "value", environ={"PYTHONPATH": str(tmp_path)}
        ) as redis_py,
        pytest.raises(AbsentError, match="redis-py"),
    ):
        redis_py.ask("get", CALLS)
