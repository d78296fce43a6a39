"""Accepting connections, serving those without a task, the graceful stop, and answering for no agent."""

from __future__ import annotations

import errno
import logging
import select
import socket
import time
from collections.abc import Iterable

import trio
from trio.lowlevel import wait_readable

from agentd_client.errors import StartError
from agentd_client.protocol.results import STOPPING, Event

from .admission import ADMITTED, Admission, Decision, OpenConnections, owner_only, verifiers
from .connection import Connection, Turns
from .dispatch import AnyRequest, Dispatch
from .log import PeerLog, Reason, describe_failure
from .peer import Caller, peer_of

DRAIN_SECONDS = 5.0
"""For the requests under way when the agent stops. Service managers wait far longer before they kill."""

ACCEPT_PAUSE_SECONDS = 0.1
"""After accept(2) failed, for lack of descriptors or memory for instance. The listener stays readable, so
without a pause the loop would spin."""

ACCEPT_BATCH = 1 / 16
"""Connections that are accepted before others have a turn, as a share of the limit. A full queue takes a few
turns, and a client that connects without end takes a few milliseconds of each."""

STARTUP_FAILURE_SECONDS = 1.0
"""For all answers when the agent could not start. A client that connects later makes the service manager try
another start."""

ANSWER_BATCH = 64
"""Connections without a task that are served before others have a turn: about a millisecond's work."""

# The listener itself is unusable. Without it the agent would run and nobody could reach it.
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
    """Serve until `stop` is set, answer what had arrived by then, and return with every connection closed.

    Args:
        listener: a listening Unix stream socket; its creator closes it.
        dispatch: answers the requests.
        logger: for peers that were refused or cut off, and for failures of the agent.
        stop: begins the graceful stop.
        admission: who may connect, and how many. The default is the agent's own user only.
        drain_seconds: the longest that the stop waits for answers.
        owns_listener: the listener ends with this agent. False if a service manager keeps it: clients in
            its queue are left to the next agent.
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
                accepting.start_soon(server.serve_without_tasks, connections)
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


class _Poller:
    """Waits for connections without a task, for all of them with one epoll.

    A connection is removed before its socket is closed. Closing alone would leave it in the epoll if a forked
    child has a copy of the descriptor, and its number may be another connection's by then.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}

    def fileno(self) -> int:
        """The epoll, which is readable when a connection is."""
        return self._epoll.fileno()

    def add(self, connection: Connection) -> None:
        """Wait for this one too; raises OSError."""
        descriptor = connection.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._connections[descriptor] = connection

    def ready(self) -> list[Connection]:
        """At most `ANSWER_BATCH` connections that are readable; the kernel returns them in turn."""
        return [self._connections[descriptor] for descriptor, _ in self._epoll.poll(0, ANSWER_BATCH)]

    def remove(self, connection: Connection) -> None:
        """Wait for this one no longer."""
        descriptor = connection.fileno()
        del self._connections[descriptor]
        self._epoll.unregister(descriptor)

    def close(self) -> list[Connection]:
        """Wait for none any more; returns those that were waited for."""
        self._epoll.close()
        left = list(self._connections.values())
        self._connections.clear()
        return left


