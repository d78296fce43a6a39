"""`python -m agentd`: the same as the command `agentd`."""

from .cli import main

if __name__ == "__main__":
    main()
