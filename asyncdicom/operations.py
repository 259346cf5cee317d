"""The SCU's side of C-FIND, C-GET and C-MOVE: iterators whose end is a C-CANCEL when it comes early.

Theory of operation
-------------------
:class:`Find`, :class:`Get` and :class:`Move` are objects, not generator functions, because a generator that is abandoned
by ``break`` cannot reliably send a C-CANCEL. Each is at once an async iterator, a
:class:`collections.abc.AsyncGenerator` and an async context manager. The request goes out when the first item is asked
for. Leaving early, by ``aclose()``, by an exception in the ``async with``, or by cancelling the task in ``__anext__``,
sends C-CANCEL and drains what still comes, bounded by ``Timeouts.cancel``; if that does not succeed, or a second
cancellation arrives meanwhile, the association is aborted. ``__del__`` can only set a flag: the association's next verb
then cancels and drains.

An identifier that does not fit into one request (:mod:`.fitting`) takes several, one after the other, which are one
operation to whoever iterates: what comes is merged, and the final response is the worst of theirs.
"""

from __future__ import annotations

import abc
import math
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from anyio import CancelScope, current_time

from . import dataset as _dataset
from . import sop
from .connection import current_task
from .exceptions import LocalProtocolError, RemoteProtocolError, StatusError
from .incoming import Box, IncomingDataSet
from .instances import ReceivedInstance
from .protocol.commands import CStoreRQ, Message
from .protocol.negotiation import AcceptedContext
from .responses import Progress, Response, add, merge
from .status import (
    CANCEL,
    INVALID_OBJECT_INSTANCE,
    OUT_OF_RESOURCES,
    OUT_OF_RESOURCES_SUBOPERATIONS,
    SUCCESS,
    Status,
)

if TYPE_CHECKING:
    from typing import Self

    from pydicom import Dataset

    from .association import Association

__all__ = ["Exchange", "Find", "Get", "Move", "Operation", "Start", "SubOperation"]

T = TypeVar("T")


class Start(NamedTuple):
    """What begins an operation: its context, its command set for a given Message ID, and the identifiers to ask by, in turn."""

    context: AcceptedContext
    message: Callable[[int], Message]
    expects: type[Message]
    identifiers: Sequence[Dataset | bytes]


class SubOperation:
    """A C-STORE request that a C-GET brought."""

    __slots__ = ("context", "incoming", "message")

    def __init__(self, context: AcceptedContext, message: CStoreRQ, incoming: IncomingDataSet | None) -> None:
        self.context = context
        self.message = message
        self.incoming = incoming


class Exchange(Box["Response | SubOperation"]):
    """A request of ours that is outstanding, and the box for what answers it."""

    __slots__ = (
        "__weakref__",
        "abandoned",
        "consumer",
        "context",
        "deadline",
        "discard",
        "done",
        "expects",
        "message_id",
        "operation",
        "sent",
        "size",
    )

    def __init__(self, message_id: int, context: AcceptedContext, expects: type[Message]) -> None:
        Box.__init__(self)
        self.message_id = message_id
        self.context = context
        self.expects = expects
        self.sent = False  # the first byte of the request went out
        self.done = False  # the final response was filed
        self.discard = False  # nobody wants the response any more
        self.abandoned = False  # the iterator was dropped
        self.size = 0  # of what waits in the box, in bytes
        self.deadline = math.inf  # when the response is overdue, if nobody waits for it
        self.consumer: object = None  # the task that uses the operation
        self.operation: weakref.ref[Iteration[Any]] | None = None

    def begin(self) -> None:
        """Note that the request is on its way."""
        self.sent = True

    def put(self, item: Response | SubOperation) -> None:
        self.size += _weight(item)
        Box.put(self, item)

    def take(self) -> Response | SubOperation:
        """Return what was filed first."""
        item = self.items.popleft()
        self.size -= _weight(item)
        return item


