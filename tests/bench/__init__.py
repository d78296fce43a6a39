"""`make bench`: what agentd costs, beside what the same thing costs without it, in one run.

It measures and never fails. docs/performance.md says how to read it.
"""