class _Server:
    """The connections of one listener.

    Starting and waking a task takes longer than most answers. So a connection begins without one: this class
    has it answer on the spot (`Connection.answer_nowait`) when it is accepted and whenever it is readable.
    The first time that it has to wait for anything else, it gets a task (`Connection.run`) and keeps it.
    """

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
        self._without_task = _Poller()
        self._turns = Turns(admission.slice_seconds)

    async def accept_connections(self, nursery: trio.Nursery) -> None:
        batch = max(1, int(self._admission.connections * ACCEPT_BATCH))
        while True:
            try:
                await wait_readable(self._listener)
            except trio.ClosedResourceError:
                continue  # `SocketFile.renew` gave its descriptor to another socket
            self._serve_ready(nursery)  # connections that have ended make room
            accepted = 0
            try:
                # No await between accepting a socket and owning it, so that a cancellation cannot lose it.
                while accepted < batch:
                    connection = self._accept()
                    accepted += 1
                    if connection is not None:
                        self._serve_new(connection, nursery)
            except OSError as error:
                if error.errno in _NOT_A_LISTENER:
                    raise
                if accepted and error.errno == errno.EAGAIN:
                    continue  # that was the whole queue
                # EAGAIN at once: another process that shares the listener was quicker, which is normal. Pause
                # all the same: a listener that was shut down is readable and has nothing.
                if error.errno != errno.EAGAIN:
                    self._log_accept_error(error)
                await trio.sleep(ACCEPT_PAUSE_SECONDS)

    async def serve_without_tasks(self, nursery: trio.Nursery) -> None:
        while True:
            await wait_readable(self._without_task)
            self._serve_ready(nursery)

    def accept_the_rest(self, nursery: trio.Nursery) -> None:
        """Accept the connections in the queue, and let none join it.

        They may have sent a request. A listener that is shut down refuses new connections and still hands
        out those it has, so none falls between the last accept and the close.
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
            self._log_accept_error(error)

    def stop_reading(self, nursery: trio.Nursery) -> None:
        for connection in self._without_task.close():
            nursery.start_soon(self._run, connection)
        stopping = Event(STOPPING, round(time.time(), 3), None, "", None, None)
        for connection in self._connections:
            connection.stop_reading(stopping)

    def close(self) -> None:
        """Close the connections that no task closes."""
        for connection in self._without_task.close():
            self._end(connection)

    def _accept(self, *, stopping: bool = False) -> Connection | None:
        """The next connection; None if it was refused."""
        sock, _ = self._listener.accept()
        self._traffic.connections += 1
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            self.log.write(Reason.NO_CREDENTIALS)
            return None
        # Before a byte is read: this process should not parse what another user sends.
        if not self._admission.allows(peer):
            sock.close()
            self.log.write(Reason.FOREIGN_USER, peer)
            return None
        # At a stop every connection ends anyway, and none is evicted for another.
        admission, present = self._admission, self._connections
        decision = admission.within_hard_limit(present) if stopping else admission.decide(peer, present)
        if not decision.is_admitted:
            sock.close()
            self.log.write(Reason.TOO_MANY, peer, decision.reached)
            return None
        if decision is not ADMITTED:
            self._evict(decision)
        sock.setblocking(False)
        connection = Connection(sock, peer, self._dispatch, self.log, self._turns)
        self._connections.add(connection)
        self._traffic.connections_open += 1
        return connection

    def _serve_new(self, connection: Connection, nursery: trio.Nursery) -> None:
        """Serve a connection that was just accepted. Its first request has usually arrived."""
        try:
            if connection.answer_nowait():
                self._without_task.add(connection)
                return
        except Exception as error:
            self._fail(connection, error)
        self._end_or_run(connection, nursery)

    def _serve_ready(self, nursery: trio.Nursery) -> None:
        for connection in self._without_task.ready():
            try:
                if connection.answer_nowait():
                    continue
            except Exception as error:
                self._fail(connection, error)
            self._without_task.remove(connection)
            self._end_or_run(connection, nursery)

    def _end_or_run(self, connection: Connection, nursery: trio.Nursery) -> None:
        if connection.is_over:
            self._end(connection)
        else:
            nursery.start_soon(self._run, connection)

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception as error:
            self._fail(connection, error)
        finally:
            self._end(connection)

    def _evict(self, decision: Decision) -> None:
        """Close a connection to make room for another.

        It is closed as at a stop: what it sent is answered, and its client's next send fails and can safely
        be repeated on another connection. So programs that keep connections open do not lock their user out.
        """
        evicted, abandoned = decision.evicted, decision.abandoned
        if evicted is not None:
            reason = Reason.EVICTED_IDLE if evicted.is_idle else Reason.EVICTED_BUSY
            self._connections.leave(evicted)
            evicted.stop_reading()
            self.log.write(reason, evicted.peer, decision.reached)
        if abandoned is not None:
            abandoned.abandon()
            self.log.write(Reason.EVICTION_TIMEOUT, abandoned.peer)

    def _fail(self, connection: Connection, error: Exception) -> None:
        # Only this connection ends.
        connection.is_over = True
        self._logger.error("a connection failed: %s", describe_failure(error))

    def _end(self, connection: Connection) -> None:
        connection.close()
        self._connections.remove(connection)
        self._traffic.connections_open -= 1

    def _log_accept_error(self, error: OSError) -> None:
        self.log.write(Reason.NOT_ACCEPTED, detail=error.strerror or type(error).__name__)


class _StartupFailure(Dispatch):
    """Answers every request with the reason why there is no agent."""

    def __init__(self, sentence: str, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._error = StartError(f"the agent could not start: {sentence}")

    def answer(self, request: AnyRequest, caller: Caller) -> bytes:
        return self._error_reply(request.msgid, request.method, self._error)


async def report_startup_failure(
    owners: socket.socket | None, others: Iterable[socket.socket], sentence: str, *, logger: logging.Logger
) -> None:
    """Answer every queued request with a `StartError`, and leave the listeners as they are.

    For when a service manager holds them. Clients connect before there is an agent, and what they send waits
    in the queue. If nobody answered it, the manager would start the agent again at once, for ever.

    Nothing is carried out. A connection without a request is closed, which its client notices before it
    can send one. Takes at most `STARTUP_FAILURE_SECONDS`.

    Args:
        owners: the owner's listening socket; its creator closes it. None if none was passed.
        others: the sockets for others. Their peers are not told why, which concerns the owner's files.
        sentence: why the agent could not start, and what to do.
        logger: for peers that were refused or cut off.
    """
    async with trio.open_nursery() as answering:
        if owners is not None:
            answering.start_soon(
                _answer_queued, owners, _StartupFailure(sentence, logger), owner_only(), logger
            )
        for listener in others:
            failure = _StartupFailure("its owner is told why", logger)
            answering.start_soon(_answer_queued, listener, failure, verifiers(), logger)


async def _answer_queued(
    listener: socket.socket, failure: Dispatch, admission: Admission, logger: logging.Logger
) -> None:
    stop = trio.Event()

    async def serve() -> None:
        await serve_connections(
            listener,
            failure,
            logger=logger,
            stop=stop,
            admission=admission,
            drain_seconds=STARTUP_FAILURE_SECONDS,
            owns_listener=False,
        )

    queue = select.poll()
    queue.register(listener, select.POLLIN)
    with trio.move_on_after(STARTUP_FAILURE_SECONDS):
        async with trio.open_nursery() as serving:
            serving.start_soon(serve)
            while queue.poll(0):
                await trio.lowlevel.checkpoint()  # the accepting task takes them one by one
            stop.set()
