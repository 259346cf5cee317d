"""The acceptor: listen, associate, perform, drain and stop (PS3.8 7.1, PS3.7 D.3.3).

Theory of operation
-------------------
One task accepts on each listening socket and does nothing else; one task per connection does the TLS handshake, the
negotiation and the association. An association has as many workers as it has requests in progress, and one that reads:
whoever takes a request becomes its performer and leaves the baton to another, so that C-CANCEL, A-ABORT and a lost
connection are seen while handlers run.

The task group of a server is not opened in the user's task on asyncio: there it runs in a task of its own that ``__aexit__``
joins, so that a server can be entered and left in different tasks and a user's exception arrives bare.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import math
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from anyio import TASK_STATUS_IGNORED, CancelScope, current_time
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from . import instrument
from .association import Association
from .connection import skip_events
from .exceptions import (
    AssociationAborted,
    AssociationClosed,
    AssociationRejected,
    ConnectError,
    DicomNetworkError,
    LocalProtocolError,
    OperationTimeout,
)
from .listening import listen
from .protocol import negotiation, pdu
from .protocol.dimse import Dimse
from .protocol.extended import read_information
from .protocol.states import State
from .protocol.upper_layer import AssociateIndication, ProviderAbort, Role, UpperLayer
from .proxy_protocol import Networks, read_proxy_header
from .requests import Request
from .services.lookout import Lookout
from .services.registry import Environment, Services, call
from .settings import DEFAULT_MAXIMUM_LENGTH, Address, Limits, PeerProfile, Timeouts, UserIdentity, validate_ae_title
from .transport import Listener, StreamTransport, Transport, start_tls, wrap_socket

if TYPE_CHECKING:
    import ssl as _ssl

    from anyio.abc import ByteStream, TaskGroup

__all__ = ["AssociationRequest", "Server", "serve"]

logger = logging.getLogger("asyncdicom.server")

#: Seconds that an association must be idle for a server that stops not to wait for it.
_GRACE = 0.5
#: Seconds that a connection may take to associate before others are let in its place, when there are too many.
_PATIENCE = 2.0

Peers = Mapping[str, "str | Address"] | Callable[[str], Any]
Profiles = Mapping[str, PeerProfile] | Callable[[str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """What a peer asks for: what an ``on_associate`` policy decides on.

    :ivar called_ae_title: the AE title that it calls.
    :ivar calling_ae_title: its own AE title, as it claims.
    :ivar address: where it connects from.
    :ivar tls: its TLS session, for example for ``tls.getpeercert()``.
    :ivar user_identity: who it claims to be (PS3.7 D.3.3.7).
    :ivar contexts: the presentation contexts that it proposes.
    """

    called_ae_title: str
    calling_ae_title: str
    address: tuple[str, int] | str | None
    tls: _ssl.SSLObject | None = field(repr=False)
    user_identity: UserIdentity | None = field(repr=False)
    contexts: tuple[pdu.PresentationContextRQ, ...]
    request: pdu.AssociateRQ = field(repr=False)


@dataclass(slots=True)
class _Connection:
    """One connection of a server.

    :ivar calling: the AE title that it counts for, since it was let through to the policy.
    """

    number: int
    scope: CancelScope
    address: str | None
    association: Association | None = None
    started: float = 0.0
    calling: str | None = None


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
        self._called = _titles(called)
        self._calling = _titles(calling)
        self._async_operations = async_operations
        self._maximum_length = maximum_length
        self._sockets = None if sockets is None else list(sockets)
        self._reuse_port = reuse_port
        self._allow = None if allow is None else Networks(allow)
        self._proxy_from = None if proxy_from is None else Networks(proxy_from)
        self._resolve = _resolver(peers)
        self._profile = _resolver(profiles)
        self._listener: Listener | None = None
        self._tasks: TaskGroup | None = None
        self._runner: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None
        self._connections: dict[int, _Connection] = {}
        self._unassociated: dict[int, _Connection] = {}
        self._numbers = itertools.count(1)
        self._addresses: Counter[str] = Counter()
        self._ae_titles: Counter[str] = Counter()
        self._accepted = 0
        self._stopping = False
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
            if _is_asyncio():
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
        if not self._stopping:
            self._stopping = True
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
                        tasks.start_soon(_abort_quietly, association)
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
        try:
            transport = await wrap_socket(sock)
        except OSError as exc:
            logger.debug("a connection was lost before it was served: %s", exc)
            sock.close()
            return
        await self._serve(transport)
        await checkpoint()  # asyncio closes a socket in the next round of its loop

    # Connections.

    async def _accept_on(self, sock: socket.socket) -> None:
        assert self._listener is not None
        assert self._tasks is not None
        connections = self._listener.accept(sock)
        try:
            async for connection in connections:
                self._tasks.start_soon(self.serve_socket, connection)
        finally:
            with CancelScope(shield=True):
                await connections.aclose()  # type: ignore[attr-defined]

    async def _serve(self, transport: Transport) -> None:
        """Serve one connection, whatever happens on it."""
        number = next(self._numbers)
        peer = transport.peer_address
        host = peer if isinstance(peer, str) else peer[0] if peer else None
        with CancelScope() as scope:
            connection = _Connection(number, scope, host, started=current_time())
            self._connections[number] = connection
            self._unassociated[number] = connection
            self._shed()
            try:
                await self._serve_connection(transport, connection)
            except DicomNetworkError as exc:
                logger.debug("connection %d ended: %s", number, exc)
            except Exception:
                logger.exception("connection %d failed", number)
            finally:
                del self._connections[number]
                self._unassociated.pop(number, None)
                self._uncount(connection)
                transport.abort()
                if self._idle is not None:
                    self._idle.set()

    def _count(self, connection: _Connection, calling: str) -> None:
        """Count a connection as an association, from before the policy is asked: a slow one is no way past the limits."""
        self._unassociated.pop(connection.number, None)
        connection.calling = calling
        self._accepted += 1
        self._ae_titles[calling] += 1
        if connection.address is not None:
            self._addresses[connection.address] += 1

    def _uncount(self, connection: _Connection) -> None:
        """Count a connection no longer, if it was counted; nothing is remembered of who has left."""
        calling, connection.calling = connection.calling, None
        if calling is None:
            return
        self._accepted -= 1
        for counter, key in ((self._ae_titles, calling), (self._addresses, connection.address)):
            if key is not None:
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]

    def _shed(self) -> None:
        """Close the oldest connection that has not associated, when there are too many of them.

        One that came a moment ago gets its chance: a burst of honest peers is no attack, until it is far too large.
        """
        limit = self.limits.unassociated
        if limit is None or len(self._unassociated) <= limit:
            return
        oldest = next(iter(self._unassociated.values()))
        if current_time() - oldest.started > _PATIENCE or len(self._unassociated) > 8 * limit:
            del self._unassociated[oldest.number]
            oldest.scope.cancel()

    async def _serve_connection(self, transport: Transport, connection: _Connection) -> None:
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
                self._uncount(connection)
                await _finish(transport, upper_layer, timeouts)
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
            if self.services.association_handler is not None:
                await self._run_by_hand(association)
            else:
                await self._run(association)
        finally:
            connection.association = None
            self._uncount(connection)
            seconds = time.perf_counter() - start
            logger.info("association %d %s after %.3f s", connection.number, _describe_end(association), seconds)
            if instrument.enabled():
                instrument.emit(
                    instrument.AssociationEnded(
                        association=connection.number, requestor=False, how=_how(association), seconds=seconds
                    )
                )
            await association.close_transport(timeouts.associate)

    async def _negotiate(
        self, transport: Transport, upper_layer: UpperLayer, connection: _Connection, deadline: float
    ) -> Association | None:
        """Read the request and answer it; ``None`` if there will be no association."""
        request = await _read_request(transport, upper_layer, deadline)
        if isinstance(request, str):
            if request:
                logger.info("connection %d from %s: %s", connection.number, connection.address, request)
            return None
        rejection = self._judge(request, connection)
        identity_response: bytes | None = None
        if rejection is None:
            self._count(connection, request.calling_ae_title)
            decision = await self._decide(request, transport, upper_layer, deadline)
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
        profile = PeerProfile()
        if rejection is None:
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
                return found or PeerProfile()
            logger.error("the profile of a peer was not told in time")
        except Exception as exc:
            logger.error("the profile of a peer cannot be told: %s", type(exc).__name__, exc_info=exc)
        return None

    def _judge(self, request: pdu.AssociateRQ, connection: _Connection) -> pdu.AssociateRJ | None:
        """Apply the built-in rules."""
        limits = self.limits
        calling = request.calling_ae_title
        if self._stopping:
            return pdu.AssociateRJ(result=2, source=3, reason=1)
        if limits.associations is not None and self._accepted >= limits.associations:
            return pdu.AssociateRJ(result=2, source=3, reason=2)
        if (
            limits.associations_per_address is not None
            and connection.address is not None
            and self._addresses[connection.address] >= limits.associations_per_address
        ):
            return pdu.AssociateRJ(result=2, source=3, reason=2)
        if (
            limits.associations_per_ae_title is not None
            and self._ae_titles[calling] >= limits.associations_per_ae_title
        ):
            return pdu.AssociateRJ(result=2, source=3, reason=2)
        if self._called is not None and request.called_ae_title not in self._called:
            return pdu.AssociateRJ(result=1, source=1, reason=7)
        if not _is_title(calling) or (self._calling is not None and calling not in self._calling):
            return pdu.AssociateRJ(result=1, source=1, reason=3)
        if not _is_title(request.called_ae_title):
            return pdu.AssociateRJ(result=1, source=1, reason=7)
        return None

    async def _decide(
        self, request: pdu.AssociateRQ, transport: Transport, upper_layer: UpperLayer, deadline: float
    ) -> pdu.AssociateRJ | _Decision | None:
        """Ask the policy, watching the connection meanwhile; it fails closed."""
        policy = self.services.policy
        if policy is None:
            return _Decision(None)
        identity = request.user_information.user_identity
        asked = AssociationRequest(
            called_ae_title=request.called_ae_title,
            calling_ae_title=request.calling_ae_title,
            address=transport.peer_address,
            tls=transport.tls,
            user_identity=None
            if identity is None
            else UserIdentity(
                identity.type, identity.primary, identity.secondary, identity.positive_response_requested
            ),
            contexts=request.presentation_contexts,
            request=request,
        )
        decision: pdu.AssociateRJ | _Decision | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                # Anything but silence before our answer is a breach (Sta3); a closed connection ends the question.
                with CancelScope(deadline=deadline):
                    while True:
                        if upper_layer.next_event() is not None or upper_layer.should_close:
                            break
                        data = await transport.receive()
                        if data:
                            upper_layer.receive_data(data)
                        else:
                            upper_layer.receive_eof()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            decision = await _ask(policy, asked, identity is not None)
            tasks.cancel_scope.cancel()
        if upper_layer.state is not State.STA3:
            return None
        if decision is None:
            logger.error("the policy did not decide in time")
            return _failed_closed(identity is not None)
        return decision

    async def _run_by_hand(self, association: Association) -> None:
        """Give an association to the handler that wants it whole."""
        handler = self.services.association_handler
        assert handler is not None
        try:
            await call(handler, association)
        except DicomNetworkError as exc:
            if not association.ended:
                raise
            logger.debug("the handler of association %d ended: %s", association.number, exc)

    async def _run(self, association: Association) -> None:
        """Perform what comes on an association, to its end."""
        waiting = 0
        watching = association.watch()
        async with anyio.create_task_group() as tasks:

            def spawn() -> None:
                if not waiting:
                    _on_the_loop(tasks.start_soon, work)

            async def work() -> None:
                with CancelScope() as scope:
                    association.worker_scopes.add(scope)
                    try:
                        await serve_requests()
                    finally:
                        association.worker_scopes.discard(scope)

            async def serve_requests() -> None:
                nonlocal waiting
                # Another worker that waits does so for the peer: what was held back until now is ours to perform.
                while association.has_requests or not (watching and waiting):
                    waiting += 1
                    try:
                        request = await association.next_request(idle=self.timeouts.idle)
                    except DicomNetworkError:
                        return
                    finally:
                        waiting -= 1
                    if not watching:
                        spawn()
                    if self._lookout is not None and association.incoming is not None:
                        self._lookout.note()
                    try:
                        await self._perform(association, request)
                    except DicomNetworkError:
                        if association.ended:
                            return
                        logger.exception("a request failed")
                        await association.abort()
                        return

            association.wanted = spawn
            await work()

    async def _perform(self, association: Association, request: Request) -> None:
        perform = association._perform
        assert perform is not None
        await perform(request)


@dataclass(frozen=True, slots=True)
class _Decision:
    """An accepted association, and the response to the user's identity, if any."""

    response: bytes | None


