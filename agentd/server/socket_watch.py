"""Keeps a socket where clients look for it, whatever cleans up its folder while the agent runs."""

from __future__ import annotations

import logging

import trio

from agentd_client.errors import AgentdError

from .socket_file import SocketFile

CHECK_SECONDS = 1.0
"""Between two looks, each of two system calls; so long nobody can connect to a socket that was removed."""


async def keep_in_place(socket_file: SocketFile, logger: logging.Logger) -> None:
    """Make the socket again wherever it is gone. What cannot be mended is logged once, and tried again."""
    told = ""
    while True:
        await trio.sleep(CHECK_SECONDS)
        if socket_file.is_in_place():
            told = ""
            continue
        try:
            socket_file.renew(trio.lowlevel.notify_closing)
        except AgentdError as error:
            if error.sentence != told:
                told = error.sentence
                logger.error("%s was removed, and nobody can connect: %s", socket_file.path, told)
        else:
            told = ""
            logger.warning("%s was removed while it was served; it was made again", socket_file.path)
