"""What docs/protocol.md says in conversations and tables, said to the agent."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import msgpack
import pytest

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client.protocol import reasons
from tests.server.talk import connected

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
SECTION = PROTOCOL.partition("\n## Conversations\n")[2].partition("\n## ")[0]
CONVERSATIONS = re.findall(r"(?:^    [<>].*\n)+", SECTION, re.MULTILINE)

END = "end"


class Name(str):
    """A bare word: whatever value is there, and the same one from then on."""


class Words(dict[str, Any]):
    """What the words of a message mean; one that means nothing yet is a name."""

    def __missing__(self, word: str) -> Name:
        return Name(word)


def read(text: str, words: Words) -> Any:
    return eval(text, {"__builtins__": {}}, words)


def check(expected: Any, got: Any, words: Words) -> None:
    """The part that is shown is what came; names are learned."""
    if isinstance(expected, Name):
        words[expected] = got
    elif isinstance(expected, dict):
        assert isinstance(got, dict)
        for key, value in expected.items():
            assert key in got, key
            check(value, got[key], words)
    elif isinstance(expected, list):
        assert len(expected) == len(got), (expected, got)
        for one, other in zip(expected, got, strict=True):
            check(one, other, words)
    elif isinstance(expected, str) and expected.endswith("..."):
        assert got.startswith(expected.removesuffix("...")), (expected, got)
    elif expected is not ...:
        assert (type(expected), expected) == (type(got), got)


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda text: text.split("\n", 1)[0].strip())
async def test_a_conversation_goes_as_the_document_has_it(manager, clock, conversation):
    words = Words(nil=None, true=True, false=False, bytes=lambda text: text.encode())
    async with connected(manager) as (talker, _):
        for line in conversation.splitlines():
            direction, said = line.strip().split(" ", 1)
            if direction == ">" and said == END:
                talker.sock.shutdown(socket.SHUT_WR)
            elif direction == ">":
                clock.advance(1)  # so that there is a newest session
                await talker.send(msgpack.packb(read(said, words)))
            elif said == END:
                assert await talker.everything() == []
            else:
                (reply,) = await talker.replies(1)
                check(read(said, words), [1, *reply], words)


def test_there_is_a_conversation_for_each_of_the_points():
    assert len(CONVERSATIONS) == 9
    assert all("    < " in each for each in CONVERSATIONS)
    assert len(re.findall(r"^    [<>] ", SECTION, re.MULTILINE)) == sum(
        each.count("\n") for each in CONVERSATIONS
    )


async def test_a_reason_comes_with_a_session_where_the_table_says_so(tmp_path, manager, clock):
    def told(token: object, **asked: Any) -> tuple[str | None, bool]:
        found = manager.verify_nowait(token, **asked)
        return found.reason, found.session is not None

    limited = await manager.open_session(600, audience=["web"], scopes=["read"], max_uses=1)
    assert (await manager.verify_and_consume(limited.token, audience="web")).valid
    first = await manager.open_session(600)
    second = await manager.renew_token(first.token)
    assert manager.verify_nowait(second.token).valid
    clock.advance(20)
    ended = await manager.create_token()
    await manager.revoke_token(ended)
    short = await manager.create_token(0)
    clock.advance(2)
    found = [
        told("no token"),
        told(limited.token),
        told(limited.token, audience="web", scopes=["write"]),
        told(limited.token, audience="web"),
        told(first.token),
        told(ended),
        told(short),
    ]
    async with (
        await KeyRing.create_key_ring(keys_path=tmp_path / "other keys") as other_ring,
        await DB.create_db(db_path=tmp_path / "other store", key_ring=other_ring) as other_db,
        await SessionManager.create_session_manager(db=other_db, key_ring=other_ring) as other,
    ):
        found.append(told(await other.create_token()))
    await manager.reset_key()
    found.append(told(second.token))
    rows = re.findall(r"^\| `([A-Z_]+)` \| .* \| (nil|known).* \|$", PROTOCOL, re.MULTILINE)
    assert {reason: known == "known" for reason, known in rows} == dict(found)
    assert {reason for reason, _ in rows} == {*reasons.SENTENCES}


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda folder: None, 0),
        (lambda folder: folder.chmod(0o755), 0),
        (lambda folder: folder.chmod(0o777), 77),
        (lambda folder: folder.chmod(0o720), 77),
        (lambda folder: os.chown(folder, 65534, 65534), 77),
        (lambda folder: (folder.rename(folder.with_name("real")), folder.symlink_to("real")), 77),
    ],
)
def test_the_shells_look_at_the_folder_tells_a_folder_of_the_users_own(tmp_path, break_it, code):
    (script,) = re.findall(r"```sh\n(.*?)```", PROTOCOL.partition("## Messages")[0], re.DOTALL)
    folder = tmp_path / "agentd"
    folder.mkdir(mode=0o700)
    try:
        break_it(folder)
    except PermissionError:
        pytest.skip("only root can give a folder away")
    ended = subprocess.run(
        ["sh", "-c", script],
        env=os.environ | {"socket": f"{folder}/agent.sock"},
        timeout=60,
        check=False,
    )
    assert ended.returncode == code
