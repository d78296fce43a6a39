"""`lastUsedAt` as it goes over the wire, although encoded answers are kept."""

from __future__ import annotations

import msgpack

from agentd_client.protocol.codec import Request
from tests.server.talk import FakeCaller, dispatch_of


async def test_a_verification_answers_with_its_own_time_as_inspecting_does(manager, clock):
    dispatch = dispatch_of(manager)
    token = await manager.create_token(600)

    def last_used(method: str) -> object:
        reply = dispatch.answer(Request(1, method, [{"token": token}]), FakeCaller())
        return msgpack.unpackb(reply)[3]["session"]["lastUsedAt"]

    for _ in range(6):
        clock.advance(2)
        assert last_used("verifyToken") == clock.wall
        assert last_used("inspectToken") == clock.wall
        before = clock.wall
        clock.advance(0.5)
        assert last_used("verifyToken") == before, "the answer that was kept, half a second old"
        assert last_used("inspectToken") == clock.wall
