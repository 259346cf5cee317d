"""The SCU's side of C-STORE: what is to be sent is made ready, and many are sent one behind the other.

Theory of operation
-------------------
:class:`StoreMany` keeps the asynchronous operations window full and one instance more at hand: opened, its context chosen,
and laid out in the PDUs of its message if it is small, while the peer is busy with those before it. All of that happens in the
task that iterates, in ``__anext__``: no task of ours is left running while the body of the loop runs. What cannot be sent is
an outcome like any other, so that one bad file does not keep the others from being sent.

Whatever ends the sending early, be it the end of the association or a mistake of the caller, is raised behind the outcomes of
what was sent before, as far as they came or are still to come.
"""

from __future__ import annotations

import os
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from . import disk, threads
from .exceptions import DataSetError, LocalProtocolError, NoPresentationContext, OperationTimeout, StatusError
from .identifiers import is_data_set
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
        source = SourceOutgoing(prepared.source, self._folder)
        size = source.size
        if prepared.buffers is not None or size is None or size > _AHEAD:
            return
        context_id = self.context.context_id
        prefix = layout.command(context_id, encode(self.message, has_data_set=True))
        buffers: list[memoryview] = []
        for buffer, gaps in layout.places(context_id, size, prefix=prefix):
            await source.fill_gaps(gaps)
            buffers.append(buffer)
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
    :ivar error: ``None`` if it is stored, be it with a warning; a :class:`asyncdicom.StatusError` if the peer answered
        otherwise; else why it could not be sent: :class:`asyncdicom.DataSetError`, :class:`OSError`, or
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

    @property
    def has_outcome(self) -> bool:
        """Whether it is known what became of it."""
        return self.error is not None or (self.exchange is not None and bool(self.exchange.items))

    def close(self) -> None:
        if self.ready is not None:
            self.ready.close()
            self.ready = None


class StoreMany(Iteration[Stored]):
    """Instances on their way, one behind the other: yields what became of each, in the order in which they were given.

    When the association is lost, the outcomes that are known come first, without those of the instances between them that
    have none; then the reason is raised. A file that breaks off when a part of it was sent takes the association with it.

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
        if isinstance(what, str | bytes | os.PathLike | Instance) or is_data_set(what):
            # Several of them could be iterated over, and something quite different would come out.
            raise TypeError(f"{type(what).__name__} is one instance: expected an iterable of instances")
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
        association = self._association
        try:
            await self._fill_window()
            parcel = self._under_way[0] if self._under_way else None
            if parcel is not None and not parcel.has_outcome:
                assert parcel.exchange is not None
                await association._wait_exchange(parcel.exchange)
        except Exception:
            # What was answered before the end is not lost with the association.
            parcel = next((parcel for parcel in self._parcels() if parcel.has_outcome), None)
            if parcel is None or not association.ended:
                raise
        if parcel is None:
            raise self._failure or StopAsyncIteration
        if parcel.error is not None:
            await checkpoint()  # any number of these may come without anything else that waits
        return self._deliver(parcel)

    def _deliver(self, parcel: _Parcel) -> Stored:
        """Make the outcome of an instance that has one."""
        if parcel is self._next:
            self._next = None
        else:
            self._under_way.remove(parcel)
        if parcel.error is not None:
            # Whoever keeps the error shall not keep us, what we have open, and what was read.
            traceback.clear_frames(parcel.error.__traceback__)
            return Stored(what=parcel.what, error=parcel.error)
        assert parcel.exchange is not None
        response = self._association._take(parcel.exchange)
        assert isinstance(response, Response)
        status = response.status
        good = status.is_success or status.is_warning
        error = None if good else StatusError(status, response.error_comment, response)
        return Stored(what=parcel.what, response=response, error=error)

    async def _fill_window(self) -> None:
        """Send until the window is full, and have the next one ready while the peer works."""
        under_way = self._under_way
        while self._may_send() and (parcel := self._next or await self._take_next()) is not None:
            if parcel.error is None:
                try:
                    await self._send(parcel)
                except Exception as exc:
                    if self._association.ended:
                        raise
                    self._failure = exc
                    break
            self._next = None
            under_way.append(parcel)
        idle = under_way and not under_way[0].has_outcome and not self._association.ended
        if idle and self._next is None:
            await self._take_next()

    def _may_send(self) -> bool:
        """Tell whether to send one more before an outcome is waited for."""
        if self._failure is not None:
            return False
        under_way = self._under_way
        if not under_way:
            return True  # be it to wait for others, or to learn that the association has ended
        association = self._association
        return len(under_way) < (association.async_operations[0] or _UNLIMITED) and association.may_begin

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
                self._failure = exc
                return None
            parcel.error = exc
        return parcel

    async def _send(self, parcel: _Parcel) -> None:
        association = self._association
        association.check()
        ready = parcel.ready
        assert ready is not None
        exchange = await association._open_exchange(ready.context, CStoreRSP, parcel.message_id)
        exchange.operation = weakref.ref(self)
        parcel.exchange = exchange
        try:
            await association._send_request(exchange, ready.message, ready.data)
        except Exception as exc:
            cannot_be_read = isinstance(exc, DataSetError | OSError) and not isinstance(exc, OperationTimeout)
            if cannot_be_read or not association.ended:
                association._forget(exchange)
                parcel.exchange = None
            if not cannot_be_read:
                raise
            parcel.error = exc
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
