"""The text behind `?`."""

from __future__ import annotations

HELP = """Nothing is extended by looking: sessions are listed and inspected, never verified.

Tab: the next list. Up and Down, Page Up and Page Down, Home and End: the cursor.

a: approve the request at its cursor. It is shown whole first, and y counts once its end was on the screen.
n: grant less of it: fewer scopes, a shorter time, fewer uses; or remember the approval for a time.
d: deny it, or forget an approval that is remembered.
r: revoke the session at its cursor, and all below it.
i, Enter: inspect what is at the cursor of the list.
/: show only sessions with this text in label, scopes, id, program or unit. Escape shows all again.
R: renew the session of your token file, as `agentctl renew` does.
L: lock the agent. `agentctl unlock` unlocks it.
q: leave.

LEFT is how many more times a session can be verified.

others' requests: calls of all methods to the agent, per second, without those of this view. The agent does \
not count verifications apart. refused tokens: tokens that were not valid, per second, as events tell. Each \
column is two seconds, and the highest bar is the most of those on the screen.
"""
