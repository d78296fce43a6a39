"""The accept loop, its limits, and the graceful stop."""

from __future__ import annotations

import errno
import logging
import socket
import time

import trio
from trio.lowlevel import wait_readable

from agentd_client.protocol.results import STOPPING, Event

from .admission import Admission, Crowd, owner_only
from .connection import Connection
from .dispatch import Dispatch
from .failures import describe_failure
from .peer import peer_of
from .peer_log import PeerLog, Reason

DRAIN_SECONDS = 5.0
"""For what is being worked on when the agent stops; service managers wait far longer before they kill."""

ACCEPT_PAUSE_SECONDS = 0.1
"""After accept(2) failed, for want of descriptors or memory for instance: the listener stays readable, and
without a pause the loop would spin."""

MAKING_ROOM = 0.5
"""Connections over a limit, as a part of it, while those that made room for them end. As a rule that takes
one turn of the event loop; one that had just sent requests is answered first. Of the owner's, that is as many
as can wait to be accepted when the agent stops, who are accepted in one go."""

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
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(server.accept_connections, connections)
            task_status.started()
            await stop.wait()
            accepting.cancel_scope.cancel()
        if owns_listener:
            server.accept_the_rest(connections)
        connections.cancel_scope.deadline = trio.current_time() + drain_seconds
        server.stop_reading()
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
        self._connections: set[Connection] = set()

    async def accept_connections(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                await wait_readable(self._listener)
            except trio.ClosedResourceError:
                continue  # it became another socket, whose path is there again (`SocketFile.renew`)
            try:
                # No await between accept and the task that owns the socket: a cancellation cannot lose it.
                self._accept(nursery)
            except OSError as error:
                if error.errno in _NOT_A_LISTENER:
                    raise
                # EAGAIN: another process that shares the listener was quicker, which is nothing to tell. It
                # pauses as well, because a listener that someone shut down is readable and has nothing.
                if error.errno != errno.EAGAIN:
                    self.log.write(Reason.NOT_ACCEPTED, detail=error.strerror or type(error).__name__)
                await trio.sleep(ACCEPT_PAUSE_SECONDS)

    def accept_the_rest(self, nursery: trio.Nursery) -> None:
        """Accept those who wait in the queue, and let nobody join it.

        Whoever connected may have sent a request. A listener that is shut down refuses new connections
        and still hands out those it has, so none falls between the last accept and the close.
        """
        try:
            self._listener.shutdown(socket.SHUT_RD)
            while True:
                self._accept(nursery)
        except BlockingIOError:
            pass  # the queue is empty
        except OSError as error:
            self.log.write(Reason.NOT_ACCEPTED, detail=error.strerror or type(error).__name__)

    def stop_reading(self) -> None:
        stopping = Event(STOPPING, round(time.time(), 3), None, "", None, None)
        for connection in self._connections:
            connection.stop_reading(stopping)

    def _accept(self, nursery: trio.Nursery) -> None:
        sock, _ = self._listener.accept()
        self._traffic.connections += 1
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            self.log.write(Reason.NO_CREDENTIALS)
            return
        # Before a byte is read: what another user sends is nothing that this process should parse.
        if not self._admission.lets_in(peer):
            sock.close()
            self.log.write(Reason.FOREIGN_USER, peer)
            return
        crowd = self._admission.crowd(peer, self._connections)
        if crowd is not None and not self._make_room(crowd):
            sock.close()
            self.log.write(Reason.TOO_MANY, peer, crowd.limit_in_words)
            return
        sock.setblocking(False)
        connection = Connection(sock, peer, self._dispatch, self.log, self._admission.slice_messages)
        self._connections.add(connection)
        self._traffic.connections_open += 1
        nursery.start_soon(self._run, connection)

    def _make_room(self, crowd: Crowd) -> bool:
        """Close the connection that has been idle longest; False where none is idle.

        Otherwise programs that hold connections open, and one that leaks them, would lock their user out.
        It is closed as a stop closes it: its client's next send fails, and is safely made again elsewhere.
        """
        if len(crowd.connections) >= crowd.limit * (1 + MAKING_ROOM):
            return False
        idle = [connection for connection in crowd.connections if connection.is_idle]
        if not idle:
            return False
        longest = min(idle, key=lambda connection: connection.last_turn)
        longest.stop_reading()
        self.log.write(Reason.MADE_ROOM, longest.peer, crowd.limit_in_words)
        return True

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception as error:
            # One connection's failure is not the other ones'.
            self._logger.error("a connection failed: %s", describe_failure(error))
        finally:
            self._connections.discard(connection)
            self._traffic.connections_open -= 1
