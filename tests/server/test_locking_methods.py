from __future__ import annotations

import msgpack
import pytest

from agentd import methods
from agentd.server import PassphraseBytes
from agentd_client import errors
from agentd_client.protocol.codec import Request
from agentd_client.protocol.methods import error_from_wire
from tests.server.talk import FULL, FakeCaller, FakeLocking, FakeSessions, dispatch_of

SECRET = b"correct horse battery staple"


@pytest.fixture
def locking() -> FakeLocking:
    return FakeLocking()


@pytest.fixture
def ask(locking):
    dispatch = dispatch_of(FakeSessions(), locking)

    async def ask(name: str, **named: object) -> object:
        request = Request(1, name, [named])
        assert dispatch.answer(request, FakeCaller()) is None, "it waits"
        _, _, error, result = msgpack.unpackb(await dispatch.answer_async(request, FakeCaller()))
        if error is not None:
            raise error_from_wire(error)
        return result

    return ask


async def test_each_does_what_its_name_says_for_the_peer_that_asks(ask, locking):
    by = FULL
    assert await ask("lock") == {"locked": True}
    assert await ask("unlock", passphrase=b"right") == {"locked": False}
    assert await ask("changePassphrase", old=b"one", new=b"two") == {"protected": True}
    assert await ask("changePassphrase", old=b"two") == {"protected": False}
    assert locking.asked == [
        ("lock", by),
        ("unlock", b"right", by),
        ("change", b"one", b"two", by),
        ("change", b"two", None, by),
    ]


async def test_attempts_take_turns_by_the_process_that_connected(ask, locking):
    await ask("unlock", passphrase=b"right")
    await ask("changePassphrase", old=b"one", new=b"two")
    assert locking.processes == [FakeCaller().peer.process] * 2


async def test_a_change_names_a_passphrase(ask, locking):
    with pytest.raises(errors.InvalidParamsError, match="changePassphrase takes old, new or both"):
        await ask("changePassphrase")
    assert locking.asked == []


async def test_a_wrong_passphrase_is_refused_by_its_code(ask):
    with pytest.raises(errors.PassphraseError):
        await ask("unlock", passphrase=b"wrong")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("unlock", {}),
        ("unlock", {"passphrase": None}),
        ("unlock", {"passphrase": 7}),
        ("unlock", {"passphrase": SECRET * 100}),
        ("unlock", {"passphrase": b"right", "path": "/etc/passwd"}),
        ("lock", {"reason": "x"}),
        ("changePassphrase", {"old": ["x"]}),
        ("changePassphrase", {"new": {"of": SECRET}}),
        ("changePassphrase", {"old": SECRET, "new": True}),
        ("changePassphrase", {"new": "\N{GREEK SMALL LETTER ALPHA}" * 513}),
    ],
)
async def test_params_of_another_form_are_refused_without_being_repeated(ask, locking, method, params):
    with pytest.raises(errors.InvalidParamsError) as refused:
        await ask(method, **params)
    assert SECRET.decode() not in refused.value.sentence
    assert locking.asked == []


@pytest.mark.parametrize("text", ["password", "hunter2", "cGFzcw==", "\N{GREEK SMALL LETTER ALPHA}" * 512])
async def test_a_passphrase_as_text_is_its_utf_8_and_nothing_else(ask, locking, text):
    await ask("changePassphrase", new=text)
    await ask("changePassphrase", old=text, new=text.encode())
    with pytest.raises(errors.PassphraseError):
        await ask("unlock", passphrase=text)
    sent = text.encode()
    assert [asked[1:-1] for asked in locking.asked] == [(None, sent), (sent, sent), (sent,)]


def test_no_repr_shows_a_passphrase():
    secret = PassphraseBytes(SECRET)
    unlock = methods.UnlockParams(passphrase=secret)
    change = methods.ChangePassphraseParams(old=secret, new=secret)
    assert SECRET.decode() not in f"{unlock!r} {unlock} {change!r} {change}"
