"""How a call reaches the agent and its answer comes back: connections, their pool, and when to try again."""
