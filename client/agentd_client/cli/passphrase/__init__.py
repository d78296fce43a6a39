"""Where `agentctl` takes a passphrase from: never an argument or an environment variable.

Others can read arguments and environments, which also stay in histories and are inherited. A passphrase is
read into a bytearray, which is wiped after sending; copies of what was sent stay in this process until it
ends.
"""

from __future__ import annotations
