"""One connection: reads requests, has them answered, and holds its peer to the limits.

It works on the plain non-blocking socket and waits with trio's `wait_readable`: a send that the kernel takes
at once then needs no deadline, no task and no turn of the event loop, which is a third of a call's time.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
from collections.abc import Sequence

import trio
from trio.lowlevel import ParkingLot, checkpoint, wait_readable

from agentd_client.errors import AgentdError, InvalidMessageError
from agentd_client.protocol.codec import Message, Notification, RefusedRequest, Request
from agentd_client.protocol.limits import MAX_IN_FLIGHT, MESSAGE_SECONDS
from agentd_client.protocol.results import Event

from .caller import Caller
from .dispatch import Dispatch
from .log import PeerLog, Reason
from .outbox import Outbox
from .peer import Peer
from .requests import AnyRequest, PlainRequest, RequestDecoder
from .turn import Turn, Turns

HANG_UP_SECONDS = 1.0
"""How often a connection whose peer sends no more is looked at, while something waits for that peer alone."""

REPLIES_AT_ONCE = 16
"""Replies that leave together: a peer that sent more requests in one breath works on them meanwhile."""

UNFINISHED_SENTENCE = f"a message that was not finished within {MESSAGE_SECONDS:g} s"


class Connection:
    """Owns a connected, non-blocking socket from its construction on.

    Most connections ask what is answered at once, and end. Those need no task: whoever owns the connection
    calls `answer_nowait` whenever its socket is readable, and `close` at the end. The first time that
    something has to be waited for, for the peer or for an answer, it gets a task, which `run` is for and
    which closes it. It keeps that: to begin one costs more than many an answer.

    Backpressure: while replies wait for the peer, or `MAX_IN_FLIGHT` requests are being worked on, nothing
    more is read, so a peer can make the agent hold no more than one read and the replies to it, and a bounded
    number of events where it has subscribed.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        dispatch: Dispatch,
        log: PeerLog,
        loop_turns: Turns | None = None,
    ) -> None:
        self._sock = sock
        self.peer = peer
        self._dispatch = dispatch
        self._log = log
        self._turn = Turn(loop_turns or Turns(), peer.process)
        self._decoder = RequestDecoder()
        self._in_flight: set[int] = set()
        # Where the reader waits until replies were taken or a request has ended.
        self._held = ParkingLot()
        self._outbox = Outbox(sock, peer, log, self._held)
        self._caller = Caller(peer, self._outbox)
        self._unfinished_until = math.inf
        # Why the agent ends the connection, for the peer, with the msgid that it is about.
        self._parting: tuple[int, AgentdError] | None = None
        self.is_over = False
        """Whether it has ended, so that nothing but `close` is left to be done."""
        self.is_abandoned = False
        """Whether it ends, answered or not."""
        self._tasks: trio.Nursery | None = None
        # What was read and is left for the task: requests that wait for it, and messages not looked at yet.
        self._unstarted: list[AnyRequest] = []
        self._unhandled: Sequence[Message | PlainRequest] = ()
        self._handling = False
        self._stopped = False

    @property
    def last_active(self) -> int:
        """When a request was last answered here, in the order of `turns`.

        Bytes and notifications do not count: they would keep a connection that asks nothing.
        """
        return self._outbox.last_active

    @property
    def is_idle(self) -> bool:
        """Whether no request and no reply is under way, so that the end of reading ends it.

        Events that wait for a subscriber count for nothing, because it may leave them there for ever. A
        message that is not whole does not count either: whoever always has begun one would never be idle.
        Its sender cannot send the rest then, and so knows that it was not carried out.
        """
        return not (
            self._handling
            or self._stopped
            or self._in_flight
            or self._outbox.lost
            or self._outbox.owes_replies
        )

    def abandon(self) -> None:
        """End within some turns of the event loop, and leave unanswered what is not answered yet."""
        self.is_abandoned = True
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def answer_nowait(self) -> bool:
        """Read once and answer, as far as nothing has to be waited for; for a connection without a task.

        Returns whether that was all, until its socket is readable again. Otherwise it `is_over`, or takes a
        task from here on.
        """
        if self.is_abandoned or self._outbox.lost or not self._receive():
            self.is_over = True
            return False
        if self._unhandled:
            self._unhandled = self._answer_each(self._unhandled)
        # Until its task has its first turn: what is left is under way.
        self._handling = bool(self._unhandled)
        return not (
            self._unhandled
            or self._unstarted
            or self._decoder.has_partial_message
            or self._parting is not None
            or self._outbox.needs_task
        )

    async def run(self) -> None:
        """Serve the peer until either side has had enough, and every request that came is answered."""
        try:
            # The nursery outlives the reading: requests that are being worked on end, and their replies
            # leave, after the peer's last byte or its first malformed one.
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
                await self._say_why()
        finally:
            self.close()

    def fileno(self) -> int:
        """Of its socket, for whoever waits until that is readable."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket, whatever there is still to be said."""
        self._sock.close()

    def stop_reading(self, last_event: Event | None = None) -> None:
        """Let the peer send nothing more; all that it has sent is still answered.

        A subscriber gets `last_event`, where there is one, and no event after it.

        After shutdown(SHUT_RD) of a Unix socket Linux fails the peer's sends with EPIPE, while what is in
        the receive queue stays readable, to be followed by the end of file. So there is no request that
        the peer sent whole and that nobody will read: for the peer, "sent" and "answered" stay the same.
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
            if decoder.has_partial_message:
                if not await self._wait_for_the_rest():
                    return
            else:
                await wait_readable(sock)
                if outbox.owes_replies or len(in_flight) >= MAX_IN_FLIGHT:
                    await self._hold()
            if outbox.lost:
                return
            if turn.is_busy:
                await turn.take_place()
                turn.begin()
            if not self._receive():
                return

    def _receive(self) -> bool:
        """Read once, to be handled; False where the peer sends no more."""
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
            self._unfinished_until = math.inf  # what is unfinished now is another message
            if len(messages) > 1 and not turn.is_busy:
                turn.begin()  # not for a single request, which the first one always may be
        return bool(data)

    async def _notice_hang_up(self) -> None:
        """Once nothing more comes, end what waits for the peer alone if that has closed the connection.

        A peer that has shut down its sending only still hears the answers. The kernel tells the one from the
        other, and wakes nobody when the second becomes the first: so it is looked at now and then.
        """
        if not self._in_flight:
            return
        poll = select.poll()
        poll.register(self._sock, 0)  # POLLHUP comes unasked: neither side sends any more
        while self._in_flight:
            if self._outbox.lost or poll.poll(0):
                self._caller.hang_up()
                return
            with trio.move_on_after(HANG_UP_SECONDS):
                await self._held.park()

    async def _wait_for_the_rest(self) -> bool:
        """Wait for more of a message that has begun; False where none came in time."""
        if self._unfinished_until == math.inf:
            self._unfinished_until = trio.current_time() + MESSAGE_SECONDS
        with trio.move_on_at(self._unfinished_until) as waiting:
            await wait_readable(self._sock)
        if waiting.cancelled_caught:
            self._cut_off(Reason.UNFINISHED, UNFINISHED_SENTENCE, self._decoder.msgid_of_rest)
            return False
        began = trio.current_time()
        await self._hold()
        # The peer may have sent the rest long ago: time that it was not read does not count.
        self._unfinished_until += trio.current_time() - began
        return True

    def _must_hold(self) -> bool:
        return self._outbox.owes_replies or len(self._in_flight) >= MAX_IN_FLIGHT

    async def _hold(self) -> None:
        while self._must_hold():
            await self._held.park()

    async def _handle(self) -> bool:
        """Answer or start each request that was read; False where the connection ends with that."""
        decoder, turn = self._decoder, self._turn
        while self._unhandled:
            self._unhandled = self._answer_each(self._unhandled)
            if self._unhandled:
                # The other connections get a turn, and the peer takes what it has asked for.
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
        if self._parting is not None:
            return False
        if decoder.has_partial_message and decoder.failure is not None:
            self._cut_off(Reason.MALFORMED, decoder.failure.sentence, decoder.msgid_of_rest)
            return False
        if turn.is_busy:
            turn.end(self._received)
        return True

    def _answer_each(self, messages: Sequence[Message | PlainRequest]) -> Sequence[Message | PlainRequest]:
        """Answer or start each request, until the turn is over or the peer has to take replies first.

        Returns the messages that are left then; none where one of them ends the connection.
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
            if type(message) is PlainRequest or type(message) is Request:
                if message.msgid in in_flight:
                    self._cut_off_for_msgid(message.msgid)
                    break
                reply = dispatch.answer(message, caller)
                if reply is not None:
                    replies.append(reply)
                else:
                    in_flight.add(message.msgid)
                    if self._tasks is not None:
                        self._tasks.start_soon(self._answer, message)
                    else:
                        self._unstarted.append(message)
            elif type(message) is RefusedRequest:
                if message.msgid in in_flight:
                    self._cut_off_for_msgid(message.msgid)
                    break
                replies.append(dispatch.answer_refused(message.msgid, message.error))
            elif type(message) is not Notification:
                self._cut_off(Reason.UNEXPECTED, "a response to nothing that was asked")
                break
            # The specification: a notification has no answer, and nothing here has an effect without one.
        self._outbox.send(b"".join(replies))
        return ()

    def _cut_off_for_msgid(self, msgid: int) -> None:
        self._cut_off(Reason.MSGID_IN_USE, "the msgid of a request that is not answered yet", msgid)

    def _cut_off(self, reason: Reason, why: str, msgid: int | None = None) -> None:
        self._log.write(reason, self.peer, why if reason is Reason.MALFORMED else "")
        self._parting = (msgid or 0, InvalidMessageError(f"{why}; the agent closes this connection"))

    async def _say_why(self) -> None:
        """Tell the peer why the connection ends, after every answer that it waits for.

        So an error with the msgid 0, or a second one for a msgid, is never taken for the answer to a request
        that is still carried out. The peer has the usual time to take it.
        """
        if self._parting is None:
            return
        while self._in_flight:
            await self._held.park()
        self._outbox.send(self._dispatch.closing_error(*self._parting))

    async def _answer(self, request: AnyRequest) -> None:
        try:
            self._outbox.send(await self._dispatch.answer_async(request, self._caller))
        finally:
            self._in_flight.discard(request.msgid)
            self._held.unpark_all()
