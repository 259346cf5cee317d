"""Retrieve instances from a peer as one async stream, whatever it takes: C-GET, or C-MOVE to ourselves.

Theory of operation
-------------------
A first association asks what the peer supports, and by C-FIND which SOP classes are concerned. By C-GET there follow as
many associations as are needed to propose the presentation contexts that the instances need (:mod:`.plan`). By C-MOVE
the first association is kept, and the instances come to a storage SCP of ours, which knows by Move Originator which
of them belong to which retrieval (:mod:`.reception`).

Everything is done by the task that iterates, while it iterates, except for the server's part, which has tasks of its own;
so nothing is left open in the user's task between two instances, and an instance that is not read stays in the sockets.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from anyio import CancelScope, current_time

from .. import sop
from ..client import DEFAULT_CALLING
from ..exceptions import LocalProtocolError, NoPresentationContext, StatusError
from ..instances import ReceivedInstance
from ..operations import Iteration
from ..responses import Progress, Response
from ..server import Server
from ..settings import DEFAULT_MAXIMUM_LENGTH, Address, Limits, PeerProfile, Timeouts, UserIdentity, validate_ae_title
from .background import Hosted, spawn
from .inventory import Inventory
from .ledger import Ledger
from .query import Model, Query, find_models, retrieve_models
from .reception import exclusive_services
from .routes import ByGet, ByMove, Connector, Route, UnsuitedError, close_now, first_parts, release

if TYPE_CHECKING:
    import ssl as _ssl
    from typing import Self

    from pydicom import Dataset

    from ..association import Association
    from ..services import Services

__all__ = ["Retrieval", "retrieve"]

logger = logging.getLogger("asyncdicom.retrieval")

Via = Literal["get", "move"]

#: Seconds that an embedded server gives its peers to release, once nothing more is expected of them.
_DRAIN = 1.0


class _Receiver:
    """Where the instances of a C-MOVE go.

    :param listen: our AE title, as the peer knows it, and where to listen; or ``None``.
    :param server: a server that is running instead, or ``None``.
    :param destination: what the peer knows it by, if that is not its own AE title.
    """

    def __init__(
        self,
        listen: Address | None,
        server: Server | None,
        destination: str | None,
        ssl: _ssl.SSLContext | None,
        connector: Connector,
    ) -> None:
        own = listen or (server.address if server is not None else None)
        self._listen = listen
        self.server = server
        self._ssl = ssl
        self._connector = connector
        self.destination = destination or ("" if own is None else own.ae_title)

    def __bool__(self) -> bool:
        return self._listen is not None or self.server is not None

    async def open(self) -> tuple[Services, Hosted | None]:
        """Listen, unless a server does already; return its services.

        :raises ConnectError: that address cannot be listened on.
        """
        if self.server is not None:
            return self.server.services, None
        assert self._listen is not None
        services = exclusive_services()
        server = Server(
            services,
            self._listen,
            ssl=self._ssl,
            timeouts=self._connector.timeouts,
            limits=self._connector.limits,
            profiles=lambda _title: self._connector.profile,
            drain=_DRAIN,
        )
        hosted = Hosted(server)
        await hosted.start()
        self.server = server
        return services, hosted


class _Work:
    """A retrieval apart from its iterator, so that it can be ended when that is gone."""

    def __init__(
        self, connector: Connector, query: Query, model: str | None, via: Via | None, receiver: _Receiver, priority: int
    ) -> None:
        self.via = via
        self.model: str | None = None
        self.ledger = Ledger()
        self.inventory = Inventory()
        self.receiver = receiver
        self._connector = connector
        self._query = query
        self._models = retrieve_models(model, query.level)
        self._priority = priority
        self._association: Association | None = None  # before there is a route
        self._proposed: list[str] = []
        self._route: Route | None = None
        self._chosen: Model | None = None
        self._instead: Model | None = None  # for C-MOVE, should C-GET turn out not to work

    @property
    def is_open(self) -> bool:
        """Whether there is anything to end."""
        return self._association is not None or self._route is not None

    @property
    def current(self) -> ReceivedInstance | None:
        """The instance that is with the user."""
        return None if self._route is None else self._route.current

    # What to do.

    async def open(self) -> None:
        """Associate, and choose how to retrieve.

        :raises NoPresentationContext: the peer supports no way that is possible.
        """
        if self.is_open:
            return
        wanted = self.via
        models = self._models
        contexts: dict[str, None] = {}
        for model in (*models, *self._find_models):
            contexts[model.find] = None
        for model in models:
            if wanted != "move":
                contexts[model.get] = None
            if wanted != "get":
                contexts[model.move] = None
        self._proposed = [uid for uid in contexts if uid]
        association = self._association = await self._connector.associate(self._proposed)
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        by_get = next((model for model in models if wanted != "move" and model.get in accepted), None)
        by_move = next((model for model in models if wanted != "get" and model.move in accepted), None)
        if by_get is not None:
            self.via, self._chosen, self.model = "get", by_get, by_get.get
            self._instead = by_move if self.receiver else None
        elif by_move is not None and self.receiver:
            self.via, self._chosen, self.model = "move", by_move, by_move.move
        elif by_move is not None:
            text = "the peer supports C-MOVE alone: give listen= or server= to receive by it"
            raise NoPresentationContext(by_move.move, text)
        else:
            # Raises the reason.
            association.find_context(models[0].move if wanted == "move" or not models[0].get else models[0].get)

    @property
    def _find_models(self) -> tuple[Model, ...]:
        """The models to ask for what is concerned, if that of the retrieval has no C-FIND."""
        return find_models(self._query.level) if any(model.is_flat for model in self._models) else ()

    async def next(self) -> ReceivedInstance | None:
        """Return the next instance; ``None`` at the end."""
        if self._route is None:
            await self.open()
            self._route = await self._start()
        try:
            return await self._route.next()
        except UnsuitedError as exc:
            if self._instead is None:
                raise exc.reason from None
            logger.debug("C-GET does not work, so C-MOVE is tried: %s", exc)
        await self._route.leave()
        self._route = None
        model, self._instead = self._instead, None
        self.via, self._chosen, self.model = "move", model, model.move
        self._proposed = [uid for uid in (model.move, model.find) if uid]
        self._association = await self._connector.associate(self._proposed)
        self._route = await self._start()
        return await self._route.next()

    async def _start(self) -> Route:
        """Ask what is concerned if that has to be known, and prepare the way that was chosen."""
        model, association = self._chosen, self._association
        assert model is not None
        assert association is not None
        each = model.is_flat and not self._query.names_instances
        find = ""
        if each or self.via == "get":
            find = await self._take_inventory(association, model, each=each)
        if self.via == "get":
            await release(self._association)
            self._association = None
            return ByGet(
                self._connector, model, find, self._query, self.inventory, self.ledger, priority=self._priority
            )
        services, hosted = await self.receiver.open()
        association, self._association = self._association or association, None
        return ByMove(
            association,
            self._connector,
            model,
            first_parts(model, self._query, self.inventory, self._connector.profile),
            self.ledger,
            services,
            hosted,
            self.receiver.destination,
            priority=self._priority,
        )

    async def _take_inventory(self, association: Association, model: Model, *, each: bool) -> str:
        """Ask what is concerned, and return the C-FIND class that was used; empty if the peer supports none.

        :param each: every instance has to be known.
        """
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        classes = [candidate.find for candidate in (model, *find_models(self._query.level)) if candidate.find]
        find = next((uid for uid in classes if uid in accepted), "")
        if each and not find:
            association.find_context(classes[0])
        if find:
            await self.inventory.take(association, find, self._query, each=each, renew=self._renew)
        return find

    async def _renew(self, association: Association) -> Association:
        association = self._association = await self._connector.renew(association, self._proposed)
        return association

    # How it ends.

    async def leave(self) -> None:
        """End what is open: C-CANCEL, release, close the server, all bounded; aborted if that does not succeed."""
        timeouts = self._connector.timeouts
        bounds = (timeouts.cancel, timeouts.release, timeouts.cancel, timeouts.abort, _DRAIN)
        seconds = sum(math.inf if bound is None else bound for bound in bounds)
        done = False
        try:
            with CancelScope(shield=True, deadline=current_time() + seconds):
                if self._route is not None:
                    await self._route.leave()
                await release(self._association)
                done = True
        except Exception as exc:
            logger.debug("a retrieval did not end well: %s", exc)
        finally:
            # Also when a second cancellation broke the shield.
            if not done:
                self.abort()
            self._route = self._association = None

    def abort(self) -> None:
        """End what is open at once, without waiting."""
        if self._route is not None:
            self._route.abort()
        close_now(self._association)

    def abandon(self) -> None:
        """End what is open although nobody waits for it: the iterator was dropped."""
        if (instance := self.current) is not None:
            instance.drop()
        if self._route is not None and self._route.hosted is not None:
            self._route.hosted.is_leaving = True
        try:
            spawn(self.leave)
        except RuntimeError:
            # There is no event loop any more.
            with suppress(RuntimeError):
                self.abort()


class Retrieval(Iteration[ReceivedInstance]):
    """A retrieval in progress: an async iterator over instances, made by :func:`retrieve`.

    :ivar truncated: whether instances were left behind by ``limit`` or by leaving early.
    :ivar failure: the response by which it failed as a whole, if it did.
    """

    _verb = "retrieval"

    def __init__(self, work: _Work, *, limit: int | None, check: bool) -> None:
        if limit is not None and limit < 1:
            raise LocalProtocolError(f"limit is {limit}: expected at least 1, or None")
        self._work = work
        self._limit = limit
        self._check = check
        self.truncated = False
        self.failure: Response | None = None

    @property
    def via(self) -> Via | None:
        """How it retrieves: ``"get"`` or ``"move"``; ``None`` before that was chosen."""
        return self._work.via

    @property
    def model(self) -> str | None:
        """The SOP class by which it retrieves; ``None`` before that was chosen."""
        return self._work.model

    @property
    def server(self) -> Server | None:
        """The server that receives by C-MOVE, once there is one."""
        return self._work.receiver.server

    @property
    def progress(self) -> Progress:
        """The sub-operation counters of all requests together, as the peer gave them last.

        Instances that failed and are asked for again count as remaining.
        """
        return self._work.ledger.progress

    @property
    def received(self) -> int:
        """The number of instances that were yielded."""
        return self._work.ledger.received

    @property
    def expected(self) -> int | None:
        """The number of instances that the peer has, if it was asked for each of them."""
        inventory = self._work.inventory
        return len(inventory.places) if inventory.is_complete else None

    @property
    def responses(self) -> tuple[Response, ...]:
        """The final responses, one for each request that was necessary."""
        return tuple(self._work.ledger.responses)

    @property
    def response(self) -> Response | None:
        """The last of :attr:`responses`, if there is one."""
        return self._work.ledger.responses[-1] if self._work.ledger.responses else None

    @property
    def missing_sop_instance_uids(self) -> list[str]:
        """The instances that have not come although they were asked for, as far as they are known."""
        return list(self._work.ledger.missing)

    @property
    def missing(self) -> int:
        """The number of instances that have not come; more than are named if the peer did not say which."""
        return len(self._work.ledger.missing) + self._work.ledger.unnamed

    async def __aenter__(self) -> Self:
        """Associate, and choose how to retrieve; the errors of :func:`asyncdicom.connect` come from here."""
        if self._closed or self._running:
            raise LocalProtocolError("a retrieval is used once; make another one")
        try:
            await self._work.open()
        except BaseException:
            await self._leave()
            raise
        return self

    async def _step(self) -> ReceivedInstance:
        if self._limit is not None and self.received >= self._limit:
            await self._leave()
            raise StopAsyncIteration
        try:
            instance = await self._work.next()
        except StatusError as exc:
            self.failure = exc.response
            await self._work.leave()
            if self._check:
                raise
            raise StopAsyncIteration from None
        if instance is not None:
            return instance
        await self._work.leave()
        if self.failure is None and not self.received:
            self.failure = next((response for response in self.responses if response.status.is_failure), None)
            if self._check and self.failure is not None:
                raise StatusError(self.failure.status, self.failure.error_comment, self.failure)
        raise StopAsyncIteration

    def _failed(self, exc: BaseException) -> None:
        if (instance := self._work.current) is not None:
            instance.fail(exc)

    async def _leave(self) -> None:
        self._closed = True
        if self._work.is_open:
            self.truncated = True
            await self._work.leave()

    def __del__(self) -> None:
        work = getattr(self, "_work", None)
        if work is not None and work.is_open:
            work.abandon()


def retrieve(
    address: str | Address,
    query: Dataset | Mapping[str, object] | None = None,
    model: str | None = None,
    *,
    level: str | None = None,
    via: Via | None = None,
    limit: int | None = None,
    priority: int = 0,
    check: bool = True,
    listen: str | Address | None = None,
    listen_ssl: _ssl.SSLContext | None = None,
    server: Server | None = None,
    destination: str | None = None,
    calling: str = DEFAULT_CALLING,
    ssl: _ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    user_identity: UserIdentity | None = None,
    async_operations: tuple[int, int] = (1, 1),
    maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
    extended_negotiation: Mapping[str, bytes] | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    strict_roles: bool = False,
    profile: PeerProfile | None = None,
    **keys: object,
) -> Retrieval:
    """Retrieve instances from a peer: iterate over them, as they come.

    ``async for instance in asyncdicom.retrieve("ARCHIVE@host:104", StudyInstanceUID=uid)``, or ``async with`` the same
    ``as instances`` to leave early at a known time and to read the counters. It makes the associations that it needs and
    ends them. What supports both is retrieved by C-GET (PS3.4 C.4.3), else by C-MOVE (PS3.4 C.4.2) to a storage SCP of ours,
    if the peer knows one.

    By C-GET the peer is asked by C-FIND which SOP classes are concerned; if it does not answer, the common ones are
    proposed. Each is proposed once for the native transfer syntaxes and once for each compressed one, as many as fit into
    an association; what the peer could not send is asked for again on another one, with contexts that were not yet
    proposed, until all is there or nothing new is left to propose.

    :param address: the peer: ``"AET@host:port"`` or an :class:`asyncdicom.Address`.
    :param query: the identifier: a data set, or a mapping of keywords to values. Lists of UIDs may be of any length.
    :param model: a SOP class of the information model; a C-GET or C-MOVE class also says how to retrieve. Without it
        Study Root is preferred. The Composite Instance Root and Without Bulk Data models know the level IMAGE only: with
        any other level the instances are found by C-FIND, and asked for by their UIDs.
    :param level: the Query/Retrieve Level; by default that of the identifier, or of the lowest unique key that has a value.
    :param via: ``"get"`` or ``"move"``, to insist on one.
    :param limit: yield at most so many instances, then cancel.
    :param priority: 0 medium, 1 high, 2 low.
    :param check: raise for a failure status; otherwise the iteration just ends, and ``failure`` says why.
    :param listen: for C-MOVE: the AE title by which the peer knows us as a destination, and where to listen,
        ``"AET@host:port"``. The server runs from the first instance to the end.
    :param listen_ssl: an :class:`ssl.SSLContext` for TLS on it.
    :param server: for C-MOVE: a running :class:`asyncdicom.Server` to receive by instead. It goes on serving others;
        sub-operations of this retrieval are told from theirs by Move Originator AE Title and Message ID, or, where these
        are missing, by who sends them.
    :param destination: the AE title by which the peer knows that server, if it is not the server's own.
    :param calling: our AE title.
    :param ssl: an :class:`ssl.SSLContext` for TLS towards the peer.
    :param timeouts: deadlines; ``retrieve`` is the longest silence, in seconds.
    :param limits: bounds; ``contexts`` is the most that an association proposes.
    :param profile: what the peer cannot do, or does not take; it applies to what it sends us by C-MOVE, too, unless that goes
        to ``server``.
    :param keys: more keys of the identifier, by keyword.
    :returns: a :class:`Retrieval`; its other arguments are those of :func:`asyncdicom.connect`. It yields
        :class:`~asyncdicom.Instance` objects, each valid until the next one is asked for: only then, or when the iteration
        is left, its sub-operation is answered.
    :raises ValueError: an address or AE title is not valid.
    :raises LocalProtocolError: the query or another argument makes no sense; nothing was sent.

    The iteration raises :class:`~asyncdicom.StatusError` if nothing came but a failure, or if a request failed as a whole;
    if some instances came and others did not, it ends normally, and ``missing`` tells how many, ``missing_sop_instance_uids``
    which. It raises :class:`~asyncdicom.NoPresentationContext` if the peer supports no way to retrieve, and what
    :func:`asyncdicom.connect` and :meth:`asyncdicom.Association.get` raise.

    Leaving early, by ``aclose()``, ``limit``, an exception in the ``async with``, or by cancelling the task, sends C-CANCEL,
    drains, releases the association and closes the server, bounded by ``Timeouts.cancel`` and ``Timeouts.release``; cancelled
    once more meanwhile, all is aborted at once. An iterator that is dropped does the same in the background.
    """
    timeouts = timeouts or Timeouts()
    limits = limits or Limits()
    profile = profile or PeerProfile()
    via = _way(model, via)
    if listen is not None and server is not None:
        raise LocalProtocolError("listen= and server= exclude each other")
    if listen is None and server is None:
        if via == "move":
            raise LocalProtocolError("to retrieve by C-MOVE give listen= or server=")
        if destination is not None:
            raise LocalProtocolError(
                "destination= names a listen= or server=; to move elsewhere use Association.move()"
            )
    if server is not None and not server.addresses:
        raise LocalProtocolError("the server is not running: enter it first")
    connector = Connector(
        address=Address.parse(address),
        calling=validate_ae_title(calling),
        timeouts=timeouts,
        limits=limits,
        profile=profile,
        options={
            "ssl": ssl,
            "server_hostname": server_hostname,
            "user_identity": user_identity,
            "async_operations": async_operations,
            "maximum_length": maximum_length,
            "extended_negotiation": extended_negotiation,
            "strict_roles": strict_roles,
        },
    )
    receiver = _Receiver(
        None if listen is None else Address.parse(listen),
        server,
        None if destination is None else validate_ae_title(destination),
        listen_ssl,
        connector,
    )
    return Retrieval(
        _Work(connector, Query(query, keys, level, profile), model, via, receiver, priority), limit=limit, check=check
    )


def _way(model: str | None, via: Via | None) -> Via | None:
    """Return what the model and ``via`` say together.

    :raises LocalProtocolError: they contradict each other.
    """
    if via not in (None, "get", "move"):
        raise LocalProtocolError(f"via is {via!r}: expected 'get', 'move' or None")
    implied: Via | None = "get" if model in sop.GET else "move" if model in sop.MOVE else None
    if implied is not None and via not in (None, implied):
        raise LocalProtocolError(f"the model is a C-{implied.upper()} class, but via is {via!r}")
    return implied or via
