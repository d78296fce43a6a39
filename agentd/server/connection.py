"""One connection: reads requests, has them answered, and enforces the limits.

It uses the plain non-blocking socket and trio's `wait_readable`. A send that the kernel takes at once then
needs no deadline, no task and no turn of the event loop, which is a third of a call's time.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Callable, Hashable, Sequence

import trio
from trio.lowlevel import ParkingLot, checkpoint, wait_readable

from agentd_client.errors import AgentdError, InvalidMessageError
from agentd_client.protocol.codec import Decoder, Message, Notification, RefusedRequest, Response
from agentd_client.protocol.limits import MAX_IN_FLIGHT, MESSAGE_SECONDS, READ_BYTES
from agentd_client.protocol.results import Event

from .dispatch import AnyRequest, Dispatch, FairQueue, PlainRequest, RequestDecoder
from .log import PeerLog, Reason
from .outbox import Outbox
from .peer import Caller, Peer

HANG_UP_SECONDS = 1.0
"""How often to check for a hang-up when the peer sends no more but requests are under way."""

REPLIES_AT_ONCE = 16
"""Replies that are sent together. A peer that sent more requests at once works on these meanwhile."""

SLICE_SECONDS = 0.001
"""Enough for some dozens of verifications. A time and not a number of messages, because a message costs from
one microsecond to some hundreds."""

BUSY_READ_BYTES = 2 * 1024
"""One read of a connection that sends more than fits its slices. A read is decoded as a whole, which takes at
most half a millisecond if it is filled with the smallest messages."""


class Turns:
    """The time slices of all connections of one socket.

    A connection handles what it reads at once, for at most a slice. One that needs more is busy until it has
    caught up with its peer. In each turn of the event loop one of the busy ones has a slice, process by
    process. So peers that send as fast as they can, on however many connections, take one slice of each turn
    together, which is what another peer's request waits for.

    slice_seconds: how long a slice is. clock: seconds that only go forward.
    """

    def __init__(
        self, slice_seconds: float = SLICE_SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.slice_seconds = slice_seconds
        self.clock = clock
        self.busy = FairQueue(1)


class Turn:
    """One connection's share of them.

    If it `is_busy`, `resume` first, else `begin`. Then read `read_bytes`, handle them until `clock()` reaches
    `until`, then `leave` and `resume`. If it is busy then, call `end` once the read is handled. A connection
    that sends one request at a time needs none of this.
    """

    def __init__(self, turns: Turns, process: Hashable) -> None:
        self._turns = turns
        self.clock = turns.clock
        self.until = 0.0
        self.read_bytes = READ_BYTES
        self.is_busy = False
        self._process = process
        self._has_place = False

    def begin(self) -> None:
        """Begin a slice."""
        self.until = self.clock() + self._turns.slice_seconds

    def leave(self) -> None:
        """Let another connection go on."""
        if self._has_place:
            self._has_place = False
            self._turns.busy.give_back()

    async def resume(self) -> None:
        """Wait until this is the busy connection that has a slice in this turn of the loop, and begin it."""
        self.is_busy = True
        await self._turns.busy.take(self._process)
        self._has_place = True
        # A place that is free may have been used in this very turn of the loop.
        await checkpoint()
        self.begin()

    def end(self, read: int) -> None:
        """A read of so many bytes is handled. If it was not full, the peer has sent nothing more."""
        self.leave()
        if self.is_busy and read < self.read_bytes:
            self.is_busy = False
        self.read_bytes = BUSY_READ_BYTES if self.is_busy else READ_BYTES


class Connection:
    """Owns a connected, non-blocking socket from its construction on. It is served in two phases.

    Without a task: the server calls `answer_nowait` whenever the socket is readable. Most connections need no
    more. With a task: from the first time that `answer_nowait` returns False and it is not over, the server
    runs `run` to the end, which goes on where `answer_nowait` stopped. That happens when something takes
    waiting: a request, the rest of a message, or a peer that does not read its replies. In the end the server
    calls `close`.

    Backpressure: nothing more is read while replies wait for the peer or `MAX_IN_FLIGHT` requests are under
    way. So a peer can make the agent hold one read, the replies to it, and, if it has subscribed, a bounded
    number of events.

    is_over: only `close` is left to do. is_abandoned: it ends with requests unanswered.
    """

    def __init__(
        self, sock: socket.socket, peer: Peer, dispatch: Dispatch, log: PeerLog, turns: Turns
    ) -> None:
        self._sock = sock
        self.peer = peer
        self._dispatch = dispatch
        self._log = log
        self._turn = Turn(turns, peer.process)
        self._decoder = RequestDecoder()
        self._in_flight: set[int] = set()
        # Where the reader waits until the peer has read its replies or a request has ended.
        self._held = ParkingLot()
        self._outbox = Outbox(sock, peer, log, self._held)
        self._caller = Caller(peer, self._outbox.subscribe)
        self._unfinished_until = math.inf
        # What the peer is told at the end, with the msgid that it is about.
        self._closing_error: tuple[int, AgentdError] | None = None
        self.is_over = False
        self.is_abandoned = False
        self._tasks: trio.Nursery | None = None
        # What the first phase leaves to the second: requests that take waiting, and messages not handled yet.
        self._unstarted: list[AnyRequest] = []
        self._unhandled: Sequence[Message | PlainRequest] = ()
        self._handling = False
        self._stopped = False

    @property
    def last_active(self) -> int:
        """When a request was last answered, as a number that orders all connections.

        Bytes and notifications do not count: they would keep a connection open that asks nothing.
        """
        return self._outbox.last_active

    @property
    def is_idle(self) -> bool:
        """Whether no request and no reply is under way, so that `stop_reading` ends it.

        Queued events do not count, because a subscriber may leave them unread for ever. Nor does an
        unfinished message: a peer that has always begun one would never be idle. If the connection ends, that
        peer cannot send the rest, and so knows that the request was not carried out.
        """
        return not (
            self._handling
            or self._stopped
            or self._in_flight
            or self._outbox.lost
            or self._outbox.owes_replies
        )

    def abandon(self) -> None:
        """End within some turns of the event loop, with requests unanswered."""
        self.is_abandoned = True
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def answer_nowait(self) -> bool:
        """Read once and answer what takes no waiting; only before `run`.

        Returns whether to call this again when the socket is readable. If not, the connection `is_over` or
        has to `run`.
        """
        if self.is_abandoned or self._outbox.lost or not self._receive():
            self.is_over = True
            return False
        if self._unhandled:
            self._unhandled = self._answer_each(self._unhandled)
        # What is left is under way, although its task has yet to begin.
        self._handling = bool(self._unhandled)
        return not (
            self._unhandled
            or self._unstarted
            or self._decoder.unfinished is not None
            or self._closing_error is not None
            or self._outbox.needs_task
        )

    async def run(self) -> None:
        """Serve the peer until either side ends the connection and every request is answered."""
        # The nursery outlives the reading: requests under way are still answered after the peer's last
        # byte or its first malformed one.
        async with trio.open_nursery() as self._tasks:
            if self.is_abandoned:
                self._tasks.cancel_scope.cancel()
            self._outbox.start(self._tasks)
            self._handling = False
            for request in self._unstarted:
                self._tasks.start_soon(self._answer, request)
            try:
                await self._read()
            finally:
                self._turn.leave()
                self._outbox.end_events()
            await self._notice_hang_up()
            if self._closing_error is not None:
                # After every answer that the peer waits for: otherwise this error, with the msgid 0 or one
                # in use, could be taken for the answer to a request that is still carried out.
                while self._in_flight:
                    await self._held.park()
                self._outbox.send(self._dispatch.closing_error(*self._closing_error))

    def fileno(self) -> int:
        """The socket's descriptor, to wait until it is readable."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket, whatever is unsent."""
        self._sock.close()

    def stop_reading(self, last_event: Event | None = None) -> None:
        """Let the peer send nothing more; what it has sent is still answered.

        A subscriber gets `last_event`, if there is one, and no event after it.

        After shutdown(SHUT_RD) of a Unix socket, Linux fails the peer's sends with EPIPE. What is in the
        receive queue stays readable, followed by the end of file. So every request that the peer sent whole
        is read and answered.
        """
        self._stopped = True
        if last_event is not None:
            self._outbox.announce_end(last_event)
        # ENOTCONN: the peer has gone already.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    async def _read(self) -> None:
        decoder, sock, outbox, turn = self._decoder, self._sock, self._outbox, self._turn
        in_flight = self._in_flight
        while await self._handle():
            if (unfinished := decoder.unfinished) is not None:
                if not await self._wait_for_the_rest(unfinished):
                    return
            else:
                await wait_readable(sock)
                if outbox.owes_replies or len(in_flight) >= MAX_IN_FLIGHT:
                    await self._hold()
            if outbox.lost:
                return
            if turn.is_busy:
                await turn.resume()
            if not self._receive():
                return

    def _receive(self) -> bool:
        """Read and decode once; False if the peer sends no more."""
        turn = self._turn
        try:
            data = self._sock.recv(turn.read_bytes)
        except BlockingIOError:
            self._received = 0
            return True
        except OSError:
            return False  # ECONNRESET: the peer closed with replies unread
        self._received = len(data)
        messages = self._unhandled = self._decoder.receive(data)
        if messages:
            self._unfinished_until = math.inf  # an unfinished one is now another message
            if len(messages) > 1 and not turn.is_busy:
                turn.begin()  # a single request is always answered, so it needs no slice
        return bool(data)

    async def _notice_hang_up(self) -> None:
        """After the peer's last byte, cancel what only concerns it once it has closed the connection.

        A peer that has only shut down its sending still reads answers. The kernel distinguishes the two, but
        does not report when one becomes the other, so this polls.
        """
        poll = select.poll()
        poll.register(self._sock, 0)  # POLLHUP is always reported: neither side sends any more
        while self._in_flight:
            if self._outbox.lost or poll.poll(0):
                self._caller.hang_up()
                return
            with trio.move_on_after(HANG_UP_SECONDS):
                await self._held.park()

    async def _wait_for_the_rest(self, unfinished: Decoder) -> bool:
        """Wait for more of an unfinished message; False if none came in time."""
        if self._unfinished_until == math.inf:
            self._unfinished_until = trio.current_time() + MESSAGE_SECONDS
        with trio.move_on_at(self._unfinished_until) as waiting:
            await wait_readable(self._sock)
        if waiting.cancelled_caught:
            why = f"a message that was not finished within {MESSAGE_SECONDS:g} s"
            self._cut_off(Reason.UNFINISHED, why, unfinished.msgid_of_rest)
            return False
        began = trio.current_time()
        await self._hold()
        # The peer may have sent the rest long ago: time in which nothing was read does not count.
        self._unfinished_until += trio.current_time() - began
        return True

    def _must_hold(self) -> bool:
        return self._outbox.owes_replies or len(self._in_flight) >= MAX_IN_FLIGHT

    async def _hold(self) -> None:
        while self._must_hold():
            await self._held.park()

    async def _handle(self) -> bool:
        """Answer or start every request that was read; False if the connection ends with that."""
        turn = self._turn
        while self._unhandled:
            self._unhandled = self._answer_each(self._unhandled)
            if self._unhandled:
                # Give other connections a turn, and the peer time to read its replies.
                is_over = turn.clock() >= turn.until
                turn.leave()
                self._handling = True
                await checkpoint()
                await self._hold()
                if self._outbox.lost:
                    return False
                if is_over:
                    await turn.resume()
                self._handling = False
        if self._closing_error is not None:
            return False
        unfinished = self._decoder.unfinished
        if unfinished is not None and unfinished.failure is not None:
            self._cut_off(Reason.MALFORMED, unfinished.failure.sentence, unfinished.msgid_of_rest)
            return False
        if turn.is_busy:
            turn.end(self._received)
        return True

    def _answer_each(self, messages: Sequence[Message | PlainRequest]) -> Sequence[Message | PlainRequest]:
        """Answer or start each request, until the slice is over or the peer has to read replies first.

        Returns the messages that are left; none if one of them ends the connection.
        """
        replies: list[bytes] = []
        dispatch, caller, in_flight = self._dispatch, self._caller, self._in_flight
        clock, until = self._turn.clock, self._turn.until
        for at, message in enumerate(messages):
            if at and (
                (is_over := clock() >= until)
                or len(in_flight) >= MAX_IN_FLIGHT
                or len(replies) >= REPLIES_AT_ONCE
            ):
                self._outbox.send(b"".join(replies))
                replies.clear()
                if is_over or at >= MAX_IN_FLIGHT or self._outbox.lost or self._must_hold():
                    return messages[at:]
            if not isinstance(message, PlainRequest):  # usually it is
                if isinstance(message, Notification):
                    continue  # by the specification it has no answer, and no method has an effect without one
                if isinstance(message, Response):
                    self._cut_off(Reason.UNEXPECTED, "a response to no request")
                    break
            if message.msgid in in_flight:
                why = "the msgid of a request that is not answered yet"
                self._cut_off(Reason.MSGID_IN_USE, why, message.msgid)
                break
            if isinstance(message, RefusedRequest):
                replies.append(dispatch.answer_refused(message.msgid, message.error))
            elif (reply := dispatch.answer(message, caller)) is not None:
                replies.append(reply)
            else:
                in_flight.add(message.msgid)
                if self._tasks is not None:
                    self._tasks.start_soon(self._answer, message)
                else:
                    self._unstarted.append(message)
        self._outbox.send(b"".join(replies))
        return ()

    def _cut_off(self, reason: Reason, why: str, msgid: int | None = None) -> None:
        self._log.write(reason, self.peer, why if reason is Reason.MALFORMED else "")
        self._closing_error = (msgid or 0, InvalidMessageError(f"{why}; the agent closes this connection"))

    async def _answer(self, request: AnyRequest) -> None:
        try:
            self._outbox.send(await self._dispatch.answer_async(request, self._caller))
        finally:
            self._in_flight.discard(request.msgid)
            self._held.unpark_all()
