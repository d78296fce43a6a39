"""The accept loop, its limits, and the graceful stop."""

from __future__ import annotations

import errno
import logging
import select
import socket
import time

import trio
from trio.lowlevel import wait_readable

from agentd_client.protocol.results import STOPPING, Event

from .admission import ADMITTED, Admission, Decision, OpenConnections, owner_only
from .connection import Connection
from .dispatch import Dispatch
from .log import PeerLog, Reason, describe_failure
from .peer import peer_of
from .turn import Turns

DRAIN_SECONDS = 5.0
"""For what is being worked on when the agent stops; service managers wait far longer before they kill."""

ACCEPT_PAUSE_SECONDS = 0.1
"""After accept(2) failed, for want of descriptors or memory for instance: the listener stays readable, and
without a pause the loop would spin."""

ACCEPTED_AT_ONCE = 1 / 16
"""Connections that are accepted before the others have a turn, as a part of the limit: a full queue takes a
few turns then, not one for each of those in it, and whoever connects without end takes a few milliseconds."""

ANSWERED_AT_ONCE = 64
"""Connections without a task that are answered before others have a turn: about a millisecond's worth."""

# The socket itself is of no use: going on would be an agent that runs and that nobody can reach.
_NOT_A_LISTENER = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP}


async def serve_connections(
    listener: socket.socket,
    dispatch: Dispatch,
    *,
    logger: logging.Logger,
    stop: trio.Event,
    admission: Admission | None = None,
    drain_seconds: float = DRAIN_SECONDS,
    owns_listener: bool = True,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, then answer what had arrived, and return with every connection closed.

    Args:
        listener: a listening Unix stream socket; whoever made it closes it.
        dispatch: answers the requests.
        logger: told of peers that were refused or cut off, and of the agent's own failures.
        stop: begins the graceful stop.
        admission: who is let in, and how many; the agent's own user alone where nothing is said.
        drain_seconds: how long that may take; what is unanswered then stays so.
        owns_listener: the listener ends with this agent. False for one that a service manager keeps: who
            waits in its queue is left to the next agent.
        task_status: started as soon as connections are accepted.

    Raises:
        OSError: `listener` is not a listening socket.
    """
    server = _Server(listener, dispatch, logger, admission or owner_only())
    listener.setblocking(False)
    try:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(server.accept_connections, connections)
                accepting.start_soon(server.answer_connections, connections)
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
            if owns_listener:
                server.accept_the_rest(connections)
            connections.cancel_scope.deadline = trio.current_time() + drain_seconds
            server.stop_reading(connections)
    finally:
        server.close()
    if connections.cancel_scope.cancelled_caught:
        logger.warning("stopped with requests unanswered after %g s", drain_seconds)


class _Server:
    def __init__(
        self, listener: socket.socket, dispatch: Dispatch, logger: logging.Logger, admission: Admission
    ) -> None:
        self._traffic = dispatch.traffic
        self.log = PeerLog(logger, self._traffic)
        self._listener = listener
        self._dispatch = dispatch
        self._logger = logger
        self._admission = admission
        self._connections = OpenConnections()
        # Those without a task, by their descriptors, and what knows which of them are readable.
        self._resting: dict[int, Connection] = {}
        self._readable = select.epoll()
        self._turns = Turns(admission.slice_seconds)

    async def accept_connections(self, nursery: trio.Nursery) -> None:
        at_once = max(1, int(self._admission.connections * ACCEPTED_AT_ONCE))
        while True:
            try:
                await wait_readable(self._listener)
            except trio.ClosedResourceError:
                continue  # it became another socket, whose path is there again (`SocketFile.renew`)
            self._answer_readable(nursery)  # those that have ended make room
            accepted = 0
            try:
                # No await between accept and whoever closes the socket: a cancellation cannot lose it.
                while accepted < at_once:
                    connection = self._accept()
                    # What it asks first has arrived, as a rule.
                    if connection is not None and self._answer(connection, nursery):
                        self._rest(connection)
                    accepted += 1
            except OSError as error:
                if error.errno in _NOT_A_LISTENER:
                    raise
                if accepted and error.errno == errno.EAGAIN:
                    continue  # that was the whole queue
                # EAGAIN: another process that shares the listener was quicker, which is nothing to tell. It
                # pauses as well, because a listener that someone shut down is readable and has nothing.
                if error.errno != errno.EAGAIN:
                    self.log.write(Reason.NOT_ACCEPTED, detail=error.strerror or type(error).__name__)
                await trio.sleep(ACCEPT_PAUSE_SECONDS)

    async def answer_connections(self, nursery: trio.Nursery) -> None:
        """Answer on the connections without a task, from this one.

        To wake a task takes longer than to answer. The kernel gives the readable ones in turn.
        """
        while True:
            await wait_readable(self._readable)
            self._answer_readable(nursery)

    def accept_the_rest(self, nursery: trio.Nursery) -> None:
        """Accept those who wait in the queue, and let nobody join it.

        Whoever connected may have sent a request. A listener that is shut down refuses new connections
        and still hands out those it has, so none falls between the last accept and the close.
        """
        try:
            self._listener.shutdown(socket.SHUT_RD)
            while True:
                connection = self._accept(stopping=True)
                if connection is not None:
                    nursery.start_soon(self._run, connection)
        except BlockingIOError:
            pass  # the queue is empty
        except OSError as error:
            self.log.write(Reason.NOT_ACCEPTED, detail=error.strerror or type(error).__name__)

    def stop_reading(self, nursery: trio.Nursery) -> None:
        for connection in self._resting.values():
            nursery.start_soon(self._run, connection)
        self._resting.clear()
        stopping = Event(STOPPING, round(time.time(), 3), None, "", None, None)
        for connection in self._connections:
            connection.stop_reading(stopping)

    def close(self) -> None:
        """Close what no task does."""
        self._readable.close()
        for connection in self._resting.values():
            self._end(connection)
        self._resting.clear()

    def _accept(self, *, stopping: bool = False) -> Connection | None:
        """The next connection; None where it was refused."""
        sock, _ = self._listener.accept()
        self._traffic.connections += 1
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            self.log.write(Reason.NO_CREDENTIALS)
            return None
        # Before a byte is read: what another user sends is nothing that this process should parse.
        if not self._admission.allows(peer):
            sock.close()
            self.log.write(Reason.FOREIGN_USER, peer)
            return None
        # When the agent stops every connection goes, and nobody has to go for another.
        admission, present = self._admission, self._connections
        room = admission.within_hard_limit(present) if stopping else admission.decide(peer, present)
        if not room.is_admitted:
            sock.close()
            self.log.write(Reason.TOO_MANY, peer, room.reached)
            return None
        if room is not ADMITTED:
            self._make(room)
        sock.setblocking(False)
        connection = Connection(sock, peer, self._dispatch, self.log, self._turns)
        self._connections.add(connection)
        self._traffic.connections_open += 1
        return connection

    def _answer_readable(self, nursery: trio.Nursery) -> None:
        for descriptor, _ in self._readable.poll(0, ANSWERED_AT_ONCE):
            connection = self._resting[descriptor]
            if not self._answer(connection, nursery):
                del self._resting[descriptor]
                if not connection.is_over:
                    self._readable.unregister(descriptor)

    def _answer(self, connection: Connection, nursery: trio.Nursery) -> bool:
        """Have a connection answer what it can; whether it goes on without a task."""
        try:
            if connection.answer_nowait():
                return True
        except Exception as error:
            self._fail(connection, error)
        if connection.is_over:
            self._end(connection)
        else:
            nursery.start_soon(self._run, connection)
        return False

    def _rest(self, connection: Connection) -> None:
        """Have a connection without a task wait until it is readable."""
        try:
            self._readable.register(connection, select.EPOLLIN)
        except OSError as error:
            self._fail(connection, error)
            self._end(connection)
        else:
            self._resting[connection.fileno()] = connection

    def _make(self, room: Decision) -> None:
        """Have the connection go that has to.

        It is closed as a stop closes it: what it sent is answered, and its client's next send fails, and is
        safely made again elsewhere. So programs that hold connections open do not lock their user out.
        """
        leaves, abandoned = room.leaves, room.abandoned
        if leaves is not None:
            reason = Reason.EVICTED_IDLE if leaves.is_idle else Reason.EVICTED_BUSY
            self._connections.leave(leaves)
            leaves.stop_reading()
            self.log.write(reason, leaves.peer, room.reached)
        if abandoned is not None:
            abandoned.abandon()
            self.log.write(Reason.EVICTION_TIMEOUT, abandoned.peer)

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception as error:
            self._fail(connection, error)
        finally:
            self._end(connection)

    def _fail(self, connection: Connection, error: Exception) -> None:
        # One connection's failure is not the other ones'.
        connection.is_over = True
        self._logger.error("a connection failed: %s", describe_failure(error))

    def _end(self, connection: Connection) -> None:
        connection.close()
        self._connections.remove(connection)
        self._traffic.connections_open -= 1