async def _ask(
    policy: Callable[[AssociationRequest], Any], asked: AssociationRequest, has_identity: bool
) -> pdu.AssociateRJ | _Decision:
    try:
        result = await call(policy, asked)
    except AssociationRejected as exc:
        return pdu.AssociateRJ(result=exc.result, source=exc.source, reason=exc.reason)
    except Exception as exc:
        logger.error("the policy failed: %s", type(exc).__name__, exc_info=exc)
        return _failed_closed(has_identity)
    if isinstance(result, bytes):
        return _Decision(result)
    return _Decision(b"" if has_identity else None)


def _failed_closed(has_identity: bool) -> pdu.AssociateRJ:
    """Reject because nobody decided; an identity that was not checked is refused by the ACSE (PS3.7 D.3.3.7.1)."""
    return pdu.AssociateRJ(result=1, source=2 if has_identity else 1, reason=1)


async def _read_request(transport: Transport, upper_layer: UpperLayer, deadline: float) -> pdu.AssociateRQ | str:
    """Read the A-ASSOCIATE-RQ, or return why there is none (empty: nothing to speak of)."""
    try:
        while True:
            event = upper_layer.next_event()
            match event:
                case AssociateIndication(request=request):
                    return request
                case ProviderAbort(message=message):
                    return f"aborted: {message}"
                case None:
                    pass
                case _:
                    return "ended before an association was requested"
            if upper_layer.should_close:
                return ""
            if upper_layer.state is State.STA13:
                return "rejected: protocol version not supported"
            data = await transport.receive(deadline)
            if data:
                upper_layer.receive_data(data)
            else:
                upper_layer.receive_eof()
    except TimeoutError:
        upper_layer.artim_expired()
        return "no association was requested in time (ARTIM)"


