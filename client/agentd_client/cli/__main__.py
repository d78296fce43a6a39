"""`python -m agentd_client.cli` is `agentctl`."""

from __future__ import annotations

from . import main

if __name__ == "__main__":
    main()
