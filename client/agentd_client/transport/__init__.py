"""How a call gets to the agent and its answer back: connections, their pool, and what is tried again."""