async def _finish(transport: Transport, upper_layer: UpperLayer, timeouts: Timeouts) -> None:
    """Send the last words and wait for the peer to close, at most for the ARTIM time (PS3.8 9.2)."""
    limit = timeouts.associate
    try:
        with CancelScope(deadline=math.inf if limit is None else current_time() + limit):
            while True:
                for buffer in upper_layer.data_to_send():
                    await transport.send(buffer)
                if upper_layer.should_close or upper_layer.state is State.STA1:
                    break
                await skip_events(upper_layer)
                if upper_layer.should_close:
                    continue
                data = await transport.receive()
                if data:
                    upper_layer.receive_data(data)
                else:
                    upper_layer.receive_eof()
    except (AssociationClosed, TimeoutError):
        pass
    await transport.aclose()


async def _abort_quietly(association: Association) -> None:
    try:
        if not association.ended:
            association.end(lambda: AssociationAborted(0, 0, "the server is stopping"))
            upper_layer = association.core.upper_layer
            if upper_layer.can_abort:
                upper_layer.abort()
        await association.flush_control()
    except DicomNetworkError:
        pass


def _how(association: Association) -> str:
    error = association.error() if association.ended else None
    if isinstance(error, OperationTimeout):
        return "timed out"
    if isinstance(error, AssociationClosed):
        return "lost" if error.__cause__ is not None or "closed the connection" in str(error) else "released"
    return "aborted"


