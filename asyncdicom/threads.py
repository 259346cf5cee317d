"""Short calls in worker threads: file IO that must not stall the event loop.

Theory of operation
-------------------
A hop to a worker thread and back is paid for every small instance, so it is made cheap: one shared pool, no limiter,
no copied context, and one wake-up of the event loop per call. It costs about half of ``anyio.to_thread`` on asyncio; on
trio, which needs its own bookkeeping to be re-entered from a thread, that is what is used.

The threads live as long as somebody holds the pool (associations do) and end with the last of them.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from anyio import CancelScope, to_thread

__all__ = ["hold", "release", "run"]

T = TypeVar("T")

#: Most threads of the pool; calls that find all of them busy wait.
_MOST = 16

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any], "Callable[[Any], None] | None"]


class _Pool:
    """Threads that take jobs from one queue."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._open = 0  # jobs queued or running
        self._holders = 0

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                for _ in range(self._threads):
                    self._jobs.put(None)
                self._threads = 0

    def submit(self, job: _Job) -> None:
        with self._lock:
            self._open += 1
            grow = self._open > self._threads and self._threads < _MOST
            if grow:
                self._threads += 1
        if grow:
            threading.Thread(target=self._work, name="asyncdicom-io", daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        get = self._jobs.get
        while (job := get()) is not None:
            loop, future, call, dispose = job
            result: Any = None
            failure: BaseException | None = None
            try:
                result = call()
            except BaseException as exc:
                failure = exc
            with self._lock:
                self._open -= 1
            try:
                loop.call_soon_threadsafe(_finish, future, result, failure, dispose)
            except RuntimeError:
                # The loop is closed: nobody is waiting any more.
                if failure is None and dispose is not None:
                    dispose(result)
            del job, loop, future, call, dispose, result, failure


def _finish(
    future: asyncio.Future[Any], result: Any, failure: BaseException | None, dispose: Callable[[Any], None] | None
) -> None:
    if future.done():
        if failure is None and dispose is not None:
            dispose(result)
    elif isinstance(failure, StopIteration):
        # A future refuses it, and nobody would ever be woken; out of a coroutine it comes like this, too (PEP 479).
        error = RuntimeError("a call in a worker thread raised StopIteration")
        error.__cause__ = failure
        future.set_exception(error)
    elif failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)


_pool = _Pool()


def hold() -> None:
    """Keep the threads alive until :func:`release`."""
    _pool.hold()


def release() -> None:
    """Let the threads end, unless somebody else holds them."""
    _pool.release()


async def run(call: Callable[[], T], dispose: Callable[[T], None] | None = None) -> T:
    """Call a function in a worker thread and return its result.

    :param dispose: gets the result if nobody waits for it any more, to close what was opened.

    A cancellation by a scope of anyio or trio takes effect when the call has returned; a native cancellation of an asyncio
    task at once, and the result goes to ``dispose``.
    """
    module: Any = sys.modules.get("trio")
    if module is not None and module.lowlevel.in_trio_task():
        return await to_thread.run_sync(call)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    _pool.submit((loop, future, call, dispose))
    with CancelScope(shield=True):
        return await future
    raise AssertionError  # a shielded scope without a deadline is never left early
