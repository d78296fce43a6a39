"""Every limit of the protocol, in one place, each with its reason.

A limit is checked before the memory or the time that it bounds is spent.
"""

PROTOCOL_VERSION = 1
"""The version that `hello` negotiates; a change that breaks a client raises it."""

MAX_MESSAGE_BYTES = 64 * 1024
"""One message. The largest honest one, with a token of 8 KiB and a label, needs a seventh of it."""

READ_BYTES = 16 * 1024
"""One read from a socket. It is decoded as a whole before other connections have a turn, which takes a few
milliseconds if it is filled with the smallest messages, of four bytes. It holds thirty honest requests. The
decoder's buffer is a message plus one read, so that legal pipelining never overflows it."""

MAX_CONTAINER_ITEMS = 64
"""Items of one array or map. No method has more parameters. Without a bound, a 5 KB message of array headers
can take tens of megabytes."""

MAX_CONTAINERS = 128
"""Arrays and maps of one message, together. An empty one is a byte on the wire and up to 85 in memory, so a
message full of them would take megabytes; the connection is closed before it is complete. The largest honest
message has fewer than ten."""

MAX_NESTING = 8
"""Nesting of containers, including the message itself. The deepest result needs five."""

MAX_METHOD_CHARACTERS = 64
"""A method's name. The error for an unknown method repeats it."""

MAX_MSGID = 2**32 - 1
"""MessagePack-RPC: msgid is a 32-bit unsigned integer."""

MAX_TOKEN_CHARACTERS = 8 * 1024
"""A token; agentd's own have about 400 characters."""

MAX_PASSPHRASE_BYTES = 1024
"""A passphrase. The longest that people type have a tenth of it."""

MAX_LABEL_CHARACTERS = 200
"""A label, which is shown in one line of a terminal."""

MAX_REASON_CHARACTERS = 200
"""Why a session is asked for, in the asker's words: a line or two."""

MAX_REQUEST_SECONDS = 300
"""How long a request for a session waits for a person. No answer is a no."""

MAX_REMEMBER_SECONDS = 24 * 3600
"""How long an approval can be remembered; it ends earlier when the agent is locked or stops."""

MAX_EXPIRY_SECONDS = 100 * 366 * 24 * 3600
"""A hundred years. Anything longer is a confusion of units; `never` means never."""

MAX_SCOPES = 16
MAX_SCOPE_CHARACTERS = 64
MAX_AUDIENCES = 8
MAX_AUDIENCE_CHARACTERS = 128
"""A page of sessions with all of them fits into one message."""

MAX_USES = 2**31 - 1
"""A session that needs more needs no limit."""

MAX_GRACE_SECONDS = 7 * 24 * 3600
"""How long the previous key may still count after a reset with grace: a long holiday."""

MAX_DEPTH = 8
"""Ancestors of a session. Each is read when one of its tokens is verified."""

MAX_PAGE_SESSIONS = 16
"""Sessions in one answer. With the longest labels, names and scopes they fit into one message."""

MAX_PAGE_AUDIT = 32
"""Audit entries in one answer, for the same reason."""

MAX_PAGE_REQUESTS = 12
"""Requests in one answer, for the same reason."""

MAX_EXAMINED = 256
"""Sessions or audit entries that are examined for one answer, whether they match or not: some milliseconds of
work. The page is short then, and says where to continue."""

MAX_SHOWN_CHARACTERS = 256
"""A peer's executable and its systemd unit, as shown. Longer ones are cut."""

MAX_EVENTS_WAITING = 256
"""Events queued for one subscriber. Further ones are counted and dropped."""

MAX_IN_FLIGHT = 64
"""Requests of one connection that are under way. The agent reads no further until one is answered."""

MAX_CONNECTIONS = 256
"""Open connections of the owner's socket. The agent's limit of open files allows for these and the others."""

MAX_VERIFY_CONNECTIONS = 64
MAX_VERIFY_CONNECTIONS_OF_UID = 32
"""Connections of the verify socket, in addition to the owner's. No user can have all of them."""

MAX_ASK_CONNECTIONS = 64
MAX_ASK_CONNECTIONS_OF_UID = 32
"""The same for the ask socket."""

MESSAGE_SECONDS = 10.0
"""From a message's first byte to its last. A header may announce gigabytes that never come."""

REPLY_SECONDS = 10.0
"""For a peer to read a reply. A peer that never reads would occupy memory for ever."""
