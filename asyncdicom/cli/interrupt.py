"""Ctrl-C, and how the client commands run.

Theory of operation
-------------------
A client that is interrupted leaves what it does as anybody should: a scope of :meth:`Interrupt.gently` is cancelled, the
operation in it sends C-CANCEL and drains, and what follows releases the association. Interrupted again it does not wait
for the peer any longer: the task is cancelled natively, which breaks the shield around the draining, and the association
is aborted. Once more, and the process is killed.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import anyio
from anyio import CancelScope

from .outcome import Exit

__all__ = ["Interrupt", "run_client"]


class Interrupt:
    """Whether, and how often, the user has had enough.

    :ivar signal: the number of the signal that came first, or ``None``.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._times = 0
        self._scopes: set[CancelScope] = set()
        self._outer: CancelScope | None = None
        self._task: asyncio.Task[Any] | None = None

    @contextmanager
    def gently(self) -> Iterator[CancelScope]:
        """Open a scope that the first interruption cancels; what comes after the block still runs then."""
        scope = CancelScope()
        self._scopes.add(scope)
        if self._times:
            scope.cancel()
        try:
            with scope:
                yield scope
        finally:
            self._scopes.discard(scope)

    async def run(self, command: Callable[[Interrupt], Awaitable[int]]) -> int:
        """Run a command under this interruption and return its exit status."""
        self._task = asyncio.current_task()
        status = Exit.INTERRUPTED
        with CancelScope() as self._outer, self._listening():
            try:
                status = Exit(await command(self))
            except Exception:
                # What fails while one leaves is of no interest.
                if self.signal is None:
                    raise
        if self.signal is None:
            return status
        return Exit.TERMINATED if self.signal == signal.SIGTERM else Exit.INTERRUPTED

    @contextmanager
    def _listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._interrupted, number)

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupted(self, number: int) -> None:
        assert self._outer is not None
        assert self._task is not None
        self._times += 1
        if self._times == 1:
            self.signal = number
            for scope in self._scopes or {self._outer}:
                scope.cancel()
        else:
            signal.signal(number, signal.SIG_DFL)
            self._outer.cancel()
            self._task.cancel()


def run_client(command: Callable[[Interrupt], Awaitable[int]]) -> int:
    """Run a client's command to its exit status."""
    try:
        return anyio.run(Interrupt().run, command)
    except asyncio.CancelledError:
        return Exit.INTERRUPTED
