"""The SCU's side of C-STORE: what is to be sent is made ready, and many are sent one behind the other.

Theory of operation
-------------------
:class:`StoreMany` keeps the asynchronous operations window full and one instance more at hand: opened, its context chosen,
and laid out in the PDUs of its message if it is small, while the peer is busy with those before it. All of that happens in the
task that iterates, in ``__anext__``: no task of ours is left running while the body of the loop runs. What cannot be sent is
an outcome like any other, so that one bad file does not keep the others from being sent.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from . import disk, threads
from .exceptions import DataSetError, LocalProtocolError, NoPresentationContext, OperationTimeout, StatusError
from .instances import Instance, PreparedInstance, ReceivedData, SourceOutgoing, prepare
from .operations import Exchange, Iteration
from .protocol.commands import CStoreRQ, CStoreRSP
from .protocol.negotiation import AcceptedContext
from .protocol.recurring import encode
from .protocol.values import frozen
from .responses import Response

if TYPE_CHECKING:
    from typing import TypeAlias

    from pydicom import Dataset

    from .association import Association
    from .protocol.framing import Layout
    from .settings import Limits

    #: What can be stored, if it is not coming in itself.
    Storable: TypeAlias = str | os.PathLike[str] | Dataset | Instance

__all__ = ["NO_CONTEXT", "StoreMany", "StoreOptions", "Stored", "make_ready"]

#: Instances that are under way at most where the window is not limited.
_UNLIMITED = 64

#: Bytes of a data set that is read before it is its turn.
_AHEAD = 1 << 20

#: Stands for the context of an exchange that is opened before it is known what is sent by it.
NO_CONTEXT = AcceptedContext(
    context_id=0, abstract_syntax="", transfer_syntax="", requestor_is_scu=True, requestor_is_scp=False
)


@frozen
class StoreOptions:
    """How instances are stored; see :meth:`asyncdicom.Association.store`."""

    priority: int = 0
    convert: bool = True
    bulk_data: bool = True
    move_originator: tuple[str, int] | None = None

    def request(self, message_id: int, sop_class_uid: str, sop_instance_uid: str) -> CStoreRQ:
        """Return the command set of a request."""
        originator = self.move_originator
        return CStoreRQ(
            message_id=message_id,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            priority=self.priority,
            move_originator_ae_title=originator[0] if originator else None,
            move_originator_message_id=originator[1] if originator else None,
        )


class _Ready:
    """An instance that is ready to be sent.

    :ivar context: the context to send it on.
    :ivar message: its command set.
    """

    __slots__ = ("_folder", "_prepared", "context", "message")

    def __init__(self, prepared: PreparedInstance, folder: str | None, message: CStoreRQ) -> None:
        self._prepared = prepared
        self._folder = folder
        self.context = prepared.context
        self.message = message

    @property
    def data(self) -> list[memoryview] | SourceOutgoing:
        """The whole message, laid out, or its data set."""
        prepared = self._prepared
        return prepared.buffers or SourceOutgoing(prepared.source, self._folder)

    async def read_ahead(self, layout: Layout) -> None:
        """Lay out the message also if it is not that small, which takes several reads.

        :raises OSError: the file cannot be read, or has become shorter.
        """
        prepared = self._prepared
        left = prepared.source.size
        if prepared.buffers is not None or left is None or left > _AHEAD:
            return
        source = SourceOutgoing(prepared.source, self._folder)
        context_id = self.context.context_id
        prefix = layout.command(context_id, encode(self.message, has_data_set=True))
        buffers: list[memoryview] = []
        while left := source.size:
            take = layout.portion(left)
            buffer, gaps = layout.place(context_id, take, last=take == left, prefix=prefix)
            await source.fill_gaps(gaps)
            buffers.append(buffer)
            prefix = b""
        prepared.buffers = buffers

    def close(self) -> None:
        """Close its file."""
        self._prepared.close()


async def make_ready(association: Association, what: Storable, message_id: int, options: StoreOptions) -> _Ready:
    """Open an instance, choose its context, and lay out its message if it is small.

    :raises DataSetError: not a DICOM file, or not a storable data set.
    :raises OSError: the file cannot be read.
    :raises NoPresentationContext: its class and transfer syntax were not accepted.
    :raises LocalProtocolError: it is being received, and has no data of its own yet.

    Cancelling it leaves nothing open.
    """
    if isinstance(what, ReceivedData):
        raise LocalProtocolError("an instance that is being received is sent on by store(), as it comes")
    message: CStoreRQ | None = None

    def compose(prepared: PreparedInstance) -> None:
        nonlocal message
        message = options.request(message_id, prepared.sop_class_uid, prepared.sop_instance_uid)
        prepared.lay_out(association.core.layout, message)

    choose = partial(association._choose_store, convert=options.convert)
    ready = partial(prepare, what, choose, bulk_data=options.bulk_data, compose=compose)
    prepared, folder = await _prepared(what, ready, association.limits)
    assert message is not None
    return _Ready(prepared, folder, message)


async def _prepared(
    what: Storable,
    ready: Callable[..., PreparedInstance],
    limits: Limits,
) -> tuple[PreparedInstance, str | None]:
    """Prepare an instance where that blocks nobody; return it, and the folder of its file."""
    path = what if isinstance(what, str | os.PathLike) else what.path if isinstance(what, Instance) else None
    folder = None if path is None or not limits.inline_file_io else disk.folder_of(path)
    if folder is not None:
        return await disk.run(folder, partial(ready, wait=False), ready, PreparedInstance.close), folder
    if isinstance(what, Instance) and what.in_memory:
        return ready(), None
    return await threads.run(ready, PreparedInstance.close), None


@frozen
class Stored:
    """What became of one instance of :meth:`asyncdicom.Association.store_many`.

    :ivar what: the instance, as it was given.
    :ivar response: what the peer answered, or ``None`` if it could not be asked.
    :ivar error: ``None`` if it is stored, be it with a warning; a :class:`asyncdicom.StatusError` if the peer answered a
        failure; else why it could not be sent: :class:`asyncdicom.DataSetError`, :class:`OSError`, or
        :class:`asyncdicom.NoPresentationContext`.
    """

    what: Storable
    response: Response | None = None
    error: Exception | None = None


class _Parcel:
    """An instance from when it was taken until its outcome is delivered."""

    __slots__ = ("error", "exchange", "message_id", "ready", "what")

    def __init__(self, what: Storable, message_id: int) -> None:
        self.what = what
        self.message_id = message_id
        self.ready: _Ready | None = None
        self.exchange: Exchange | None = None
        self.error: Exception | None = None

    @property
    def was_sent(self) -> bool:
        """Whether the first byte of its request went out."""
        return self.exchange is not None and self.exchange.sent

    def close(self) -> None:
        if self.ready is not None:
            self.ready.close()
            self.ready = None


class StoreMany(Iteration[Stored]):
    """Instances on their way, one behind the other: yields what became of each, in the order in which they were given.

    A file that breaks off when a part of it was sent takes the association with it; its outcome comes before that of others.

    Leaving early, by ``break``, ``aclose()`` or cancelling the task in ``__anext__``, sends no more. The association stays
    intact, unless the message that was just being sent could not be finished; responses that are still to come are
    discarded. :attr:`pending` and :attr:`unsent` tell what has no outcome.
    """

    _verb = "C-STORE"

    def __init__(self, association: Association, what: Iterable[Storable], options: StoreOptions) -> None:
        self._association = association
        self._options = options
        self._next: _Parcel | None = None
        self._under_way: deque[_Parcel] = deque()
        self._failure: Exception | None = None
        self._source: Iterator[Storable] = iter(what)

    @property
    def pending(self) -> list[Storable]:
        """What was sent and has no outcome yet, in order: after an early end nobody knows whether it was stored."""
        return [parcel.what for parcel in self._parcels() if parcel.was_sent]

    @property
    def unsent(self) -> list[Storable]:
        """What was taken from the iterable and was not sent, in order; at most one, and what cannot be sent."""
        return [parcel.what for parcel in self._parcels() if not parcel.was_sent]

    def _parcels(self) -> list[_Parcel]:
        return [*self._under_way, *([self._next] if self._next else ())]

    async def _step(self) -> Stored:
        under_way = self._under_way
        await self._fill_window()
        if not under_way:
            raise self._failure or StopAsyncIteration
        parcel = under_way[0]
        exchange = parcel.exchange
        if exchange is None:
            under_way.popleft()
            return Stored(what=parcel.what, error=parcel.error)
        association = self._association
        await association._wait_exchange(exchange)
        response = association._take(exchange)
        assert isinstance(response, Response)
        under_way.popleft()
        status = response.status
        error = StatusError(status, response.error_comment, response) if status.is_failure else None
        return Stored(what=parcel.what, response=response, error=error)

    async def _fill_window(self) -> None:
        """Send until the window is full, and have the next one ready while the peer works."""
        under_way = self._under_way
        window = self._association.async_operations[0] or _UNLIMITED
        while len(under_way) < window and (parcel := self._next or await self._take_next()) is not None:
            if parcel.error is None:
                await self._send(parcel)
            self._next = None
            if parcel.error is not None and self._association.ended:
                # Its file broke off, and the association with it: no response to the others will come before this.
                under_way.appendleft(parcel)
                return
            under_way.append(parcel)
        if self._next is None and under_way and (first := under_way[0].exchange) is not None and not first.items:
            await self._take_next()

    async def _take_next(self) -> _Parcel | None:
        """Take the next instance and make it ready; ``None`` if there are no more.

        What the iterable raises, or gives that is no instance, is kept until the outcomes of what was sent are delivered.
        """
        if self._failure is not None:
            return None
        association = self._association
        try:
            what = next(self._source)
        except StopIteration:
            return None
        except Exception as exc:
            self._failure = exc
            return None
        parcel = self._next = _Parcel(what, association._reserve_message_id())
        try:
            parcel.ready = await make_ready(association, what, parcel.message_id, self._options)
            if self._under_way:
                await parcel.ready.read_ahead(association.core.layout)
        except Exception as exc:
            self._let_go(parcel)
            if not isinstance(exc, DataSetError | NoPresentationContext | OSError):
                self._failure, self._next = exc, None
                return None
            parcel.error = exc
        return parcel

    async def _send(self, parcel: _Parcel) -> None:
        association = self._association
        ready = parcel.ready
        assert ready is not None
        exchange = await association._open_exchange(ready.context, CStoreRSP, parcel.message_id)
        exchange.operation = weakref.ref(self)
        parcel.exchange = exchange
        try:
            await association._send_request(exchange, ready.message, ready.data)
        except OperationTimeout:
            raise
        except (DataSetError, OSError) as exc:
            association._forget(exchange)
            parcel.exchange, parcel.error = None, exc
        finally:
            parcel.close()

    def _let_go(self, parcel: _Parcel) -> None:
        """Close what was made ready and is not sent."""
        parcel.close()
        self._association._return_message_id(parcel.message_id)

    async def _leave(self) -> None:
        self._closed = True
        if self._next is not None:
            self._let_go(self._next)
        for exchange in self._exchanges():
            self._association._forget(exchange)

    def __del__(self) -> None:
        if not self._closed:
            if self._next is not None:
                self._let_go(self._next)
            for exchange in self._exchanges():
                self._association._abandon(exchange)

    def _exchanges(self) -> list[Exchange]:
        return [parcel.exchange for parcel in self._parcels() if parcel.exchange is not None]
