"""What handlers return, yield and raise, turned into statuses (``docs/statuses.md`` lists the codes)."""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import anyio

from ..exceptions import DataSetError, StatusError
from ..identifiers import is_data_set
from ..protocol.commands import CFindRQ, CGetRQ, CMoveRQ, CStoreRQ, Message
from ..status import OUT_OF_RESOURCES, PROCESSING_FAILURE, SUCCESS, Status

__all__ = ["Outcome", "failure", "is_stray", "iterate", "outcome", "printable"]

logger = logging.getLogger("asyncdicom.services")

_STATUS = 0x00000900
_OFFENDING_ELEMENT = 0x00000901
_ERROR_COMMENT = 0x00000902
_ERROR_ID = 0x00000903

#: The digit x of 0xCx10 and 0xCx11 for each service.
_DIGITS: dict[type[Message], int] = {CStoreRQ: 2, CFindRQ: 3, CGetRQ: 4, CMoveRQ: 5}


class Outcome(NamedTuple):
    """A status and what goes with it in the response."""

    status: Status
    error_comment: str | None = None
    offending_element: tuple[int, ...] | None = None
    error_id: int | None = None

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing but the status."""
        return self.error_comment is None and self.offending_element is None and self.error_id is None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields as arguments of ``Request.respond``."""
        return {
            "error_comment": self.error_comment,
            "offending_element": self.offending_element,
            "error_id": self.error_id,
        }


_SUCCESS = Outcome(SUCCESS)


def printable(text: str) -> str:
    """Return at most 64 printable characters of a text, for Error Comment (0000,0902)."""
    return "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)[:64]


def outcome(value: Any) -> Outcome:
    """Read a status: ``None``, an ``int``, or a data set with (0000,0900).

    Anything else is 0xC002, a data set without it 0xC001.
    """
    if value is None:
        return _SUCCESS
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= 0xFFFF:
            return Outcome(Status(value))
        return Outcome(Status(0xC002), "the handler gave a status outside 16 bits")
    if is_data_set(value):
        return _from_data_set(value)
    return Outcome(Status(0xC002), "the handler gave a status that is none")


def _from_data_set(value: Any) -> Outcome:
    try:
        status = value.get(_STATUS)
        if status is None or status.value is None:
            return Outcome(Status(0xC001), "the handler gave a status data set without Status")
        comment = value.get(_ERROR_COMMENT)
        offending = value.get(_OFFENDING_ELEMENT)
        error_id = value.get(_ERROR_ID)
        tags = None
        if offending is not None and offending.value not in (None, ""):
            raw = offending.value
            tags = tuple(int(tag) for tag in ([raw] if isinstance(raw, int) else raw))
        return Outcome(
            Status(int(status.value)),
            printable(str(comment.value)) if comment is not None and comment.value else None,
            tags,
            int(error_id.value) if error_id is not None and error_id.value is not None else None,
        )
    except (TypeError, ValueError):
        return Outcome(Status(0xC002), "the handler gave a status data set with a bad value")


def failure(message: type[Message], exc: BaseException, *, sub_operations: bool | None = None) -> Outcome:
    """Turn an exception of a handler into a failure status; unexpected ones are logged with their traceback.

    :param sub_operations: for C-GET and C-MOVE, whether the number of sub-operations was known.
    """
    digit = _DIGITS.get(message)
    if isinstance(exc, StatusError):
        return Outcome(exc.status, printable(exc.comment) if exc.comment else None, exc.offending_elements or None)
    if isinstance(exc, DataSetError) and digit is not None:
        logger.warning("a data set of a %s cannot be decoded", message.__name__)
        return Outcome(Status(0xC010 + (digit << 8)), "the data set cannot be decoded")
    # A timeout of asyncio or anyio is an OSError by descent only: nothing has run out.
    own_timeout = isinstance(exc, TimeoutError) and exc.errno is None and sub_operations is None
    if isinstance(exc, OSError | MemoryError) and digit is not None and not own_timeout:
        logger.error("a %s failed for want of resources: %s", message.__name__, _reason(exc))
        if sub_operations is None:
            return Outcome(OUT_OF_RESOURCES, printable(_reason(exc)))
        return Outcome(Status(0xA702 if sub_operations else 0xA701), printable(_reason(exc)))
    logger.error("a handler of %s failed", message.__name__, exc_info=exc)
    if digit is None:
        return Outcome(PROCESSING_FAILURE, "the handler failed")
    return Outcome(Status(0xC011 + (digit << 8)), "the handler failed")


def is_stray(exc: BaseException) -> bool:
    """Tell whether a handler's cancellation is none of ours: on asyncio, awaiting what others cancelled raises one too.

    Such a handler failed, as by any other exception; nobody asked its task to end.
    """
    if not isinstance(exc, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling() and anyio.current_effective_deadline() != -math.inf


def _reason(exc: BaseException) -> str:
    """Name a failure without any value or path that it carries."""
    if isinstance(exc, OSError) and exc.errno:
        return (
            errno.errorcode.get(exc.errno, "OSError") + ": out of resources"
            if exc.errno == errno.ENOSPC
            else (errno.errorcode.get(exc.errno, "OSError"))
        )
    return type(exc).__name__


async def iterate(result: Any) -> AsyncIterator[Any]:
    """Iterate over what a handler gave: an async or plain iterable, or an awaitable of one; a lone status is one item.

    The iterator of the handler is closed with this one.
    """
    if inspect.isawaitable(result):
        result = await result
    if result is None:
        return
    if hasattr(result, "__aiter__"):
        iterator = result.__aiter__()
        try:
            async for item in iterator:
                yield item
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
    elif isinstance(result, Iterable) and not isinstance(result, str | bytes) and not is_data_set(result):
        for item in result:
            yield item
    else:
        yield (result, None)
