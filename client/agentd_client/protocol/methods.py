"""The methods by their wire names, and which of them a client may repeat by itself.

A method is repeatable if carrying it out twice changes no more than carrying it out once, and the second
answer is the same. Renewing again with the same token returns the same generation. Repeating a verification
of a session with limited uses counts twice, which is on the safe side.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from ..light_typing import NamedTuple


class Method(NamedTuple):
    """A method's wire name, and whether a client may repeat it after losing the answer."""

    name: str
    repeatable: bool


HELLO = Method("hello", repeatable=True)
GET_STATUS = Method("getStatus", repeatable=True)
CREATE_TOKEN = Method("createToken", repeatable=False)
VERIFY_TOKEN = Method("verifyToken", repeatable=True)
INSPECT_TOKEN = Method("inspectToken", repeatable=True)
REVOKE_TOKEN = Method("revokeToken", repeatable=False)
RENEW_TOKEN = Method("renewToken", repeatable=True)
LIST_SESSIONS = Method("listSessions", repeatable=True)
REVOKE_SESSIONS = Method("revokeSessions", repeatable=False)
RESET_KEY = Method("resetKey", repeatable=False)
LIST_AUDIT = Method("listAudit", repeatable=True)
SUBSCRIBE = Method("subscribe", repeatable=True)
LOCK = Method("lock", repeatable=True)
UNLOCK = Method("unlock", repeatable=True)
CHANGE_PASSPHRASE = Method("changePassphrase", repeatable=False)

EVENT = "event"
"""The notification that subscribers receive."""

NEVER = "never"
"""The expiry of a session that ends only when it is revoked."""
