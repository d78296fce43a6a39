"""The commands, one module each: `command` is what `agentctl` calls."""
