"""Every limit of the protocol, in one place, each with its reason.

A limit is checked before the memory or the time that it bounds is spent.
"""

PROTOCOL_VERSION = 1
"""The version that `hello` negotiates; a change that breaks a client raises it."""

MAX_MESSAGE_BYTES = 64 * 1024
"""One message. The largest honest one, a token of 8 KiB beside a label, needs a seventh of it."""

READ_BYTES = 16 * 1024
"""One read from a socket. All of it is decoded before anybody else has a turn: filled with the smallest
messages, of four bytes, it takes a few milliseconds, and it still holds thirty honest requests. The decoder's
buffer is a message plus one read, so that legal pipelining of full reads never overflows it."""

MAX_CONTAINER_ITEMS = 64
"""Items of one array or map. No method has more parameters; a 5 KB message of array headers can take
tens of megabytes where this is not bounded."""

MAX_CONTAINERS = 128
"""Arrays and maps of one message, together. An empty one is a byte on the wire and up to 85 in memory, so
that a message made of them would take megabytes; it ends the connection before it is whole. The largest
honest message has fewer than ten."""

MAX_NESTING = 8
"""Containers within containers, the message itself included. The deepest result needs five."""

MAX_METHOD_CHARACTERS = 64
"""A method's name; it is repeated in the refusal of an unknown one."""

MAX_MSGID = 2**32 - 1
"""MessagePack-RPC: msgid is a 32-bit unsigned integer."""

MAX_TOKEN_CHARACTERS = 8 * 1024
"""A token; agentd's own have about 400."""

MAX_PASSPHRASE_BYTES = 1024
"""A passphrase; the longest that people type have a tenth of it."""

MAX_LABEL_CHARACTERS = 200
"""A label; it is shown in one line of a terminal."""

MAX_EXPIRY_SECONDS = 100 * 366 * 24 * 3600
"""A hundred years: anything longer is a slip of units, and `never` says never."""

MAX_SCOPES = 16
MAX_SCOPE_CHARACTERS = 64
MAX_AUDIENCES = 8
MAX_AUDIENCE_CHARACTERS = 128
"""Small enough that a page of sessions with all of them fits into one message."""

MAX_USES = 2**31 - 1
"""Whoever needs more needs no limit."""

MAX_GRACE_SECONDS = 7 * 24 * 3600
"""After a reset with grace the earlier key still counts for so long; a week is a long holiday."""

MAX_DEPTH = 8
"""Sessions above a session: each is looked up when a token of it is judged."""

MAX_PAGE_SESSIONS = 16
"""Sessions of one answer: with the longest labels, names and scopes they fit into one message."""

MAX_PAGE_AUDIT = 32
"""Audit entries of one answer, for the same reason."""

MAX_LOOKED_AT = 256
"""Sessions or audit entries that are looked at for one answer, whether they fit or not: some milliseconds of
the agent's work. The page is short then, and tells where to go on."""

MAX_SHOWN_CHARACTERS = 256
"""A peer's executable and its systemd unit, as they are shown; what is longer is cut."""

MAX_EVENTS_WAITING = 256
"""Events that wait for one subscriber; those beyond are counted and not kept."""

MAX_IN_FLIGHT = 64
"""Requests of one connection that are being worked on. The agent reads no further until one ends."""

MAX_CONNECTIONS = 256
"""Open connections. Far below any limit of file descriptors, so that `accept` never fails for want of one."""

MAX_VERIFY_CONNECTIONS = 64
MAX_VERIFY_CONNECTIONS_OF_UID = 32
"""Of the verify socket, whose peers are other users: beside the owner's, and never all of them one user's."""

MESSAGE_SECONDS = 10.0
"""From a message's first byte to its last: a header may claim gigabytes that never come."""

REPLY_SECONDS = 10.0
"""For a peer to take a reply: one that never reads would park the agent's memory for ever."""
