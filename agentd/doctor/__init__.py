"""`agentd doctor`: what is wrong here, and what to do. It changes, locks and starts nothing."""

from .checks import CHECKS, examined
from .finding import Finding, Severity, exit_status
from .report import as_json, as_lines
from .scene import Scene, own_limits

__all__ = [
    "CHECKS",
    "Finding",
    "Scene",
    "Severity",
    "as_json",
    "as_lines",
    "examined",
    "exit_status",
    "own_limits",
]
