"""Requests for sessions: who asks, what for, and the person's decision."""

from .asker import Asker
from .desk import RequestDesk
from .policy import FREE_FOR_ALL, Policy

__all__ = ["FREE_FOR_ALL", "Asker", "Policy", "RequestDesk"]
