"""Where `agentctl` takes a passphrase from: never an argument or an environment variable.

Arguments and environments can be read by others, stay in histories and are inherited. A passphrase is read
into a bytearray, which is wiped once it was sent; copies of what was sent stay in this process until it ends.
"""

from __future__ import annotations
