"""What a session permits, and children, which never have more than their parents."""

from __future__ import annotations

import pytest

from agentd_client.errors import (
    AgentdError,
    InvalidAudienceError,
    InvalidScopesError,
    InvalidUsesError,
    NotWithinParentError,
    ParentNotValidError,
    StoreError,
)
from agentd_client.protocol import reasons
from agentd_client.protocol.limits import MAX_DEPTH


def reason(manager, token, **asked):
    return manager.verify_nowait(token, **asked).reason


async def test_a_session_for_an_audience_verifies_for_that_audience_only(manager):
    token = (await manager.open_session(audience=["build", "deploy"])).token
    assert reason(manager, token, audience="build") is None
    assert reason(manager, token, audience="deploy") is None
    assert reason(manager, token, audience="other") == reasons.WRONG_AUDIENCE
    assert reason(manager, token) == reasons.WRONG_AUDIENCE, (
        "RFC 7519, 4.1.3: a verifier that names no audience"
    )


async def test_a_session_for_everyone_verifies_for_any_audience_and_scope(manager):
    token = await manager.create_token()
    assert reason(manager, token, audience="anyone", scopes=["anything"]) is None


async def test_every_requested_scope_must_be_granted(manager):
    token = (await manager.open_session(scopes=["read", "list"])).token
    assert reason(manager, token, scopes=["read"]) is None
    assert reason(manager, token, scopes=["list", "read"]) is None
    assert reason(manager, token, scopes=[]) is None
    assert reason(manager, token) is None
    assert reason(manager, token, scopes=["read", "write"]) == reasons.MISSING_SCOPE
    assert reason(manager, token, scopes=["rea"]) == reasons.MISSING_SCOPE


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"scopes": [f"s{number}" for number in range(10_000)]}, InvalidScopesError),
        ({"scopes": ["read", "read"]}, InvalidScopesError),
        ({"scopes": "read"}, InvalidScopesError),
        ({"scopes": [""]}, InvalidScopesError),
        ({"scopes": ["a b"]}, InvalidScopesError),
        ({"scopes": ["\x1b[31m"]}, InvalidScopesError),
        ({"scopes": ["é"]}, InvalidScopesError),
        ({"scopes": ["x" * 65]}, InvalidScopesError),
        ({"scopes": [1]}, InvalidScopesError),
        ({"scopes": {"read": 1}}, InvalidScopesError),
        ({"audience": "build"}, InvalidAudienceError),
        ({"audience": ["x" * 129]}, InvalidAudienceError),
        ({"audience": ["a"] * 2}, InvalidAudienceError),
        ({"audience": [f"a{number}" for number in range(9)]}, InvalidAudienceError),
        ({"max_uses": 0}, InvalidUsesError),
        ({"max_uses": -1}, InvalidUsesError),
        ({"max_uses": True}, InvalidUsesError),
        ({"max_uses": 1.0}, InvalidUsesError),
        ({"max_uses": 2**31}, InvalidUsesError),
        ({"parent": "nonsense"}, ParentNotValidError),
        ({"parent": 17}, ParentNotValidError),
    ],
)
async def test_an_unusable_grant_is_refused_with_its_code_and_nothing_is_stored(db, manager, what, error):
    before = db.revision
    with pytest.raises(error):
        await manager.open_session(**what)
    assert manager.session_count == 0
    assert db.revision == before


@pytest.mark.parametrize(
    "asked", [{"audience": 7}, {"audience": "a b"}, {"scopes": "read"}, {"scopes": [None]}]
)
async def test_an_unusable_audience_or_scope_of_a_verifier_is_an_error(manager, asked):
    token = await manager.create_token()
    with pytest.raises((InvalidAudienceError, InvalidScopesError)):
        manager.verify_nowait(token, **asked)
    with pytest.raises((InvalidAudienceError, InvalidScopesError)):
        manager.inspect(token, **asked)


async def test_a_child_inherits_what_it_does_not_narrow(manager):
    parent = await manager.open_session(600, audience=["a", "b"], scopes=["read", "write"])
    plain = await manager.open_session(parent=parent.token)
    narrow = await manager.open_session(60, parent=parent.token, audience=["b"], scopes=["read"])
    session = manager.inspect(plain.token, audience="a").session
    assert (session.parent, session.audience, session.scopes) == (parent.id, ["a", "b"], ["read", "write"])
    assert session.expires_at == parent.expires_at, "with a default of never it ends with the parent"
    assert reason(manager, narrow.token, audience="b", scopes=["read"]) is None
    assert reason(manager, narrow.token, audience="a") == reasons.WRONG_AUDIENCE
    assert reason(manager, narrow.token, audience="b", scopes=["write"]) == reasons.MISSING_SCOPE


async def test_a_child_cannot_have_more_than_its_parent(manager):
    parent = await manager.open_session(60, audience=["a"], scopes=["read"], max_lifetime=100)
    with pytest.raises(NotWithinParentError, match="write"):
        await manager.open_session(parent=parent.token, scopes=["read", "write"])
    with pytest.raises(NotWithinParentError, match="audience"):
        await manager.open_session(parent=parent.token, audience=["b"])
    assert manager.session_count == 1
    child = await manager.open_session(3600, parent=parent.token, max_lifetime=7200)
    assert child.expires_at == parent.expires_at
    session = manager.inspect(child.token, audience="a").session
    assert session.max_expires_at == manager.inspect(parent.token, audience="a").session.max_expires_at


