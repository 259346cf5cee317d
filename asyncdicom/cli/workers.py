"""Several processes that serve one address, and the one that looks after them.

Theory of operation
-------------------
The process that was started, the supervisor, listens and accepts, and serves nobody. It hands each connection to the worker
that has the most room, by ``SCM_RIGHTS`` through a pair of UNIX sockets. That is what balances: of eight connections that
come at once, two workers get four each. Where the workers share a listening socket, whoever wakes up first takes all that wait
(measured: seven or eight of eight); where each has its own (``SO_REUSEPORT``), the system throws dice (four to eight), and a
connection that waits for a worker that dies is lost. And as one process knows who has how many, a limit for all workers is
kept by giving each a share.

Workers are new programs, not copies made by ``fork``: what a process holds of threads, locks, databases and TLS does not
survive being copied, and one that was started an hour later begins in the same state as the first.

The pair of sockets is all that is between a worker and its supervisor, in both directions. It is also how either notices that
the other is gone, however that came to pass: no worker outlives its supervisor by more than it takes to drain.

Signals are for the supervisor. A terminal and a service manager send them to the workers, too, which ignore them.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from .. import Address, listen
from ..exceptions import ConnectError
from .outcome import CommandError, Exit
from .screen import Screen
from .serving import Work, stopping

__all__ = ["ABORT", "CONNECTION", "STOP", "Supervisor", "check", "share", "supervise"]

logger = logging.getLogger("asyncdicom.cli")

#: What a worker is told, a byte each; the first comes with the connection.
CONNECTION, STOP, ABORT = b"c", b"s", b"a"

#: How many workers in a row may die before they have served for as many seconds, until that is no accident any more.
_MOST_DEATHS, _SETTLED = 5, 10.0
#: Seconds after which a worker is replaced, doubled for each that died at once.
_PAUSE = 0.1
#: Seconds that the workers get to stop, and to abort; longer than they need for it (``Server.drain`` and the rest).
_STOPPING, _ABORTING = 20.0, 8.0
#: Seconds that a process may take to end once it has let go of its supervisor.
_ENDING = 5.0
#: Connections that are accepted before workers are listened to again.
_BURST = 32

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check(options: argparse.Namespace) -> None:
    """See that there can be several workers.

    :raises CommandError: there cannot.
    """
    if not (hasattr(socket, "send_fds") and sys.executable):
        raise CommandError("--workers needs a system that hands connections from process to process", Exit.USAGE)
    if options.max_associations < options.workers:
        raise CommandError(
            f"--max-associations {options.max_associations} leaves none for some of {options.workers} workers",
            Exit.USAGE,
        )


def share(total: int, number: int, of: int) -> int:
    """Return what worker *number* of so many gets of a total."""
    return total // of + (number <= total % of)


def supervise(command: str, options: argparse.Namespace, screen: Screen, work: Work) -> Exit:
    """Serve by several workers until SIGTERM or Ctrl-C, and return the exit status.

    :raises CommandError: it cannot listen, or what is served from cannot be opened.
    """
    # What is wrong is said once, and what a killed process left is removed before anybody adds to it.
    try:
        work.open()
    finally:
        work.close()
    try:
        sockets = listen(options.listen)
    except ConnectError as exc:
        raise CommandError(str(exc), Exit.USAGE) from exc
    supervisor = Supervisor(command, options, screen, sockets)
    try:
        return supervisor.run()
    finally:
        work.report(supervisor.tally())


class _Worker:
    """One of the workers: the process that is it now, and how its predecessors ended.

    :ivar options: those of the command, with its share of what is limited.
    :ivar connections: the addresses of its connections, by their numbers.
    :ivar deaths: how many died at once, in a row.
    :ivar due: when the next process is started, while there is none.
    :ivar waits_for: how many associations it waits for when it stops, once that is known.
    """

    def __init__(self, number: int, options: argparse.Namespace) -> None:
        self.number = number
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.is_ready = False
        self.connections: dict[int, str] = {}
        self.addresses: Counter[str] = Counter()
        self.dealt = 0
        self.tally: tuple[int, ...] = ()
        self.begun = 0.0
        self.deaths = 0
        self.due = 0.0
        self.waits_for: int | None = None
        self._unread = b""

    def start(self, command: str) -> socket.socket:
        """Start a process, and return the channel to it.

        :raises OSError: there can be none.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            # A signal that comes meanwhile is for the supervisor, and must not find a worker that does not ignore it yet.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                descriptor = str(theirs.fileno())
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", f"{__package__}.worker", command, str(self.number), descriptor],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                )
            except BaseException:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        options = pickle.dumps(self.options)
        with suppress(OSError):  # it has ended already, which is seen soon
            ours.settimeout(_ENDING)
            ours.sendall(struct.pack("!I", len(options)) + options)
        ours.setblocking(False)
        self.channel = ours
        self.begun = time.monotonic()
        self.is_ready = False
        self.waits_for = None
        self._unread = b""
        return ours

    def room(self, address: str) -> tuple[int, ...]:
        """Return how much room there is for a connection, to be compared with that of other workers."""
        total: int = self.options.max_associations - len(self.connections)
        mine: int = 0
        if self.options.max_per_address is not None:
            mine = self.options.max_per_address - self.addresses[address]
        return min(total, 1), min(mine, 1), mine, total, -self.dealt

    def deal(self, connection: socket.socket, address: str) -> bool:
        """Give it a connection; false if it does not take any."""
        assert self.channel is not None
        try:
            socket.send_fds(self.channel, [CONNECTION], [connection.fileno()])
        except OSError:
            return False
        self.connections[self.dealt] = address
        self.addresses[address] += 1
        self.dealt += 1
        return True

    def tell(self, what: bytes) -> None:
        """Tell it something; one that does not listen is killed."""
        if self.channel is not None and self.process is not None:
            try:
                self.channel.send(what)
            except BlockingIOError:
                self.process.kill()
            except OSError:
                pass  # it has ended

    def hear(self) -> bool:
        """Take in what it says; false if it has ended."""
        assert self.channel is not None
        try:
            data = self.channel.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            kind, *words = line.split()
            numbers = tuple(map(int, words))
            if kind == b"ready":
                self.is_ready = True
                logger.info("worker %d is ready", self.number)
            elif kind == b"ended":
                for number in numbers:
                    self.addresses[address := self.connections.pop(number)] -= 1
                    if not self.addresses[address]:
                        del self.addresses[address]
            elif kind == b"tally":
                self.tally = numbers
            elif kind == b"waits":
                self.waits_for = sum(numbers)
        return bool(data)

    def end(self) -> int:
        """Let go of the process that has ended, and return its exit status."""
        assert self.process is not None
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        try:
            status = self.process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process = None
        self.is_ready = False
        self.connections.clear()
        self.addresses.clear()
        self.dealt = 0
        return status


