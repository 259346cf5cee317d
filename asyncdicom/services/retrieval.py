"""How C-GET and C-MOVE run their sub-operations: counters, pending responses, destinations, the final status."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope, current_time

from .. import dataset as _dataset
from .. import sop
from ..client import associate
from ..exceptions import (
    AssociationAborted,
    AssociationError,
    ConnectError,
    DataSetError,
    DicomNetworkError,
    NoPresentationContext,
)
from ..identifiers import encode_failed_list, is_data_set
from ..instances import Instance
from ..protocol import negotiation
from ..protocol.negotiation import PresentationContext
from ..requests import RetrieveRequest
from ..settings import DEFAULT_MAXIMUM_LENGTH, Address, PeerProfile
from ..status import (
    CANCEL,
    MOVE_DESTINATION_UNKNOWN,
    OUT_OF_RESOURCES_SUBOPERATIONS,
    PENDING,
    SUBOPERATIONS_WARNING,
    SUCCESS,
    Status,
)
from ..transport import open_tcp
from .registry import Environment, call, resolve_address
from .results import Outcome, outcome, printable

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from ..association import Association
    from .performers import _Handled

__all__ = ["retrieve"]

logger = logging.getLogger("asyncdicom.services")

_MAXIMUM = 0xFFFF
#: Most sub-operations at once, whatever the window allows.
_MOST = 16
#: Seconds without a response after which a pending one tells that we are alive.
_KEEP_ALIVE = 5.0


class _Counters:
    """The sub-operations of one retrieval."""

    def __init__(self) -> None:
        self.total = 0
        self.completed = 0
        self.failed = 0
        self.warning = 0
        self.failed_uids: list[str] = []
        self.failed_bytes = 0

    @property
    def remaining(self) -> int:
        return max(0, self.total - self.completed - self.failed - self.warning)

    def fail(self, uid: str | None) -> None:
        self.failed += 1
        if uid:
            self.failed_uids.append(uid)

    def fields(self, *, remaining: bool) -> dict[str, int]:
        """The counters as fields of a response; each saturates at 65 535."""
        counts = {
            "number_of_completed_suboperations": min(self.completed, _MAXIMUM),
            "number_of_failed_suboperations": min(self.failed, _MAXIMUM),
            "number_of_warning_suboperations": min(self.warning, _MAXIMUM),
        }
        if remaining:
            counts["number_of_remaining_suboperations"] = min(self.remaining, _MAXIMUM)
        return counts

    def final(self) -> Outcome:
        """The status of an operation that ran to its end (PS3.4 C.4.2.1.4)."""
        if not self.failed and not self.warning:
            return Outcome(SUCCESS)
        if self.failed and not self.completed and not self.warning:
            return Outcome(OUT_OF_RESOURCES_SUBOPERATIONS, "all sub-operations failed")
        return Outcome(SUBOPERATIONS_WARNING)


class _Refused(Exception):
    """The operation ends with this outcome before anything else happens."""

    def __init__(self, answer: Outcome) -> None:
        super().__init__(answer.error_comment)
        self.answer = answer


class _Retrieval:
    """One C-GET or C-MOVE in progress."""

    def __init__(self, request: RetrieveRequest, environment: Environment) -> None:
        self.request = request
        self.environment = environment
        self.counters = _Counters()
        self.destination: _Destination | None = None
        self._digit = 5 if request.is_move else 4
        self._last_response = 0.0
        self._bulk_data = request.sop_class_uid != sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
        self.comment: str | None = None
        self.done = anyio.Event()
        self.tasks: TaskGroup | None = None
        self._started = 0
        self._running = 0
        self._finished = anyio.Event()
        self._failure: Exception | None = None

    async def run(self, items: AsyncIterator[Any]) -> Outcome:
        request = self.request
        counters = self.counters
        if request.is_move:
            with request._interruptible():
                self.destination = await self._resolve()
        first = True
        async for item in items:
            if first:
                first = False
                if isinstance(item, int) and request.total is None:
                    request.total = item
                    self._take_total()
                    if not counters.total:
                        return counters.final()
                    continue
                if item is None:
                    self._take_total()
            if isinstance(item, tuple) and len(item) == 2:
                answer = outcome(item[0]) if item[0] is not None else Outcome(Status(0xC002), "the status is None")
                if not answer.status.is_pending:
                    return answer
                self._take_total()
                await self.progress()
                continue
            if item is None or (isinstance(item, int) and request.total is not None):
                return Outcome(Status(0xC002), "the handler yielded no instance")
            self._take_total()
            if self._started == counters.total:
                logger.error("a handler yielded more instances than the %d it announced", counters.total)
                break
            self._started += 1
            await self._sub_operation(item)
            if request.cancelled:
                break
        await self._settle()
        if request.cancelled:
            return counters.final()
        if request.total is None and first:
            raise _Refused(self._bad_total("the handler gave no number of sub-operations"))
        self._take_total()
        for _ in range(counters.remaining):
            counters.fail(None)
        final = counters.final()
        if self.comment and counters.failed:
            final = final._replace(error_comment=self.comment)
        return final

    def _take_total(self) -> None:
        """Check the number of sub-operations once it is needed."""
        total = self.request.total
        if isinstance(total, bool) or not isinstance(total, int) or total < 0:
            raise _Refused(self._bad_total("the number of sub-operations is not valid"))
        if total > _MAXIMUM and not self.environment.saturate_counters:
            comment = f"{total} sub-operations are more than can be counted"
            raise _Refused(Outcome(Status(0xC016 + (self._digit << 8)), comment))
        self.counters.total = total

    def _bad_total(self, comment: str) -> Outcome:
        return Outcome(Status(0xC013 + (self._digit << 8)), comment)

    async def progress(self) -> None:
        """Send a pending response with all four counters."""
        self._last_response = current_time()
        await self.request.association._respond(self.request, PENDING, None, **self.counters.fields(remaining=True))

    async def keep_alive(self) -> None:
        """Send a pending response whenever none was sent for a while."""
        self._last_response = current_time()
        while not self.done.is_set():
            with anyio.move_on_after(_KEEP_ALIVE / 4):
                await self.done.wait()
            if self.counters.total and not self.done.is_set() and current_time() - self._last_response >= _KEEP_ALIVE:
                await self.progress()

    async def _resolve(self) -> _Destination:
        title = (self.request.destination or "").strip()
        try:
            found = await call(self.environment.resolve, title)
            profile = await call(self.environment.profile, title)
        except Exception as exc:
            logger.error("resolving a C-MOVE destination failed", exc_info=exc)
            raise _Refused(Outcome(Status(0xC514), "resolving the move destination failed")) from None
        try:
            address = resolve_address(found)
        except ValueError:
            raise _Refused(Outcome(Status(0xC515), "the move destination has no valid address")) from None
        if address is None:
            raise _Refused(Outcome(MOVE_DESTINATION_UNKNOWN, "the move destination is not known"))
        return _Destination(address, self.request, self.environment, profile or PeerProfile())

    async def _sub_operation(self, item: Any) -> None:
        """Send one instance, beside others if the window has room for it."""
        request = self.request
        destination = self.destination
        if not isinstance(item, str | os.PathLike | Instance) and not is_data_set(item):
            raise TypeError(f"a handler yielded {type(item).__name__}: expected a path, a data set or an Instance")
        if destination is None:
            association: Association | None = request.association
        else:
            with request._interruptible():
                pair = await _pair(item)
                if pair is None:
                    logger.warning("an instance cannot be read")
                    association = None
                else:
                    if destination.needs_another(pair):
                        await self._settle()
                    association = await self._associate(destination, pair)
        if association is None:
            self.counters.fail(_uid_of(item) or await _read_uid(item))
            await self.progress()
            return
        window = association.async_operations[0] or _MOST
        if window == 1 or self.tasks is None:
            if destination is None:
                # It shares the association with what follows, so it is finished also if a C-CANCEL comes.
                await self._store(association, item)
            else:
                with request._interruptible():
                    await self._store(association, item)
            if not request.cancelled:
                await self.progress()
            return
        with request._interruptible():
            while self._running >= min(window, _MOST):
                await self._wait_for_one()
        self._running += 1
        self.tasks.start_soon(self._beside, association, item)

    async def _beside(self, association: Association, item: Any) -> None:
        """Run one sub-operation in a task of its own."""
        try:
            with CancelScope(shield=self.destination is None):
                await self._store(association, item)
                if not self.request.cancelled:
                    await self.progress()
        except Exception as exc:
            self._failure = self._failure or exc
        finally:
            self._running -= 1
            self._finished.set()

    async def _wait_for_one(self) -> None:
        self._finished = anyio.Event()
        await self._finished.wait()
        if self._failure is not None:
            raise self._failure

    async def _settle(self) -> None:
        """Wait for the sub-operations that are running."""
        while self._running:
            await self._wait_for_one()
        if self._failure is not None:
            raise self._failure

    async def _associate(self, destination: _Destination, pair: tuple[str, str]) -> Association | None:
        """Return an association to the destination for an instance, ``None`` if it cannot be reached."""
        if destination.lost is not None:
            return None
        try:
            return await destination.association(pair)
        except DicomNetworkError as exc:
            self._lose(destination, exc)
            return None

    def _lose(self, destination: _Destination, exc: Exception) -> None:
        """Give up on a destination that cannot be reached or was lost: the rest fails, and is listed."""
        destination.lost = exc
        self.comment = printable(_explain(exc))
        logger.warning("the destination of a C-MOVE was lost: %s", type(exc).__name__)

    async def _store(self, association: Association, item: Any) -> None:
        """Store one instance; whatever goes wrong with it counts, and the operation goes on."""
        counters = self.counters
        request = self.request
        uid = _uid_of(item)
        try:
            response = await association.store(
                item,
                priority=request.priority,
                check=False,
                move_originator=(request.association.peer.ae_title, request.message_id) if request.is_move else None,
                bulk_data=self._bulk_data,
            )
        except (DataSetError, NoPresentationContext) as exc:
            logger.warning("a sub-operation failed: %s", type(exc).__name__)
            counters.fail(uid or await _read_uid(item))
            return
        except DicomNetworkError as exc:
            if self.destination is None:
                raise
            self._lose(self.destination, exc)
            counters.fail(uid or await _read_uid(item))
            return
        except OSError as exc:
            logger.warning("an instance cannot be read: %s", type(exc).__name__)
            counters.fail(uid)
            return
        status = response.status
        if status.is_success:
            counters.completed += 1
        elif status.is_warning:
            counters.warning += 1
        else:
            counters.fail(uid or await _read_uid(item))


class _Destination:
    """The associations to the destination of a C-MOVE.

    One association proposes the (SOP class, transfer syntax) pairs that the handler told of beforehand and that were seen
    so far; a pair that was not proposed opens another one.
    """

    def __init__(
        self, address: Address, request: RetrieveRequest, environment: Environment, profile: PeerProfile
    ) -> None:
        self._address = address
        self._profile = profile
        self._request = request
        self._environment = environment
        self._pairs: dict[tuple[str, str], None] = dict(request._pairs)
        self._proposed: set[tuple[str, str]] = set()
        self._association: Association | None = None
        self.lost: Exception | None = None

    def needs_another(self, pair: tuple[str, str]) -> bool:
        """Tell whether the association that is open cannot be used for a pair: it was not proposed, or nothing more may be."""
        association = self._association
        return association is not None and (pair not in self._proposed or association.operations_left == 0)

    async def association(self, pair: tuple[str, str]) -> Association:
        """Return an association on which a pair was proposed."""
        if self._association is not None and not self.needs_another(pair):
            return self._association
        await self.close()
        self._pairs[pair] = None
        self._pairs.update(self._request._pairs)
        self._association = await self._open(pair)
        return self._association

    async def _open(self, needed: tuple[str, str]) -> Association:
        environment = self._environment
        timeouts = environment.timeouts
        contexts = _contexts([needed, *(pair for pair in self._pairs if pair != needed)])
        self._proposed = {
            (context.abstract_syntax, syntax) for context in contexts for syntax in context.transfer_syntaxes
        }
        profile = self._profile
        # One after the other is as many as are counted.
        window = environment.destination_window if profile.async_window and profile.operations is None else 1
        maximum_length = profile.most(DEFAULT_MAXIMUM_LENGTH)
        request = negotiation.request(
            called=self._address.ae_title,
            calling=environment.ae_title,
            contexts=contexts,
            maximum_length=maximum_length,
            async_operations=(window, 1),
        )
        transport = await open_tcp(
            self._address.host,
            self._address.port,
            ssl_context=environment.ssl(self._address) if callable(environment.ssl) else environment.ssl,
            connect_timeout=timeouts.connect,
            tls_timeout=timeouts.tls,
        )
        return await associate(
            transport,
            request,
            maximum_length=maximum_length,
            timeouts=timeouts,
            limits=environment.limits,
            profile=profile,
        )

    async def close(self) -> None:
        """Release the association; abort it if we were cancelled."""
        association, self._association = self._association, None
        if association is not None:
            await association.release()

    def give_up(self) -> None:
        """Abort the association at once; :meth:`abort` closes it."""
        if self._association is not None:
            self._association.abort_now(lambda: AssociationAborted(0, 0))

    async def abort(self) -> None:
        """Abort the association, if it is still there, and close it."""
        association, self._association = self._association, None
        if association is not None:
            await association.abort()


#: A native instance is also offered in these, so that a destination without its own syntax gets it converted.
_NATIVE_OFFER = (str(sop.EXPLICIT_VR_LITTLE_ENDIAN), str(sop.IMPLICIT_VR_LITTLE_ENDIAN))


def _contexts(pairs: list[tuple[str, str]]) -> list[PresentationContext]:
    """Make one context per pair, so that no pair depends on the acceptor's preference, and one of native syntaxes."""
    contexts: dict[tuple[str, tuple[str, ...]], None] = {}
    for sop_class, syntax in pairs:
        contexts[sop_class, (syntax,)] = None
    for sop_class, syntax in pairs:
        if sop.transfer_syntax(syntax).is_native:
            contexts[sop_class, _NATIVE_OFFER] = None
    return [
        PresentationContext(abstract_syntax=sop_class, transfer_syntaxes=syntaxes)
        for sop_class, syntaxes in list(contexts)[:128]
    ]


