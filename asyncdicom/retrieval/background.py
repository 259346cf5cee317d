"""Tasks of a retrieval's own: nothing of it is left open in the task of whoever iterates.

An embedded server needs a task group, and an iterator that was dropped needs somebody to send its C-CANCEL. Neither can
be in the user's task, so they get a task beside it: one of asyncio's, or a system task of trio, which ends with the run.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.lowlevel import current_token

from ..server import Server

__all__ = ["Hosted", "spawn"]

logger = logging.getLogger("asyncdicom.retrieval")

_tasks: set[asyncio.Task[None]] = set()


def spawn(function: Callable[[], Awaitable[None]]) -> None:
    """Run an async function in a task of its own; its exceptions are logged.

    :raises RuntimeError: no event loop runs in this thread.
    """

    async def run() -> None:
        try:
            await function()
        except Exception:
            logger.exception("a retrieval failed in the background")

    module: Any = sys.modules.get("trio")
    if module is not None and module.lowlevel.in_trio_run():
        module.lowlevel.spawn_system_task(run)
        return
    task = asyncio.get_running_loop().create_task(run())
    # The event loop does not keep its tasks alive.
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class Hosted:
    """A server that runs in a task of its own, and can be stopped from any.

    :ivar is_leaving: it is going to be stopped, though nobody waits for that.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_leaving = False
        self._loop = current_token()
        self._ready = anyio.Event()
        self._stop = anyio.Event()
        self._done = anyio.Event()
        self._failure: Exception | None = None

    async def start(self) -> None:
        """Run it, and return when it listens.

        :raises ConnectError: it cannot listen.
        """
        for other in list(_hosted):
            # One that was left behind at the same address: it soon lets go of it.
            if other.is_leaving and other._loop == self._loop and other.server.address == self.server.address:
                await other._done.wait()
        spawn(self._run)
        try:
            await self._ready.wait()
        except BaseException:
            self.stop_soon()
            raise
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        _hosted.add(self)
        try:
            async with self.server:
                self._ready.set()
                await self._stop.wait()
        except Exception as exc:
            if self._ready.is_set():
                raise
            self._failure = exc
        finally:
            _hosted.discard(self)
            self._ready.set()
            self._done.set()

    def stop_soon(self) -> None:
        """Stop it, without waiting for that."""
        self.is_leaving = True
        self._stop.set()

    async def stop(self) -> None:
        """Stop it, and wait until it has ended."""
        self.stop_soon()
        await self._done.wait()


_hosted: set[Hosted] = set()
