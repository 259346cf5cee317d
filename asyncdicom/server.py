"""The acceptor: listen, associate, perform, drain and stop (PS3.8 7.1, PS3.7 D.3.3).

Theory of operation
-------------------
One task accepts on each listening socket and does nothing else (asyncio's event loop does it for the task, so that the socket
is not registered anew for each connection); one task per connection does the TLS handshake, the
negotiation and the association. Who may associate is decided in :mod:`.admission`; what is done on an association is in
:mod:`.acceptor`.

The task group of a server is not opened in the user's task on asyncio: there it runs in a task of its own that ``__aexit__``
joins, so that a server can be entered and left in different tasks and a user's exception arrives bare.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from anyio import TASK_STATUS_IGNORED, CancelScope, current_time
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from . import instrument
from .acceptor import (
    abort_quietly,
    describe_end,
    finish,
    how_it_ended,
    is_asyncio,
    on_the_loop,
    read_request,
    run,
    run_by_hand,
)
from .admission import Admission, Connection, is_title
from .association import Association
from .exceptions import (
    AssociationClosed,
    ConnectError,
    DicomNetworkError,
    LocalProtocolError,
    OperationTimeout,
)
from .listening import listen
from .protocol import negotiation, pdu
from .protocol.dimse import Dimse
from .protocol.extended import read_information
from .protocol.upper_layer import Role, UpperLayer
from .proxy_protocol import Networks, read_proxy_header
from .services.lookout import Lookout
from .services.registry import Environment, Services, call
from .settings import DEFAULT_MAXIMUM_LENGTH, DEFAULT_PROFILE, Address, Limits, PeerProfile, Timeouts
from .transport import Listener, StreamTransport, Transport, start_tls, wrap_socket

if TYPE_CHECKING:
    import ssl as _ssl

    from anyio.abc import ByteStream, TaskGroup

__all__ = ["Server", "serve"]

logger = logging.getLogger("asyncdicom.server")

#: Seconds that an association must be idle for a server that stops not to wait for it.
_GRACE = 0.5

Peers = Mapping[str, "str | Address"] | Callable[[str], Any]
Profiles = Mapping[str, PeerProfile] | Callable[[str], Any]


class Server:
    """Serve associations: ``async with Server(services, "AET@host:port") as server``.

    :param services: the handlers.
    :param address: our AE title and where to listen; port 0 lets the system pick one. ``AET@0.0.0.0:104`` is all of IPv4,
        ``AET@[::]:104`` all of IPv6, a host name each of its addresses; a path is a UNIX socket.
    :param ssl: an :class:`ssl.SSLContext` for TLS.
    :param peers: addresses of C-MOVE destinations by AE title, or a function (also async) that gives them.
    :param profiles: what peers cannot do, or do not take: a :class:`asyncdicom.PeerProfile` by AE title, or a function (also
        async) that gives it, or ``None``. It is asked for who calls, and for C-MOVE destinations.
    :param called: AE titles that peers may call; ``None`` is any.
    :param calling: AE titles that peers may have; ``None`` is any.
    :param async_operations: most requests that a peer may have outstanding, and that we have with it, on an association.
    :param maximum_length: the longest P-DATA-TF PDU in bytes that we receive; 0 is unlimited.
    :param sockets: listening sockets to use instead of ``address``'s host and port, such as inherited ones.
    :param allow: networks and addresses that may connect; ``None`` is any. Others are closed without an answer.
    :param proxy_from: networks and addresses of load balancers, whose PROXY protocol header (version 1 or 2) says who
        really connects.
    :param peer_ssl: the context for TLS towards C-MOVE destinations, or a function that gives it for the address of one;
        ``None`` is no TLS.
    :param drain: seconds that running associations get to end when the server is left normally.

    Leaving the block waits up to ``drain`` seconds for associations that are at work while new ones get (2,3,1), and aborts the
    rest; leaving it by an exception aborts at once.
    """

    def __init__(
        self,
        services: Services,
        address: str | Address = "ASYNCDICOM@127.0.0.1:0",
        *,
        ssl: _ssl.SSLContext | None = None,
        peers: Peers | None = None,
        profiles: Profiles | None = None,
        called: Iterable[str] | None = None,
        calling: Iterable[str] | None = None,
        async_operations: tuple[int, int] = (16, 16),
        maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        sockets: Iterable[socket.socket] | None = None,
        peer_ssl: _ssl.SSLContext | Callable[[Address], _ssl.SSLContext | None] | None = None,
        reuse_port: bool = False,
        allow: Iterable[str] | None = None,
        proxy_from: Iterable[str] | None = None,
        drain: float | None = 10.0,
    ) -> None:
        self.services = services
        self.address = Address.parse(address)
        self.timeouts = timeouts or Timeouts()
        self.limits = limits or Limits()
        self.drain = drain
        self._ssl = ssl
        self._peer_ssl = peer_ssl
        self._admission = Admission(services, self.limits, called=called, calling=calling)
        self._async_operations = async_operations
        self._maximum_length = maximum_length
        self._sockets = None if sockets is None else list(sockets)
        self._reuse_port = reuse_port
        self._allow = None if allow is None else Networks(allow)
        self._proxy_from = None if proxy_from is None else Networks(proxy_from)
        self._resolve = _resolver(peers)
        self._profile = _resolver(profiles)
        self._has_profiles = profiles is not None
        self._listener: Listener | None = None
        self._tasks: TaskGroup | None = None
        self._runner: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None
        self._connections: dict[int, Connection] = {}
        self._numbers = itertools.count(1)
        self._closed: anyio.Event | None = None
        self._idle: anyio.Event | None = None
        self._lookout: Lookout | None = None

    # What can be seen.

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses that are listened on, with the ports that the system picked."""
        if self._listener is None:
            return ()
        found = []
        for bound in self._listener.addresses:
            host, port = (bound, 0) if isinstance(bound, str) else bound
            found.append(Address(self.address.ae_title, host, port))
        return tuple(found)

    @property
    def associations(self) -> tuple[Association, ...]:
        """The associations that are established now."""
        return tuple(c.association for c in self._connections.values() if c.association is not None)

    # Life.

    async def __aenter__(self) -> Server:
        if self._tasks is not None or self._listener is not None:
            raise LocalProtocolError("a server is entered once; make another one")
        sockets = self._sockets
        if sockets is None:
            sockets = await anyio.to_thread.run_sync(partial(listen, self.address, reuse_port=self._reuse_port))
        for sock in sockets:
            sock.setblocking(False)
        self._listener = Listener(sockets)
        self._closed = anyio.Event()
        try:
            if is_asyncio():
                ready = asyncio.get_running_loop().create_future()
                self._stop = asyncio.Event()
                self._runner = asyncio.create_task(self._run_group(ready), name="asyncdicom.Server")
                await asyncio.shield(ready)
            else:
                self._tasks = await anyio.create_task_group().__aenter__()
            assert self._tasks is not None
            for sock in self._listener.sockets:
                self._tasks.start_soon(self._accept_on, sock)
            self._lookout = Lookout(lambda: self.associations)
            self._tasks.start_soon(self._lookout.run)
        except BaseException:
            self._listener.close()
            if self._runner is not None:
                self._runner.cancel()
            raise
        return self

    async def _run_group(self, ready: asyncio.Future[None]) -> None:
        """Hold the task group in a task of our own (asyncio)."""
        assert self._stop is not None
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                ready.set_result(None)
                await self._stop.wait()
                tasks.cancel_scope.cancel()
        finally:
            if self._listener is not None:
                # Also of a server that nobody left, when its event loop is shut down.
                self._listener.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        tasks = self._tasks
        assert tasks is not None
        try:
            await self.stop(self.drain if exc is None else 0)
        finally:
            if self._listener is not None:
                self._listener.close()
            if self._closed is not None:
                self._closed.set()
            if self._runner is not None:
                assert self._stop is not None
                self._stop.set()
                await _join(self._runner)
            else:
                tasks.cancel_scope.cancel()
                try:
                    await tasks.__aexit__(None, None, None)
                except BaseExceptionGroup as group:
                    if len(group.exceptions) == 1:
                        raise group.exceptions[0] from None
                    raise
        return None

    async def stop(self, drain: float | None = None) -> None:
        """Stop gracefully: new associations get (2,3,1), running ones get ``drain`` seconds, the rest is aborted.

        :param drain: seconds to wait for associations to end; ``None`` waits for all.
        """
        if not self._admission.is_stopping:
            self._admission.is_stopping = True
            # Whoever is associated and idle would keep us waiting for nothing.
            logger.info("server stopping: %d associations", len(self.associations))
        deadline = math.inf if drain is None else current_time() + drain
        while self._busy() and current_time() < deadline:
            await self._change(min(deadline, current_time() + _GRACE / 4))
        if self._listener is not None:
            self._listener.close()
        associations = self.associations
        if associations:
            with CancelScope(shield=True, deadline=current_time() + (self.timeouts.abort or 1)):
                async with anyio.create_task_group() as tasks:
                    for association in associations:
                        tasks.start_soon(abort_quietly, association)
        for connection in list(self._connections.values()):
            connection.scope.cancel()
        deadline = current_time() + (self.timeouts.cancel or 5)
        with CancelScope(shield=True):
            while self._connections and current_time() < deadline:
                await self._change(deadline)
        if self._closed is not None:
            self._closed.set()

    def _busy(self) -> bool:
        """Whether an association is worth waiting for: it performs something, or did so a moment ago."""
        return any(association.seconds_idle < _GRACE for association in self.associations)

    async def _change(self, deadline: float) -> None:
        """Wait until a connection has ended."""
        self._idle = anyio.Event()
        with CancelScope(deadline=deadline):
            await self._idle.wait()

    async def serve_forever(self) -> None:
        """Wait until the server is stopped or this is cancelled."""
        if self._closed is None:
            raise LocalProtocolError("the server is not entered")
        await self._closed.wait()

    async def serve_stream(self, stream: ByteStream) -> None:
        """Serve one connected anyio byte stream to its end, as if it had been accepted."""
        transport = StreamTransport(stream)
        try:
            await self._serve(transport)
        finally:
            await transport.aclose()

    async def serve_socket(self, sock: socket.socket) -> None:
        """Serve one connected socket to its end, as if it had been accepted; it is closed then.

        For programs that accept connections elsewhere, in another process for example.
        """
        sock.setblocking(False)
        await self._serve_accepted(sock)
        await checkpoint()  # asyncio closes a socket in the next round of its loop

    # Connections.

    async def _accept_on(self, sock: socket.socket) -> None:
        assert self._listener is not None
        assert self._tasks is not None
        await self._listener.accept(sock, partial(on_the_loop, self._tasks.start_soon, self._serve_accepted))

    async def _serve_accepted(self, sock: socket.socket) -> None:
        try:
            transport = await wrap_socket(sock)
        except OSError as exc:
            logger.debug("a connection was lost before it was served: %s", exc)
            sock.close()
            return
        await self._serve(transport)

    async def _serve(self, transport: Transport) -> None:
        """Serve one connection, whatever happens on it."""
        number = next(self._numbers)
        peer = transport.peer_address
        host = peer if isinstance(peer, str) else peer[0] if peer else None
        with CancelScope() as scope:
            connection = Connection(number, scope, host, started=current_time())
            self._connections[number] = connection
            self._admission.enter(connection)
            try:
                await self._serve_connection(transport, connection)
            except DicomNetworkError as exc:
                logger.debug("connection %d ended: %s", number, exc)
            except Exception:
                logger.exception("connection %d failed", number)
            finally:
                del self._connections[number]
                self._admission.leave(connection)
                transport.abort()
                if self._idle is not None:
                    self._idle.set()

    async def _serve_connection(self, transport: Transport, connection: Connection) -> None:
        timeouts = self.timeouts
        deadline = math.inf if timeouts.associate is None else connection.started + timeouts.associate
        if self._proxy_from is not None and connection.address in self._proxy_from:
            try:
                transport = await read_proxy_header(transport, deadline)
            except (ConnectError, TimeoutError) as exc:
                logger.info(
                    "connection %d from %s: %s", connection.number, connection.address, exc or "no PROXY header"
                )
                return
            peer = transport.peer_address
            connection.address = peer[0] if isinstance(peer, tuple) else peer
        if self._allow is not None and connection.address not in self._allow:
            logger.info("connection %d from %s: the address is not allowed", connection.number, connection.address)
            return
        if self._ssl is not None:
            try:
                transport = await start_tls(transport, self._ssl, server_side=True, timeout=timeouts.tls)
            except (ConnectError, OperationTimeout) as exc:
                logger.info("connection %d from %s: %s", connection.number, connection.address, exc)
                return
        upper_layer = UpperLayer(
            Role.ACCEPTOR,
            associate_pdu=self.limits.associate_pdu,
            maximum_length=self._maximum_length,
            slack=self.limits.pdu_slack,
        )
        upper_layer.transport_connected()
        try:
            association = await self._negotiate(transport, upper_layer, connection, deadline)
            if association is None:
                self._admission.uncount(connection)
                await finish(transport, upper_layer, timeouts)
                return
        except (AssociationClosed, TimeoutError) as exc:
            logger.debug("connection %d from %s: %s", connection.number, connection.address, exc)
            await transport.aclose()
            return
        except BaseException:
            transport.abort()
            raise
        calling = association.peer.ae_title
        connection.association = association
        start = time.perf_counter()
        association.number = connection.number
        if instrument.enabled():
            instrument.emit(
                instrument.AssociationOpened(
                    association=connection.number,
                    requestor=False,
                    peer_ae_title=calling,
                    peer_address=association.peer.address,
                    contexts=len(association.negotiated.contexts),
                )
            )
        logger.info(
            "association %d opened: calling %r, called %r, from %s",
            connection.number,
            calling,
            association.negotiated.called_ae_title,
            connection.address,
        )
        try:
            if (handler := self.services.association_handler) is not None:
                await run_by_hand(association, handler)
            else:
                await run(association, idle=timeouts.idle, lookout=self._lookout)
        finally:
            connection.association = None
            self._admission.uncount(connection)
            seconds = time.perf_counter() - start
            if logger.isEnabledFor(logging.INFO):
                logger.info("association %d %s after %.3f s", connection.number, describe_end(association), seconds)
            if instrument.enabled():
                instrument.emit(
                    instrument.AssociationEnded(
                        association=connection.number, requestor=False, how=how_it_ended(association), seconds=seconds
                    )
                )
            await association.close_transport(timeouts.associate)

    async def _negotiate(
        self, transport: Transport, upper_layer: UpperLayer, connection: Connection, deadline: float
    ) -> Association | None:
        """Read the request and answer it; ``None`` if there will be no association."""
        request = await read_request(transport, upper_layer, deadline)
        if isinstance(request, str):
            if request:
                logger.info("connection %d from %s: %s", connection.number, connection.address, request)
            return None
        rejection = self._admission.judge(request, connection)
        identity_response: bytes | None = None
        if rejection is None:
            self._admission.count(connection, request.calling_ae_title)
            decision = await self._admission.decide(request, transport, upper_layer, deadline)
            if isinstance(decision, pdu.AssociateRJ):
                rejection = decision
            elif decision is None:
                return None
            else:
                identity_response = decision.response
        proposed = {
            item.sop_class_uid: read_information(item.sop_class_uid, item.information)
            for item in request.user_information.extended_negotiation
        }
        profile = DEFAULT_PROFILE
        if rejection is None and self._has_profiles:
            found = await self._find_profile(request.calling_ae_title, deadline)
            if found is None:
                rejection = pdu.AssociateRJ(result=1, source=1, reason=1)
            else:
                profile = found
        if rejection is None:
            answer = negotiation.answer(
                request,
                support=self.services.support,
                maximum_length=profile.most(self._maximum_length),
                async_operations=self._async_operations if profile.async_window else (1, 1),
                extended_negotiation=self.services.extended(proposed),
                user_identity_response=identity_response,
            )
            if isinstance(answer, pdu.AssociateRJ):
                rejection = answer
        if rejection is not None:
            logger.info(
                "connection %d from %s rejected (%d,%d,%d): calling %r, called %r",
                connection.number,
                connection.address,
                rejection.result,
                rejection.source,
                rejection.reason,
                request.calling_ae_title,
                request.called_ae_title,
            )
            upper_layer.reject(rejection)
            if instrument.enabled():
                instrument.emit(
                    instrument.AssociationRejected(
                        result=rejection.result,
                        source=rejection.source,
                        reason=rejection.reason,
                        peer_address=transport.peer_address,
                    )
                )
            return None
        assert isinstance(answer, tuple)
        accept, negotiated = answer
        upper_layer.accept(accept)
        core = Dimse(upper_layer, command_set=self.limits.command_set)
        environment = Environment(
            ae_title=_own_title(request.called_ae_title, self.address.ae_title),
            resolve=self._resolve,
            ssl=self._peer_ssl,
            timeouts=self.timeouts,
            limits=self.limits,
            saturate_counters=self.services.saturate_counters,
            profile=self._profile,
        )
        association = Association(
            transport,
            core,
            negotiated,
            requestor=False,
            timeouts=self.timeouts,
            limits=self.limits,
            perform=partial(self.services.perform, environment=environment),
            profile=profile,
        )
        for buffer in upper_layer.data_to_send():
            await transport.send(buffer, deadline)
        return association

    async def _find_profile(self, ae_title: str, deadline: float) -> PeerProfile | None:
        """Return the profile of who calls; ``None`` if it cannot be told, or not in time."""
        try:
            with CancelScope(deadline=deadline):
                found: PeerProfile | None = await call(self._profile, ae_title)
                return found or DEFAULT_PROFILE
            logger.error("the profile of a peer was not told in time")
        except Exception as exc:
            logger.error("the profile of a peer cannot be told: %s", type(exc).__name__, exc_info=exc)
        return None


def _own_title(called: str, own: str) -> str:
    return called if is_title(called) else own


def _resolver(peers: Peers | Profiles | None) -> Callable[[str], Any]:
    if peers is None:
        return lambda _title: None
    if callable(peers):
        return peers
    return dict(peers).get


async def _join(task: asyncio.Task[None]) -> None:
    """Wait for a task of ours to end, also while we are being cancelled; its exception arrives bare."""
    cancelled: BaseException | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
            task.cancel()
    if cancelled is not None:
        raise cancelled
    failed = None if task.cancelled() else task.exception()
    if isinstance(failed, BaseExceptionGroup) and len(failed.exceptions) == 1:
        raise failed.exceptions[0] from None
    if failed is not None:
        raise failed


async def serve(
    services: Services,
    address: str | Address = "ASYNCDICOM@127.0.0.1:11112",
    *,
    task_status: TaskStatus[Server] = TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Serve until cancelled; ``await tg.start(serve, services, address)`` returns the running :class:`Server`.

    The options are those of :class:`Server`.
    """
    async with Server(services, address, **options) as server:
        task_status.started(server)
        await server.serve_forever()