def _describe_end(association: Association) -> str:
    if not association.ended:
        return "closed"
    error = association.error()
    return "released" if isinstance(error, AssociationClosed) and error.__cause__ is None else f"ended: {error}"


def _titles(titles: Iterable[str] | None) -> frozenset[str] | None:
    if titles is None:
        return None
    return frozenset(validate_ae_title(title) for title in ([titles] if isinstance(titles, str) else titles))


def _is_title(title: str) -> bool:
    try:
        validate_ae_title(title)
    except ValueError:
        return False
    return True


def _own_title(called: str, own: str) -> str:
    return called if _is_title(called) else own


def _resolver(peers: Peers | Profiles | None) -> Callable[[str], Any]:
    if peers is None:
        return lambda _title: None
    if callable(peers):
        return peers
    return dict(peers).get


def _on_the_loop(function: Callable[..., object], *args: object) -> None:
    """Call a function of anyio, also from a callback of the event loop.

    Outside of any task sniffio sees no event loop, unless ``anyio.run`` runs it.
    """
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is None or not _is_asyncio() or asyncio.current_task() is not None:
        function(*args)
        return
    context = contextvars.copy_context()
    context.run(sniffio.current_async_library_cvar.set, "asyncio")
    context.run(function, *args)


def _is_asyncio() -> bool:
    module: Any = sys.modules.get("trio")
    return module is None or not module.lowlevel.in_trio_task()


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