def _uid_of(item: Any) -> str | None:
    if isinstance(item, Instance):
        return item.sop_instance_uid
    if is_data_set(item):
        uid = item.get("SOPInstanceUID")
        return str(uid) if uid else None
    return None


def _explain(exc: Exception) -> str:
    """Say in few characters what is wrong with a destination; where it is, is nothing to the requestor."""
    if isinstance(exc, ConnectError):
        return f"destination unreachable: {str(exc).rpartition(': ')[2]}"
    return f"destination: {exc}"


async def _pair(item: Any) -> tuple[str, str] | None:
    """Return the SOP class and transfer syntax of what a handler yielded; ``None`` if it is no readable instance."""
    pair = _pair_of(item) or await _read_pair(item)
    return pair if pair is not None and pair[0] else None


def _pair_of(item: Any) -> tuple[str, str] | None:
    if isinstance(item, Instance):
        return item.sop_class_uid, item.transfer_syntax_uid
    if is_data_set(item):
        meta = getattr(item, "file_meta", None)
        syntax = getattr(meta, "TransferSyntaxUID", None) or sop.EXPLICIT_VR_LITTLE_ENDIAN
        return str(item.get("SOPClassUID") or ""), str(syntax)
    return None


async def _read_head(item: Any) -> Any:
    if not isinstance(item, str | os.PathLike):
        return None
    try:
        return await anyio.to_thread.run_sync(_dataset.read_file_head, os.fspath(item))
    except (OSError, DataSetError):
        return None


