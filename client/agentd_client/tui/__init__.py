"""The live view in the terminal, `agentctl top` (the extra `tui`). The only package that imports Textual.

`model`, `sessions`, `activity` and `rows` hold and describe what is shown, without Textual. `feed` asks the
agent, `actions` carries out what the person decides; `lines`, `dialogues` and `app` draw and take keys.
"""