def _weight(item: Response | SubOperation) -> int:
    """Estimate what an item in a box takes, in bytes."""
    return 500 + len(item.data_set_bytes) if type(item) is Response and item.data_set_bytes else 500


class Iteration(AsyncGenerator[T, None], Generic[T]):
    """An async iterator whose early end has consequences: what operations have in common, whatever they iterate over.

    Subclasses give items by :meth:`_step`, and do by :meth:`_leave` what an early end asks for.
    """

    _verb = "operation"
    _closed = False
    _running = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next item.

        :raises StopAsyncIteration: the operation has ended.
        :raises StatusError: it ended with a failure status.
        :raises AssociationError: the association ended.
        :raises OperationTimeout: nothing came in time; the association is aborted.

        Cancelling it leaves, as :meth:`aclose` does.
        """
        if self._running:
            raise LocalProtocolError(f"the {self._verb} is already being iterated by another task")
        if self._closed:
            raise StopAsyncIteration
        self._running = True
        try:
            item = await self._step()
        except StopAsyncIteration:
            self._closed = True
            raise
        except BaseException:
            # Failed, or cancelled: by a scope of anyio or trio, or natively by asyncio.
            await self._leave()
            raise
        finally:
            self._running = False
        return item

    @abc.abstractmethod
    async def _step(self) -> T:
        """Return the next item; raise ``StopAsyncIteration`` at the end."""

    @abc.abstractmethod
    async def _leave(self) -> None:
        """End early, bounded in time; set ``_closed`` before anything is awaited."""

    def _failed(self, exc: BaseException) -> None:
        """Note that the body of the loop raised."""

    async def aclose(self) -> None:
        """Leave early, if it has not ended: a query or retrieval sends C-CANCEL and drains what still comes."""
        if not self._closed:
            if self._running:
                raise LocalProtocolError(f"the {self._verb} is being iterated by another task")
            await self._leave()

    async def asend(self, value: None) -> T:
        """Return the next item; ``value`` is ignored."""
        return await self.__anext__()

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> T:
        """Leave, and raise the exception."""
        exc = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        self._failed(exc)
        await self.aclose()
        raise exc

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            self._failed(exc)
        await self.aclose()


class Operation(Iteration[T]):
    """An operation with several responses, in progress.

    :ivar response: the final :class:`Response`, once it has come. If there were several requests, it is the worst of theirs,
        with the counters and the failed instances of all of them.
    :ivar truncated: whether results were left behind by ``limit`` or by leaving early.
    """

    def __init__(
        self,
        association: Association,
        start: Callable[[], Start],
        *,
        limit: int | None = None,
        check: bool = True,
    ) -> None:
        if limit is not None and limit < 1:
            raise LocalProtocolError(f"limit is {limit}: expected at least 1, or None")
        self._association = association
        self._start = start
        self._limit = limit
        self._check = check
        self._count = 0
        self._exchange: Exchange | None = None
        self._asked: Start | None = None
        self._left: deque[Dataset | bytes] = deque()  # what is still to be asked for
        self._finals: list[Response] = []
        self._we_cancelled = False
        self.response: Response | None = None
        self.truncated = False

    @property
    def responses(self) -> tuple[Response, ...]:
        """The final responses, one for each request that was necessary."""
        return tuple(self._finals)

    async def _step(self) -> T:
        if self._limit is not None and self._count >= self._limit:
            await self._leave()
            raise StopAsyncIteration
        exchange = self._exchange or await self._begin()
        exchange.consumer = current_task()
        association = self._association
        await self._advance()
        while True:
            await association._wait_exchange(exchange)
            entry = association._take(exchange)
            if isinstance(entry, SubOperation):
                found = await self._sub_operation(entry)
                if found is not None:
                    return self._deliver(found)
                continue
            if not entry.status.is_pending:
                self._conclude(entry)
                if self._left and _may_go_on(entry.status):
                    exchange = await self._begin()
                    continue
                self.truncated = self.truncated or bool(self._left)
                self._left.clear()
                self.response = merge(self._finals)
                self._finish(self.response)
            found = self._pending(entry)
            if found is not None:
                return self._deliver(found)

    def _deliver(self, item: T) -> T:
        self._count += 1
        return item

    def _finish(self, response: Response) -> None:
        """End with the final response."""
        status = response.status
        if self._check and status.is_failure:
            raise StatusError(status, response.error_comment, response)
        if self._check and status == CANCEL and not self._we_cancelled:
            raise StatusError(status, response.error_comment, response)
        raise StopAsyncIteration

    def _conclude(self, response: Response) -> None:
        """Note the final response of a request."""
        self._finals.append(response)

    async def _begin(self) -> Exchange:
        """Send the next request."""
        if self._asked is None:
            self._asked = self._start()
            self._left.extend(self._asked.identifiers)
        start = self._asked
        association = self._association
        identifier = self._left.popleft()
        if not isinstance(identifier, bytes):
            identifier = _dataset.encode_data_set(identifier, start.context.transfer_syntax)
        exchange = await association._open_exchange(start.context, start.expects)
        exchange.operation = weakref.ref(self)
        exchange.consumer = current_task()
        self._exchange = exchange
        await association._send_request(exchange, start.message(exchange.message_id), identifier)
        return exchange

    async def _advance(self) -> None:
        """Do what is due before the next item is waited for."""

    @abc.abstractmethod
    def _pending(self, response: Response) -> T | None:
        """Return the item that a pending response makes, if it makes one."""

    async def _sub_operation(self, request: SubOperation) -> T | None:
        raise RemoteProtocolError("the peer sent a C-STORE request that belongs to no C-GET", 0)

    # Leaving.

    async def _leave(self) -> None:
        """Send C-CANCEL and drain, unless the operation has ended; bounded."""
        self._closed = True
        self.truncated = self.truncated or bool(self._left)
        self._left.clear()
        if self._finals and self.response is None:
            self.response = merge(self._finals)
        exchange = self._exchange
        association = self._association
        if exchange is None or association.ended:
            return
        if not exchange.sent:
            association._forget(exchange)
            return
        self._we_cancelled = True
        seconds = association.timeouts.cancel
        drained = False
        try:
            with CancelScope(shield=True, deadline=math.inf if seconds is None else current_time() + seconds):
                await self._settle()
                if not exchange.done and association.profile.cancel:
                    await association._send_cancel(exchange)
                await self._drain(exchange)
                drained = True
        except Exception:
            # The association ended meanwhile, or a late item was wrong: whoever leaves is not interested.
            drained = association.ended
        finally:
            if not drained and not association.ended:
                # The peer ignores C-CANCEL, or a second cancellation broke the shield.
                association._abort_operation(self._verb)

    async def _settle(self) -> None:
        """Finish what was delivered last."""

    async def _drain(self, exchange: Exchange) -> None:
        association = self._association
        while True:
            if not exchange.items:
                if exchange.done:
                    return
                await association.wait(exchange, None, "cancel")
            entry = association._take(exchange)
            if isinstance(entry, SubOperation):
                if entry.incoming is not None:
                    await entry.incoming.discard()
                await association._answer_store(entry, OUT_OF_RESOURCES)
                self.truncated = True
            elif entry.status.is_pending:
                self.truncated = True
            else:
                self._conclude(entry)
                self.response = merge(self._finals)
                self.truncated = self.truncated or entry.status == CANCEL
                return

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)
        if exchange is not None and not self._closed:
            self._association._abandon(exchange)
            self._on_drop()

    def _on_drop(self) -> None:
        """Let go of what was delivered last, without waiting."""


def _may_go_on(status: Status) -> bool:
    """Tell whether the next request is worth sending: not after a failure, unless it is that of all sub-operations."""
    return not (status.is_failure or status == CANCEL) or status == OUT_OF_RESOURCES_SUBOPERATIONS


class Find(Operation["Dataset"]):
    """A C-FIND in progress (PS3.7 9.1.2): yields a data set per match."""

    _verb = "C-FIND"

    def _pending(self, response: Response) -> Dataset | None:
        # A pending response without an identifier is not a match (tolerated).
        return response.data_set


class _Retrieving(Operation[T]):
    """What C-GET and C-MOVE have in common: counters.

    :ivar progress: the counters as of the last response; if there are several requests, those of all of them together.
    """

    progress = Progress()
    _before = Progress()  # of the requests that have ended
    _ahead = 0  # instances that are named in requests which are still to be sent

    async def _begin(self) -> Exchange:
        exchange = await super()._begin()
        if not self._finals:
            self._ahead = sum(map(_named_instances, self._left))
        return exchange

    def _count_up(self, response: Response) -> None:
        """Note the counters of a response."""
        seen = response.progress
        together = add((self._before, seen))
        remaining = None if seen.remaining is None else seen.remaining + self._ahead
        self.progress = replace(together, remaining=remaining)

    def _conclude(self, response: Response) -> None:
        super()._conclude(response)
        self._count_up(response)
        self._before = replace(self.progress, remaining=None)
        if self._left:
            self._ahead -= _named_instances(self._left[0])

    def _finish(self, response: Response) -> None:
        self.progress = response.progress
        super()._finish(response)


def _named_instances(identifier: Dataset | bytes) -> int:
    """Return how many instances an identifier names."""
    value: Any = None if isinstance(identifier, bytes) else identifier.get("SOPInstanceUID")
    return 0 if not value else 1 if isinstance(value, str) else len(value)


class Move(_Retrieving[Progress]):
    """A C-MOVE in progress (PS3.7 9.1.4): yields the :class:`Progress` of each pending response.

    :ivar progress: the counters as of the last response.
    """

    _verb = "C-MOVE"

    def _pending(self, response: Response) -> Progress | None:
        self._count_up(response)
        return self.progress


class Get(_Retrieving[ReceivedInstance]):
    """A C-GET in progress (PS3.7 9.1.3): yields an :class:`~asyncdicom.Instance` per sub-operation.

    The C-STORE response of an instance is sent when the next one is asked for or the loop is left.

    :ivar progress: the counters as of the last response.
    """

    _verb = "C-GET"

    def __init__(
        self,
        association: Association,
        start: Callable[[], Start],
        *,
        limit: int | None = None,
        check: bool = True,
    ) -> None:
        super().__init__(association, start, limit=limit, check=check)
        self._current: tuple[SubOperation, ReceivedInstance] | None = None

    def _pending(self, response: Response) -> None:
        self._count_up(response)

    async def _advance(self) -> None:
        await self._settle()

    async def _sub_operation(self, request: SubOperation) -> ReceivedInstance | None:
        association = self._association
        assert self._exchange is not None
        uid = request.message.affected_sop_instance_uid or ""
        status = SUCCESS
        if not _dataset.safe_uid(uid):
            status = INVALID_OBJECT_INSTANCE
        elif association.strict_roles and not request.context.requestor_is_scp:
            status = Status(0x0122)
        if status:
            if request.incoming is not None:
                await request.incoming.discard()
            await association._answer_store(request, status)
            return None
        instance = ReceivedInstance(
            request.incoming,
            request.message.affected_sop_class_uid or request.context.abstract_syntax,
            uid,
            request.context.transfer_syntax,
            source_ae_title=association.peer.ae_title,
            bulk_data_removed=self._exchange.context.abstract_syntax == sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
        )
        self._current = (request, instance)
        return instance

    async def _settle(self) -> None:
        current = self._current
        if current is None:
            return
        request, instance = current
        instance.expire()
        if request.incoming is not None:
            await request.incoming.discard()
        self._current = None
        await self._association._answer_store(request, instance.verdict)

    def _failed(self, exc: BaseException) -> None:
        if self._current is not None:
            self._current[1].fail(exc)

    def _on_drop(self) -> None:
        if self._current is not None:
            request, instance = self._current
            instance.drop()
            self._association._orphan(request, instance)
