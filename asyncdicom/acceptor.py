"""One association of a server, from the request that opens it to its end (PS3.8 7.1).

An association has as many workers as it has requests in progress, and one that reads: whoever takes a request becomes its
performer and leaves the baton to another, so that C-CANCEL, A-ABORT and a lost connection are seen while handlers run.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio import CancelScope, current_time

from .association import Association
from .connection import skip_events
from .exceptions import AssociationAborted, AssociationClosed, DicomNetworkError, OperationTimeout
from .protocol import pdu
from .protocol.states import State
from .protocol.upper_layer import AssociateIndication, ProviderAbort, UpperLayer
from .requests import Request
from .services.lookout import Lookout
from .services.registry import call
from .settings import Timeouts
from .transport import Transport

__all__ = [
    "abort_quietly",
    "describe_end",
    "finish",
    "how_it_ended",
    "is_asyncio",
    "on_the_loop",
    "read_request",
    "run",
    "run_by_hand",
]

logger = logging.getLogger("asyncdicom.server")


async def read_request(transport: Transport, upper_layer: UpperLayer, deadline: float) -> pdu.AssociateRQ | str:
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


async def finish(transport: Transport, upper_layer: UpperLayer, timeouts: Timeouts) -> None:
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


async def run_by_hand(association: Association, handler: Callable[[Association], Any]) -> None:
    """Give an association to the handler that wants it whole."""
    try:
        await call(handler, association)
    except DicomNetworkError as exc:
        if not association.ended:
            raise
        logger.debug("the handler of association %d ended: %s", association.number, exc)


async def run(association: Association, *, idle: float | None, lookout: Lookout | None) -> None:
    """Perform what comes on an association, to its end.

    :param idle: seconds between two operations.
    :param lookout: is told of each request with a data set that is on the wire.
    """
    waiting = 0
    watching = association.watch()
    async with anyio.create_task_group() as tasks:

        def spawn() -> None:
            if not waiting:
                on_the_loop(tasks.start_soon, work)

        async def work() -> None:
            association.workers += 1
            try:
                await serve_requests()
            finally:
                association.workers -= 1

        async def serve_requests() -> None:
            nonlocal waiting
            # Another worker that waits does so for the peer: what was held back until now is ours to perform.
            while association.has_requests or not (watching and waiting):
                waiting += 1
                try:
                    request = await association.next_request(idle=idle)
                except DicomNetworkError:
                    return
                finally:
                    waiting -= 1
                if association.has_requests or not watching:
                    spawn()  # for what came together with it, or to look at what comes
                if lookout is not None and association.incoming is not None:
                    lookout.note()
                try:
                    await _perform(association, request)
                except DicomNetworkError:
                    if association.ended:
                        return
                    logger.exception("a request failed")
                    await association.abort()
                    return

        association.worker_scope = tasks.cancel_scope
        association.wanted = spawn
        await work()


def _perform(association: Association, request: Request) -> Awaitable[None]:
    perform = association._perform
    assert perform is not None
    return perform(request)


async def abort_quietly(association: Association) -> None:
    """Abort an association, if it has not ended."""
    try:
        if not association.ended:
            association.end(lambda: AssociationAborted(0, 0, "the server is stopping"))
            upper_layer = association.core.upper_layer
            if upper_layer.can_abort:
                upper_layer.abort()
        await association.flush_control()
    except DicomNetworkError:
        pass


def how_it_ended(association: Association) -> str:
    """Say how an association has ended, for events."""
    error = association.error() if association.ended else None
    if isinstance(error, OperationTimeout):
        return "timed out"
    if isinstance(error, AssociationClosed):
        return "lost" if error.__cause__ is not None or "closed the connection" in str(error) else "released"
    return "aborted"


def describe_end(association: Association) -> str:
    """Say how an association has ended, for the log."""
    if not association.ended:
        return "closed"
    return "released" if how_it_ended(association) == "released" else f"ended: {association.error()}"


def on_the_loop(function: Callable[..., object], *args: object) -> None:
    """Call a function of anyio, also from a callback of the event loop.

    Outside of any task sniffio sees no event loop, unless ``anyio.run`` runs it.
    """
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is None or not is_asyncio() or asyncio.current_task() is not None:
        function(*args)
        return
    context = contextvars.copy_context()
    context.run(sniffio.current_async_library_cvar.set, "asyncio")
    context.run(function, *args)


def is_asyncio() -> bool:
    """Say whether this task runs on asyncio."""
    module: Any = sys.modules.get("trio")
    return module is None or not module.lowlevel.in_trio_task()
