"""The thin client of agentd: is a caller part of a session that the user opened and has not ended.

The package depends on msgpack alone. Each public name is imported on first use, so that programs start fast.
`agentd_client.aio` has the async client.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know it by its name; importing `typing` takes too long
if TYPE_CHECKING:
    from .blocking import Client as Client
    from .errors import *  # noqa: F403 - each error is declared there and nowhere else
    from .lifecycle import LifecycleEvent as LifecycleEvent
    from .protocol.methods import NEVER as NEVER
    from .protocol.results import *  # noqa: F403 - those in its __all__
    from .session import Session as Session

__version__ = "0.1.0"

_MODULES = {
    "Client": "blocking",
    "LifecycleEvent": "lifecycle",
    "NEVER": "protocol.methods",
    "Session": "session",
}
"""The modules of public names; all others are errors and results, which those modules declare."""

if not TYPE_CHECKING:

    def __getattr__(name):
        if name == "__all__":
            errors = _import("errors").ERRORS.values()
            results = _import("protocol.results").__all__
            names = ["ERRORS", "__version__", *_MODULES, *results, *(error.__name__ for error in errors)]
            found = sorted(names)
        elif name in ("blocking", "errors", "lifecycle", "session"):
            return _import(name)
        elif name in _MODULES:
            found = getattr(_import(_MODULES[name]), name)
        elif name == "ERRORS" or (name.endswith("Error") and hasattr(_import("errors"), name)):
            found = getattr(_import("errors"), name)
        elif name[:1].isupper() and name in _import("protocol.results").__all__:
            found = getattr(_import("protocol.results"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, found)

    def _import(name):
        # Not importlib's function, which would have to be imported first. With a name to import from it,
        # __import__ returns the module itself.
        return __import__(f"{__name__}.{name}", fromlist=("__name__",))

    def __dir__():
        return __getattr__("__all__")
