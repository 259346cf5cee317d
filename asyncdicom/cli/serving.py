"""How the servers run: in which processes, on which event loop, until which signal.

SIGTERM and Ctrl-C make a server drain and stop: new associations are rejected, those at work get some time. The same again
aborts them. With ``--workers`` the process that was started serves nobody itself, see :mod:`.workers`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from .. import Server, Services
from ..exceptions import ConnectError
from .arguments import server_ssl, server_timeouts
from .outcome import CommandError, Exit
from .screen import Screen, counted

__all__ = ["Control", "Stop", "Work", "run_server", "serve", "stopping"]

#: Files that are open besides those of associations.
_OTHER_FILES = 128


class Work(Protocol):
    """What a server is there for: that in which the commands differ.

    There is one of it in each process that serves, and in the one that looks after them.
    """

    @property
    def services(self) -> Services:
        """The handlers."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What else a :class:`~asyncdicom.Server` is given."""

    def prepare(self) -> None:
        """Do what is done once, before any process serves. Blocks.

        :raises CommandError: it cannot be done.
        """

    def open(self) -> None:
        """Open what is served from: in each process that serves, and for a trial before there are any. Blocks.

        :raises CommandError: it cannot be opened.
        """

    def close(self) -> None:
        """Close it. Blocks."""

    async def watch(self, server: Server) -> None:
        """Run beside the server until it stops."""

    def tally(self) -> tuple[int, ...]:
        """Return what is counted; the numbers of several processes are added."""

    def report(self, tally: tuple[int, ...]) -> None:
        """Say what came of it all; *tally* is empty where nothing was counted."""


class Stop:
    """Whether a server is to stop.

    :ivar asked: set when it is to drain and stop.
    """

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.asked = anyio.Event()
        self.status = Exit.DONE
        self._scope = scope

    def abort(self, status: Exit) -> None:
        """Have it stop at once, with an exit status."""
        self.status = status
        self._scope.cancel()


class Control(Protocol):
    """Who tells a process that serves to stop, and is told how it is."""

    async def listen(self, stop: Stop, *, task_status: TaskStatus[None]) -> None:
        """Wait for what there is to be told, until cancelled."""

    def ready(self, server: Server) -> None:
        """Be told that the server is ready."""

    def stopping(self, associations: int) -> None:
        """Be told how many associations the server waits for."""


def run_server(command: str, options: argparse.Namespace, screen: Screen, work: Work) -> Exit:
    """Run the server of a command until SIGTERM or Ctrl-C, and return the exit status.

    :raises CommandError: it cannot listen, there is no such event loop, or what is served from cannot be opened.
    """
    server_ssl(options)  # what is wrong with its files is said before anything is done
    _event_loop(options.loop)
    if options.workers > 1:
        from .workers import check, supervise

        check(options)
        work.prepare()
        return supervise(command, options, screen, work)
    work.prepare()
    try:
        return serve(options, work, _Signals(screen))
    finally:
        work.report(work.tally())


def serve(options: argparse.Namespace, work: Work, control: Control, **more: Any) -> Exit:
    """Serve in this process until *control* says that it is enough, and return the exit status.

    :param more: of the arguments of the server.
    :raises CommandError: it cannot listen, or there is no such event loop.
    """
    # A connection and a file for each association, and another connection where it is asked for a C-MOVE.
    _raise_descriptor_limit(3 * options.max_associations + _OTHER_FILES)
    backend, backend_options = _event_loop(options.loop)
    make = partial(_opened, options, work, more)
    try:
        return anyio.run(_run, make, work, control, backend=backend, backend_options=backend_options)
    except KeyboardInterrupt:  # where signals cannot be received
        return Exit.DONE


@asynccontextmanager
async def _opened(options: argparse.Namespace, work: Work, more: dict[str, Any]) -> AsyncIterator[Server]:
    ssl, timeouts = server_ssl(options), server_timeouts(options)
    try:
        await to_thread.run_sync(work.open)
        async with Server(work.services, options.listen, ssl=ssl, timeouts=timeouts, **work.options, **more) as server:
            yield server
    finally:
        work.close()


async def _run(make: Callable[[], Any], work: Work, control: Control) -> Exit:
    failed: Exception | None = None
    async with anyio.create_task_group() as tasks:
        stop = Stop(tasks.cancel_scope)
        try:
            await tasks.start(control.listen, stop)
            async with make() as server:
                control.ready(server)
                async with anyio.create_task_group() as background:
                    background.start_soon(work.watch, server)
                    await stop.asked.wait()
                    background.cancel_scope.cancel()
                control.stopping(len(server.associations))
        except Exception as exc:
            failed = exc  # outside, the task group would wrap it
        tasks.cancel_scope.cancel()
    if isinstance(failed, ConnectError):
        raise CommandError(str(failed), Exit.USAGE) from failed
    if failed is not None:
        raise failed
    return stop.status


class _Signals:
    """SIGTERM and Ctrl-C as the ones to tell a server to stop, and the screen as the one to be told."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    async def listen(self, stop: Stop, *, task_status: TaskStatus[None]) -> None:
        if sys.platform == "win32":
            task_status.started()
            return
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                if stop.asked.is_set():
                    stop.abort(Exit.of_signal(number))
                stop.asked.set()

    def ready(self, server: Server) -> None:
        for address in server.addresses:
            self._screen.note(f"listening on {address}")

    def stopping(self, associations: int) -> None:
        if associations:
            self._screen.note(stopping(associations))


def stopping(associations: int) -> str:
    """Say that a server stops, and what it waits for."""
    return f"stopping; {counted(associations, 'association')} to end (again to abort)"


def _event_loop(name: str | None) -> tuple[str, dict[str, Any]]:
    """Return anyio's name and options of an event loop; ``None`` is uvloop where it is installed.

    :raises CommandError: it is not installed.
    """
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
