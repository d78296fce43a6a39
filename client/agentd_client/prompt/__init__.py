"""Asks the person at the desktop about requests for sessions, for `agentctl prompt` (the extra `notify`).

`asking` follows the agent's requests and passes the decisions on. A place asks the person: `notifications`,
over the session bus of `bus`, or `dialogues`, with pinentry or an askpass program. `text` is what they show.

Only a button for yes that was pressed below the whole text is a yes. Whatever else ends a question leaves the
request to other places, and to its end.
"""
