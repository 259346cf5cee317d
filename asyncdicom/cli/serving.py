"""How the servers run: on which event loop, until which signal.

SIGTERM and Ctrl-C make a server drain and stop: new associations are rejected, those at work get some time. The same again
aborts them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskStatus

from .. import Server
from ..exceptions import ConnectError
from .outcome import CommandError, Exit
from .screen import Screen, counted

__all__ = ["run_server"]

Make = Callable[[], AbstractAsyncContextManager[Server]]

#: Files that are open besides those of associations.
_OTHER_FILES = 128


def run_server(options: argparse.Namespace, screen: Screen, make: Make, *background: Any) -> Exit:
    """Run a server until SIGTERM or Ctrl-C, and return the exit status.

    :param make: makes the server, which is entered on the event loop.
    :param background: async functions of the server, to be run beside it and cancelled at its end.
    :raises CommandError: it cannot listen, or there is no such event loop.
    """
    # A connection and a file for each association, and another connection where it is asked for a C-MOVE.
    _raise_descriptor_limit(3 * options.max_associations + _OTHER_FILES)
    backend, backend_options = _loop(options.loop)
    try:
        return anyio.run(partial(_run, screen, make, background), backend=backend, backend_options=backend_options)
    except KeyboardInterrupt:  # where signals cannot be received
        return Exit.DONE


async def _run(screen: Screen, make: Make, background: tuple[Any, ...]) -> Exit:
    failed: Exception | None = None
    status = Exit.DONE
    async with anyio.create_task_group() as tasks:
        asked = anyio.Event()

        async def listen(*, task_status: TaskStatus[None]) -> None:
            nonlocal status
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for number in signals:
                    if asked.is_set():
                        status = Exit.TERMINATED if number == signal.SIGTERM else Exit.INTERRUPTED
                        tasks.cancel_scope.cancel()
                    asked.set()

        try:
            if sys.platform != "win32":
                await tasks.start(listen)
            await _serve(screen, make, background, asked)
        except Exception as exc:
            failed = exc  # outside, the task group would wrap it
        tasks.cancel_scope.cancel()
    if isinstance(failed, ConnectError):
        raise CommandError(str(failed), Exit.USAGE) from failed
    if failed is not None:
        raise failed
    return status


async def _serve(screen: Screen, make: Make, background: tuple[Any, ...], asked: anyio.Event) -> None:
    async with make() as server:
        for address in server.addresses:
            screen.note(f"listening on {address}")
        async with anyio.create_task_group() as tasks:
            for function in background:
                tasks.start_soon(function, server)
            await asked.wait()
            tasks.cancel_scope.cancel()
        busy = len(server.associations)
        if busy:
            screen.note(f"stopping; {counted(busy, 'association')} to end (again to abort)")


def _loop(name: str | None) -> tuple[str, dict[str, Any]]:
    """Return anyio's name and options of an event loop; ``None`` is uvloop where it is installed."""
    if name == "trio":
        try:
            import trio  # noqa: F401
        except ImportError:
            raise CommandError("trio is not installed (pip install 'asyncdicom[trio]')", Exit.USAGE) from None
        return "trio", {}
    if name != "asyncio":
        try:
            import uvloop  # noqa: F401
        except ImportError:
            if name == "uvloop":
                raise CommandError("uvloop is not installed (pip install 'asyncdicom[speed]')", Exit.USAGE) from None
        else:
            return "asyncio", {"use_uvloop": True}
    return "asyncio", {}


def _raise_descriptor_limit(wanted: int) -> None:
    """Raise the soft limit of open files, as far as the hard one allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