async def _read_pair(item: Any) -> tuple[str, str] | None:
    head = await _read_head(item)
    return None if head is None else (head.sop_class_uid, head.transfer_syntax_uid)


async def _read_uid(item: Any) -> str | None:
    head = await _read_head(item)
    return None if head is None else head.sop_instance_uid


async def retrieve(request: RetrieveRequest, handled: _Handled, environment: Environment) -> None:
    """Perform a C-GET or C-MOVE to its final response."""
    retrieval = _Retrieval(request, environment)

    async def body(items: AsyncIterator[Any]) -> Outcome:
        async with anyio.create_task_group() as tasks:
            retrieval.tasks = tasks
            tasks.start_soon(retrieval.keep_alive)
            try:
                return await retrieval.run(items)
            except Exception as exc:
                # Taken out of the task group by hand, so that it arrives bare.
                failed = exc
            finally:
                # Not cancelled: a response that is on its way out is finished.
                retrieval.done.set()
        raise failed

    refused: Outcome | None = None

    async def guarded(items: AsyncIterator[Any]) -> Outcome:
        nonlocal refused
        try:
            return await body(items)
        except _Refused as exc:
            refused = exc.answer
            return exc.answer

    try:
        answer = await handled.run(guarded, True)
    except BaseException:
        if retrieval.destination is not None:
            await retrieval.destination.abort()
        raise
    destination = retrieval.destination
    if destination is not None:
        if answer.status == CANCEL or destination.lost is not None:
            destination.give_up()
        else:
            try:
                await destination.close()
            except (AssociationError, DicomNetworkError) as exc:
                logger.debug("releasing a C-MOVE destination failed: %s", type(exc).__name__)
    counters = retrieval.counters
    data = _failed_list(counters.failed_uids, request.transfer_syntax_uid) if not answer.status.is_success else None
    try:
        await request.association._respond(
            request, answer.status, data, **answer.fields, **counters.fields(remaining=answer.status == CANCEL)
        )
    finally:
        if destination is not None:
            # Whoever cancelled need not wait until the destination has closed.
            await destination.abort()


def _failed_list(uids: list[str], transfer_syntax: str) -> bytes | None:
    """Encode the Failed SOP Instance UID List (0008,0058); ``None`` with no UID to list (CP-602)."""
    if not uids:
        return None
    return encode_failed_list(uids, transfer_syntax)