class Supervisor:
    """Looks after the workers.

    :param command: the command whose server they are.
    :param sockets: listening sockets, which are closed at the end.
    """

    def __init__(
        self, command: str, options: argparse.Namespace, screen: Screen, sockets: Sequence[socket.socket]
    ) -> None:
        self._command = command
        self._screen = screen
        self._title = options.listen.ae_title
        self._sockets = sockets
        self._workers = [_Worker(number, _share_of(options, number)) for number in range(1, options.workers + 1)]
        self._selector = selectors.DefaultSelector()
        self._is_accepting = False
        self._is_announced = False
        self._pause_until = 0.0
        self._deadline: float | None = None  # for the workers to have ended, when they are to stop
        self._is_stopping_said = False
        self._status = Exit.DONE
        self._earlier: list[tuple[int, ...]] = []

    def run(self) -> Exit:
        """Do it until a signal comes, and return the exit status."""
        try:
            with self._signals():
                for worker in self._workers:
                    self._start(worker)
                while self._deadline is None or any(worker.process for worker in self._workers):
                    self._turn()
        finally:
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.kill()
                    self._forget(worker)
            for sock in self._sockets:
                sock.close()
            self._selector.close()
        return self._status

    def tally(self) -> tuple[int, ...]:
        """Return the sum of what all workers have counted."""
        return tuple(map(sum, zip(*filter(None, self._earlier), strict=True)))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals wake the selector."""
        reader, writer = socket.socketpair()
        with reader, writer:
            reader.setblocking(False)
            writer.setblocking(False)
            before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
            descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            self._selector.register(reader, selectors.EVENT_READ, partial(self._signalled, reader))
            try:
                yield
            finally:
                self._selector.unregister(reader)
                signal.set_wakeup_fd(descriptor)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _signalled(self, reader: socket.socket) -> None:
        for number in reader.recv(256):
            if number not in _SIGNALS:
                continue
            if self._deadline is None:
                self._stop(STOP, _STOPPING)
            else:
                self._status = Exit.of_signal(signal.Signals(number))
                self._stop(ABORT, _ABORTING)

    def _stop(self, how: bytes, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        for worker in self._workers:
            worker.tell(how)

    # What happens.

    def _turn(self) -> None:
        """Wait until something happens, and do what is to be done about it."""
        self._accept_or_not()
        # Those that have room again are known before connections are dealt out.
        ready = [key.data for key, _ in self._selector.select(self._patience())]
        for act in sorted(ready, key=lambda act: act == self._accept):
            act()
        now = time.monotonic()
        if self._deadline is None:
            for worker in self._workers:
                if worker.process is None and worker.due <= now:
                    self._start(worker)
            if not self._is_announced and all(worker.is_ready for worker in self._workers):
                self._announce()
        else:
            self._say_stopping()
            if self._deadline <= now:
                self._kill()

    def _patience(self) -> float | None:
        """Return the seconds until something is due."""
        times = [worker.due for worker in self._workers if worker.process is None and self._deadline is None]
        times += [] if self._deadline is None else [self._deadline]
        times += [self._pause_until] if self._pause_until > time.monotonic() else []
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _announce(self) -> None:
        self._is_announced = True
        for sock in self._sockets:
            name = sock.getsockname()
            host, port = (os.fsdecode(name), 0) if sock.family == socket.AF_UNIX else name[:2]
            self._screen.note(f"listening on {Address(self._title, host, port)}")

    def _say_stopping(self) -> None:
        alive = [worker for worker in self._workers if worker.process is not None]
        if self._is_stopping_said or any(worker.waits_for is None for worker in alive):
            return
        self._is_stopping_said = True
        if associations := sum(worker.waits_for or 0 for worker in alive):
            self._screen.note(stopping(associations))

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                logger.error("worker %d (process %d) does not stop, and is killed", worker.number, worker.process.pid)
                worker.process.kill()
                self._forget(worker)
                self._status = self._status or Exit.FAILED

    # Connections.

    def _accept_or_not(self) -> None:
        """Accept where somebody takes it; leave what comes in the queue of the system otherwise."""
        wanted = self._is_announced and time.monotonic() >= self._pause_until
        wanted = wanted and any(worker.is_ready for worker in self._workers)
        if wanted is not self._is_accepting:
            self._is_accepting = wanted
            for sock in self._sockets:
                if wanted:
                    self._selector.register(sock, selectors.EVENT_READ, self._accept)
                else:
                    self._selector.unregister(sock)

    def _accept(self) -> None:
        for sock in self._sockets:
            for _ in range(_BURST):
                try:
                    connection, address = sock.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    break
                except OSError as exc:
                    logger.error("no connection can be accepted: %s", exc)
                    self._pause_until = time.monotonic() + _PAUSE
                    break
                with connection:
                    self._deal(connection, str(address[0]) if isinstance(address, tuple) else "")

    def _deal(self, connection: socket.socket, address: str) -> None:
        """Hand a connection to the worker with the most room; it is closed if none takes it."""
        workers = [worker for worker in self._workers if worker.is_ready]
        for worker in sorted(workers, key=lambda worker: worker.room(address), reverse=True):
            if worker.deal(connection, address):
                return
        logger.warning("a connection from %s was closed: no worker takes it", address)

    # Workers.

    def _start(self, worker: _Worker) -> None:
        try:
            channel = worker.start(self._command)
        except OSError as exc:
            logger.error("worker %d cannot be started: %s", worker.number, exc)
            self._died_at_once(worker, Exit.FAILED)
            return
        assert worker.process is not None
        logger.info("worker %d is process %d", worker.number, worker.process.pid)
        self._selector.register(channel, selectors.EVENT_READ, partial(self._hear, worker))

    def _hear(self, worker: _Worker) -> None:
        if worker.channel is None or worker.hear():
            return
        assert worker.process is not None
        pid = worker.process.pid
        has_settled = worker.is_ready and time.monotonic() - worker.begun >= _SETTLED
        status = self._forget(worker)
        if self._deadline is not None:
            self._status = self._status or (Exit.FAILED if status else Exit.DONE)
            return
        logger.error("worker %d (process %d) %s", worker.number, pid, _how_it_ended(status))
        if has_settled:
            worker.deaths = 0
        self._died_at_once(worker, Exit(status) if status in Exit.__members__.values() else Exit.FAILED)

    def _died_at_once(self, worker: _Worker, status: Exit) -> None:
        """Have a worker replaced, in a moment; or give up."""
        worker.deaths += 1
        worker.due = time.monotonic() + _PAUSE * 2 ** (worker.deaths - 1)
        if worker.deaths == _MOST_DEATHS:
            logger.error("worker %d ended at once %d times in a row: giving up", worker.number, _MOST_DEATHS)
            self._status = status or Exit.FAILED
            self._stop(STOP, _STOPPING)

    def _forget(self, worker: _Worker) -> int:
        if worker.channel is not None:
            with suppress(KeyError):
                self._selector.unregister(worker.channel)
        self._earlier.append(worker.tally)
        worker.tally = ()
        return worker.end()


def _share_of(options: argparse.Namespace, number: int) -> argparse.Namespace:
    """Return the options of a worker: those of the command, with its share of what is limited."""
    count: int = options.workers
    own = argparse.Namespace(**vars(options))
    own.max_associations = share(options.max_associations, number, count)
    if options.max_per_address is not None:
        own.max_per_address = share(options.max_per_address, number, count)
    if options.max_per_ae is not None:
        # Who calls is not known before a worker was chosen: rather a few too many than too few.
        own.max_per_ae = -(-options.max_per_ae // count)
    return own


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}; another one takes its place"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}; another one takes its place"
