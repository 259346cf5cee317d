"""An association with services of one's own, in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope
from anyio.abc import ByteStream, TaskGroup

from ..client import connect
from ..server import Server
from ..settings import Limits, Timeouts
from .streams import memory_stream_pair

if TYPE_CHECKING:
    from ..association import Association
    from ..protocol.negotiation import PresentationContext
    from ..services import Services

__all__ = ["connected", "on_trio"]

Wrap = Callable[[ByteStream], ByteStream]

#: Seconds that the server's side gets to end by itself once the client has left.
_PATIENCE = 15.0


class connected(AbstractAsyncContextManager["Association"]):  # noqa: N801 - used as a function
    """Connect to services in memory: ``async with asyncdicom.testing.connected(services) as assoc``.

    The arguments after ``contexts`` go to :func:`asyncdicom.connect`.

    :param services: what the peer serves.
    :param contexts: what is proposed; ``None`` is the default of :func:`asyncdicom.connect`.
    :param max_buffer: bytes that each direction holds before a sender waits.
    :param server_timeouts: deadlines of the server's side.
    :param server_limits: bounds of the server's side.
    :param server_options: more arguments of :class:`asyncdicom.Server`.
    :param wrap_client: makes the client's stream of the one in memory, for example a :class:`FaultyStream`.
    :param wrap_server: the same for the server's stream.

    :ivar server: the :class:`asyncdicom.Server`; it listens nowhere.

    It can be entered and left in different tasks on asyncio, and an exception of the body arrives as it is.
    """

    def __init__(
        self,
        services: Services,
        contexts: Iterable[str | PresentationContext] | None = None,
        *,
        called: str = "ASYNCDICOM",
        max_buffer: int = 262_144,
        server_timeouts: Timeouts | None = None,
        server_limits: Limits | None = None,
        server_options: dict[str, Any] | None = None,
        wrap_client: Wrap | None = None,
        wrap_server: Wrap | None = None,
        **options: Any,
    ) -> None:
        ours, theirs = memory_stream_pair(max_buffer)
        self._client_stream: ByteStream = wrap_client(ours) if wrap_client is not None else ours
        self._server_stream: ByteStream = wrap_server(theirs) if wrap_server is not None else theirs
        self.server = Server(
            services,
            f"{called}@memory:0",
            timeouts=server_timeouts,
            limits=server_limits,
            **(server_options or {}),
        )
        self._client = connect(f"{called}@memory:0", contexts=contexts, stream=self._client_stream, **options)
        self._task: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Association:
        if on_trio():
            self._tasks = await anyio.create_task_group().__aenter__()
            self._tasks.start_soon(self.server.serve_stream, self._server_stream)
        else:
            self._task = asyncio.create_task(self.server.serve_stream(self._server_stream))
        try:
            return await self._client.__aenter__()
        except BaseException:
            await self._end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._client.__aexit__(kind, exc, traceback)
        finally:
            await self._end()

    async def _end(self) -> None:
        """Let the server's side end; it sees that the client is gone."""
        if self._task is not None:
            with CancelScope(shield=True):
                await asyncio.wait([self._task], timeout=_PATIENCE)
                if not self._task.done():
                    self._task.cancel()
                    await asyncio.wait([self._task])
            if not self._task.cancelled() and (failed := self._task.exception()) is not None:
                raise failed
        elif self._tasks is not None:
            tasks, self._tasks = self._tasks, None
            try:
                tasks.cancel_scope.shield = True
                tasks.cancel_scope.deadline = anyio.current_time() + _PATIENCE
                await tasks.__aexit__(None, None, None)
            except BaseExceptionGroup as group:
                if len(group.exceptions) == 1:
                    raise group.exceptions[0] from None
                raise


def on_trio() -> bool:
    """Tell whether this runs on trio."""
    module: Any = sys.modules.get("trio")
    return module is not None and bool(module.lowlevel.in_trio_task())
