"""What every test of every folder needs."""

from __future__ import annotations

from tests.signals import as_in_a_foreground_job

as_in_a_foreground_job()