async def test_a_childs_uses_are_taken_from_its_parents(manager):
    parent = await manager.open_session(max_uses=10)
    with pytest.raises(NotWithinParentError):
        await manager.open_session(parent=parent.token)
    with pytest.raises(NotWithinParentError):
        await manager.open_session(parent=parent.token, max_uses=11)
    await manager.open_session(parent=parent.token, max_uses=7)
    assert manager.inspect(parent.token).session.uses_left == 3
    with pytest.raises(NotWithinParentError):
        await manager.open_session(parent=parent.token, max_uses=4)


async def test_revoking_a_session_ends_all_below_it_at_once(db, manager):
    tokens = [(await manager.open_session()).token]
    for _ in range(3):
        tokens.append((await manager.open_session(parent=tokens[-1])).token)
    beside = (await manager.open_session(parent=tokens[0])).token
    assert all([await manager.verify_token(token) for token in [*tokens, beside]])
    assert await manager.revoke_token(tokens[1])
    assert [await manager.verify_token(token) for token in tokens] == [True, False, False, False]
    assert await manager.verify_token(beside)
    async with db.transaction() as tran:
        assert not await manager.verify_token(tokens[3], tran)
    listed = {session.id for session in (await manager.list_sessions()).sessions}
    assert listed == {manager.inspect(token).session.id for token in (tokens[0], beside)}
    assert await manager.sweep() == 2
    assert manager.session_count == 2


async def test_a_parent_that_is_gone_has_no_children(manager, clock):
    ended, expired, reset = [(await manager.open_session(5)).token for _ in range(3)]
    await manager.revoke_token(ended)
    with pytest.raises(ParentNotValidError, match="was ended"):
        await manager.open_session(parent=ended)
    clock.advance(10)
    with pytest.raises(ParentNotValidError, match="expired"):
        await manager.open_session(parent=expired)
    await manager.reset_key()
    with pytest.raises(ParentNotValidError, match="session key"):
        await manager.open_session(parent=reset)
    assert manager.session_count == 0


async def test_a_child_ends_with_a_parent_that_was_found_expired(manager, clock):
    parent = await manager.open_session(60)
    child = await manager.open_session(60, parent=parent.token)
    clock.set_wall(clock.wall + 3600)
    assert not await manager.verify_token(parent.token)
    clock.set_wall(clock.wall - 3600)
    assert not await manager.verify_token(child.token)


async def test_the_depth_of_a_tree_is_limited(manager):
    token = (await manager.open_session()).token
    for _ in range(MAX_DEPTH):
        token = (await manager.open_session(parent=token)).token
    assert await manager.verify_token(token)
    with pytest.raises(NotWithinParentError, match=str(MAX_DEPTH)):
        await manager.open_session(parent=token)


async def test_uses_are_counted_to_the_last_one(manager):
    created = await manager.open_session(max_uses=3)
    assert manager.verify_nowait(created.token) is None, "it takes a write"
    answers = [await manager.verify_and_consume(created.token) for _ in range(5)]
    assert [answer.reason for answer in answers] == [None, None, None, reasons.USED_UP, reasons.USED_UP]
    assert manager.verify_nowait(created.token).reason == reasons.USED_UP
    assert not await manager.verify_token(created.token)
    assert manager.inspect(created.token).reason == reasons.USED_UP


async def test_a_use_rejected_for_another_reason_is_not_counted(manager):
    created = await manager.open_session(max_uses=2, scopes=["read"])
    assert not await manager.verify_token(created.token, scopes=["write"])
    assert (await manager.verify_and_consume(created.token, scopes=["write"])).reason == reasons.MISSING_SCOPE
    assert manager.inspect(created.token).session.uses_left == 2


async def test_uses_in_a_transaction_count_when_it_commits(db, manager):
    created = await manager.open_session(max_uses=2)
    with pytest.raises(RuntimeError, match="never mind"):
        async with db.transaction() as tran:
            assert await manager.verify_token(created.token, tran)
            raise RuntimeError("never mind")
    async with db.transaction() as tran:
        assert await manager.verify_token(created.token, tran)
        assert await manager.verify_token(created.token, tran)
        assert not await manager.verify_token(created.token, tran)
    assert not await manager.verify_token(created.token)


async def test_a_use_whose_write_fails_is_not_valid(db, manager):
    created = await manager.open_session(max_uses=2)
    await db.stop()
    with pytest.raises(AgentdError):
        await manager.verify_and_consume(created.token)
    await db.start()


async def test_a_use_that_the_store_refuses_is_not_valid(db, manager, monkeypatch):
    async def fail(*_: object, **__: object) -> None:
        raise StoreError("the disk is gone")

    created = await manager.open_session(max_uses=2)
    with monkeypatch.context() as while_the_disk_is_gone:
        while_the_disk_is_gone.setattr(db, "write", fail)
        with pytest.raises(StoreError):
            await manager.verify_token(created.token)
    assert (await manager.verify_and_consume(created.token)).session.uses_left == 1
