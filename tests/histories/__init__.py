"""Recorded histories of concurrent operations, checked against a sequential model.

`python -m tests.histories [--core N] [--agent N] [--killed N] [--seed N]` prints how many there were, and every
one that no order of its operations explains.
"""
