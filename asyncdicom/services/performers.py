"""The three performers of requests, chosen by a table: unary, matching, retrieving.

Theory of operation
-------------------
A performer runs a handler inside the request's cancel scope, which a C-CANCEL or the end of the association cancels at
the handler's next await. It never runs ahead: a handler's generator is advanced only after its previous response was
written. What a handler does wrong becomes a status (:mod:`.results`); the association lives on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from anyio import CancelScope, current_time, get_cancelled_exc_class

from .. import dataset as _dataset
from ..exceptions import DataSetError, StatusError
from ..identifiers import is_data_set
from ..protocol.commands import (
    CEchoRQ,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    Message,
)
from ..requests import FindRequest, NRequest, QueryRequest, Request, RetrieveRequest, StoreRequest
from ..status import (
    CANCEL,
    INVALID_OBJECT_INSTANCE,
    MISTYPED_ARGUMENT,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    PENDING,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNISED_OPERATION,
    Status,
)
from .registry import Environment, Handler, Services, call
from .results import Outcome, failure, is_stray, iterate, outcome

__all__ = ["perform"]

logger = logging.getLogger("asyncdicom.services")

Performer = Callable[[Any, Handler, Environment], Awaitable[None]]


async def perform(services: Services, request: Request, environment: Environment) -> None:
    """Perform one request: refuse it, or run its handler, to the final response."""
    message = type(request.message)
    sop_class = request.sop_class_uid
    handler = services.handler(message, sop_class)
    if services.claims and isinstance(request, StoreRequest):
        handler = services.claimed(request) or handler
    refusal = _refuse(services, request, sop_class, handler)
    if refusal is None and services.authorise is not None:
        refusal = await _authorise(services, request)
    if refusal is not None:
        if isinstance(request, StoreRequest):
            await request.discard()
        await request.respond(refusal.status, **refusal.fields)
        return
    assert handler is not None
    performer = _PERFORMERS.get(message, _unary)
    await performer(request, handler, environment)


def _refuse(services: Services, request: Request, sop_class: str, handler: Handler | None) -> Outcome | None:
    """Return why a request is not performed, or ``None``."""
    if sop_class != request.context.abstract_syntax and not isinstance(request, NRequest):
        return Outcome(SOP_CLASS_NOT_SUPPORTED, "the SOP class is not that of the context")
    if handler is None:
        if services.has_class(sop_class) or sop_class == "1.2.840.10008.1.1":
            return Outcome(UNRECOGNISED_OPERATION, "the SOP class does not have this operation")
        return Outcome(SOP_CLASS_NOT_SUPPORTED)
    if isinstance(request, StoreRequest):
        if not _dataset.safe_uid(request.sop_instance_uid):
            return Outcome(INVALID_OBJECT_INSTANCE, "the SOP Instance UID is not valid")
        if request.has_no_data:
            return Outcome(MISTYPED_ARGUMENT, "the request has no data set")
    if isinstance(request, RetrieveRequest):
        if request.has_no_identifier:
            return Outcome(MISTYPED_ARGUMENT, "the request has no identifier")
        if request.is_move and not (request.destination or "").strip():
            return Outcome(MISTYPED_ARGUMENT, "the request has no Move Destination")
    return None


async def _authorise(services: Services, request: Request) -> Outcome | None:
    assert services.authorise is not None
    try:
        allowed = await call(services.authorise, request)
    except Exception as exc:
        failed = failure(CEchoRQ, exc)
        return Outcome(NOT_AUTHORISED) if failed.status == PROCESSING_FAILURE else failed
    return Outcome(NOT_AUTHORISED, "not authorised") if allowed is False else None


async def _unary(request: Request, handler: Handler, environment: Environment) -> None:
    """C-STORE, C-ECHO and the N- services: one response."""
    association = request.association
    if association.worker_scope is not None:
        # A server's worker is in a scope already, that the end of the association cancels: one for all its requests.
        answer, data = await _call(request, handler)
    else:
        answer, data = Outcome(PROCESSING_FAILURE, "the handler was cancelled"), None
        with CancelScope() as scope:
            request._scope = scope
            request._may_interrupt = True
            answer, data = await _call(request, handler)
        request._may_interrupt = False
        request._scope = None
    association.check()
    if isinstance(request, StoreRequest):
        # Whatever the handler left of the data set is in the way of the next message.
        await request.discard()
    request.expire_data()
    if data is None and answer.is_bare:
        await association._respond(request, answer.status, None)
        return
    try:
        await request.respond(answer.status, data, **answer.fields)
    except DataSetError:
        await request.respond(PROCESSING_FAILURE, error_comment="the response cannot be encoded")


async def _call(request: Request, handler: Handler) -> tuple[Outcome, Any]:
    """Call a unary handler; return the outcome, and the data set of an N- service."""
    try:
        result = handler(request)
        if hasattr(result, "__await__"):
            limit = request.association.timeouts.handler
            result = await (result if limit is None else _in_time(result, limit))
    except Exception as exc:
        request.association.check()
        return failure(type(request.message), exc), None
    except get_cancelled_exc_class() as exc:
        if not is_stray(exc):
            raise
        return failure(type(request.message), exc), None
    if isinstance(request, NRequest):
        if isinstance(result, tuple) and len(result) == 2:
            return outcome(result[0]), result[1]
        if _is_attribute_list(result):
            return Outcome(SUCCESS), result
    return outcome(result), None


async def _in_time(awaitable: Awaitable[Any], seconds: float) -> Any:
    """Await what a handler does, for so long.

    :raises StatusError: it took longer, and was cancelled.
    """
    with CancelScope(deadline=current_time() + seconds):
        return await awaitable
    logger.error("a handler was cancelled after %g s", seconds)
    raise StatusError(OUT_OF_RESOURCES, "the handler took too long")


def _is_attribute_list(value: Any) -> bool:
    return is_data_set(value) and 0x00000900 not in value


class _Items(AsyncIterator[Any]):
    """What a handler yields; a C-CANCEL cancels the handler, and ends this, but nothing of what is done with an item."""

    def __init__(self, request: QueryRequest, items: AsyncIterator[Any]) -> None:
        self._request = request
        self._items = items

    async def __anext__(self) -> Any:
        request = self._request
        if not request.cancelled:
            request._may_interrupt = True
            limit = request.association.timeouts.handler
            try:
                item = await (self._items.__anext__() if limit is None else _in_time(self._items.__anext__(), limit))
            except get_cancelled_exc_class() as exc:
                if not is_stray(exc):
                    raise
                raise RuntimeError("what the handler awaited was cancelled") from exc
            finally:
                request._may_interrupt = False
            if not request.cancelled:
                return item
        raise StopAsyncIteration


class _Handled:
    """The handler of a request with several responses, run item by item inside the request's scope."""

    def __init__(self, request: QueryRequest, handler: Handler) -> None:
        self._request = request
        self._handler = handler
        self._items: AsyncIterator[Any] | None = None

    async def run(self, body: Callable[[AsyncIterator[Any]], Awaitable[Outcome]], known: bool | None) -> Outcome:
        """Run ``body`` with the handler's items; return how the operation ends."""
        request = self._request
        association = request.association
        answer = Outcome(SUCCESS)
        # A C-CANCEL that came together with its request must not be lost.
        association.poll()
        with CancelScope() as scope:
            request._scope = scope
            try:
                if not request.cancelled:
                    self._items = iterate(self._handler(request))
                    answer = await body(_Items(request, self._items))
            except get_cancelled_exc_class():
                raise
            except Exception as exc:
                association.check()
                total = getattr(request, "total", None) is not None if known is not None else None
                answer = failure(type(request.message), exc, sub_operations=total)
            finally:
                request._scope = None
                await self._close()
        association.check()
        association.poll()
        association.check()
        if request.cancelled:
            return Outcome(CANCEL)
        return answer

    async def _close(self) -> None:
        """Close the handler's generator, shielded and bounded by ``Timeouts.cancel``."""
        close = getattr(self._items, "aclose", None)
        if close is None:
            return
        seconds = self._request.association.timeouts.cancel
        with CancelScope(shield=True, deadline=math.inf if seconds is None else current_time() + seconds):
            try:
                await close()
            except Exception as exc:
                failure(type(self._request.message), exc)


