"""One of the processes that serve for ``--workers``; :mod:`.workers` starts it, and says how they talk."""

from __future__ import annotations

import argparse
import itertools
import logging
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from .. import Server
from .outcome import Exit, perform
from .screen import Screen
from .serving import Stop, Work, serve
from .workers import ABORT, CONNECTION

__all__ = ["main"]

logger = logging.getLogger("asyncdicom.cli")

#: Seconds for the last words to a supervisor.
_LAST_WORDS = 2.0
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def main() -> int:
    """Serve what a supervisor hands over, and return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are for the supervisor
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    command, name, descriptor = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as channel:
        options = _read_options(channel)
        if options is None:
            return Exit.DONE
        screen = Screen(f"asyncdicom {command}: worker {name}")

        def run() -> int:
            work: Work = import_module(f".{command}", __package__).make_work(options, screen)
            control = _Supervised(channel, work)
            try:
                return serve(options, work, control, sockets=[])
            finally:
                control.say_goodbye()

        return perform(run, screen, options.verbose, label=f"worker {name}")


def _read_options(channel: socket.socket) -> argparse.Namespace | None:
    """Read the options of the command; ``None`` if the supervisor is gone."""
    with channel.makefile("rb", buffering=0) as file:
        head = file.read(4)
        data = b""
        if head and len(head) == 4:
            (size,) = struct.unpack("!I", head)
            while len(data) < size and (piece := file.read(size - len(data))):
                data += piece
            if len(data) == size:
                options: argparse.Namespace = pickle.loads(data)
                return options
    return None


class _Supervised:
    """The supervisor, as the one who says when to stop and hands over connections."""

    def __init__(self, channel: socket.socket, work: Work) -> None:
        self._channel = channel
        self._work = work
        self._server: Server | None = None
        self._entered = anyio.Event()
        self._ended: list[int] = []
        self._changed = anyio.Event()
        self._unsaid = b""

    async def listen(self, stop: Stop, *, task_status: TaskStatus[None]) -> None:
        """Take what comes until cancelled; the connections are served here."""
        self._channel.setblocking(False)
        task_status.started()
        await self._entered.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell)
            numbers = itertools.count()
            while message := await self._next(tasks, numbers):
                if message == ABORT:
                    stop.abort(Exit.TERMINATED)
                stop.asked.set()
            if not stop.asked.is_set():
                logger.error("the supervisor is gone: stopping")
            stop.asked.set()
            await anyio.sleep_forever()  # what is connected is served until the server has stopped

    async def _next(self, tasks: TaskGroup, numbers: itertools.count[int]) -> bytes:
        """Return what comes next that is no connection; nothing if the supervisor is gone."""
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1, _CLOEXEC)
            except BlockingIOError:
                await anyio.wait_readable(self._channel)
                continue
            except OSError:
                return b""
            if data != CONNECTION:
                return data
            number = next(numbers)
            if descriptors:
                tasks.start_soon(self._serve, socket.socket(fileno=descriptors[0]), number)
                await checkpoint()
            else:  # there is no room for its descriptor
                logger.error("a connection was closed: too many open files")
                self._end(number)

    async def _serve(self, connection: socket.socket, number: int) -> None:
        assert self._server is not None
        try:
            await self._server.serve_socket(connection)
        finally:
            self._end(number)

    def _end(self, number: int) -> None:
        self._ended.append(number)
        self._changed.set()

    async def _tell(self) -> None:
        """Tell the supervisor of connections that have ended, as soon as it listens."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            ended, self._ended = self._ended, []
            if ended:
                self._say("ended", ended)
                self._say("tally", self._work.tally())
            while self._unsaid:
                await anyio.wait_writable(self._channel)
                self._send()

    def ready(self, server: Server) -> None:
        """Say that the server is ready."""
        self._server = server
        self._say("ready")
        self._entered.set()

    def stopping(self, associations: int) -> None:
        """Say how many associations are waited for."""
        self._say("waits", [associations])

    def _say(self, what: str, numbers: Iterable[int] = ()) -> None:
        self._unsaid += " ".join([what, *map(str, numbers)]).encode() + b"\n"
        self._changed.set()

    def _send(self) -> None:
        try:
            self._unsaid = self._unsaid[self._channel.send(self._unsaid) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsaid = b""  # nobody listens any more

    def say_goodbye(self) -> None:
        """Say what has not been said, when all is over."""
        self._say("tally", self._work.tally())
        with suppress(OSError):
            self._channel.settimeout(_LAST_WORDS)
            self._channel.sendall(self._unsaid)


if __name__ == "__main__":
    sys.exit(main())