async def _matching(request: FindRequest, handler: Handler, environment: Environment) -> None:
    """C-FIND: a pending response for each match (PS3.4 C.4.1.3)."""

    async def matches(items: AsyncIterator[Any]) -> Outcome:
        async for item in items:
            if isinstance(item, tuple) and len(item) == 2:
                answer = outcome(item[0]) if item[0] is not None else Outcome(Status(0xC002), "the status is None")
                identifier = item[1]
            elif isinstance(item, int) or item is None:
                answer, identifier = outcome(item) if item is not None else Outcome(Status(0xC312)), None
            else:
                answer, identifier = Outcome(PENDING), item
            if not answer.status.is_pending:
                return answer
            data = _identifier(identifier, request.transfer_syntax_uid)
            if data is None:
                return Outcome(Status(0xC312), "the identifier cannot be encoded")
            await request.respond(answer.status, data, **answer.fields)
            if request.cancelled:
                break
        return Outcome(SUCCESS)

    answer = await _Handled(request, handler).run(matches, None)
    await request.respond(answer.status, **answer.fields)


def _identifier(value: Any, transfer_syntax: str) -> bytes | None:
    """Encode an identifier; ``None`` if it is empty or cannot be."""
    if isinstance(value, bytes):
        return value or None
    if not is_data_set(value) or not len(value):
        return None
    try:
        return _dataset.encode_data_set(value, transfer_syntax)
    except DataSetError:
        return None


async def _retrieving(request: RetrieveRequest, handler: Handler, environment: Environment) -> None:
    """C-GET and C-MOVE: a C-STORE sub-operation for each instance (PS3.4 C.4.2.3, C.4.3.3)."""
    from .retrieval import retrieve

    await retrieve(request, _Handled(request, handler), environment)


_PERFORMERS: dict[type[Message], Performer] = {
    CStoreRQ: _unary,
    CEchoRQ: _unary,
    CFindRQ: _matching,
    CGetRQ: _retrieving,
    CMoveRQ: _retrieving,
}
