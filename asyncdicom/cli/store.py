"""Send DICOM files, and those in folders, by C-STORE.

What is proposed follows from the files: each SOP class with each transfer syntax that occurs. Files are sent as they are;
an uncompressed one is converted if the peer takes its class in another uncompressed transfer syntax only. A file that is
named and is not DICOM is an error, and nothing is sent; inside of a folder it is skipped. A file that cannot be sent does
not keep the others from being sent.

examples:
  asyncdicom store ARCHIVE@pacs.example:104 slice.dcm
  asyncdicom store ARCHIVE@pacs.example:104 study/ more/ --associations 4
"""

from __future__ import annotations

import argparse
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .arguments import Parser, add_client_options, address, count
from .outcome import CommandError, Exit
from .screen import Bar, Screen, amount, counted, size, span

if TYPE_CHECKING:
    from .. import Association, Instance, PresentationContext, Response, Stored
    from .interrupt import Interrupt
    from .queue import Item, Queue
    from .scan import Found, Scan

__all__ = ["add_arguments", "run"]

#: An association that is lost is made again, unless it was lost so often in a row without an answer to anything.
_MOST_LOSSES = 3
#: A file that was under way when an association was lost is sent again, but not for ever: it may be the reason.
_MOST_ATTEMPTS = 2


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("address", type=address, metavar="AET@HOST:PORT", help="the peer")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a folder with all that is below it")
    parser.add_argument("--associations", type=count, metavar="N", default=1, help="send over so many at once")
    parser.add_argument(
        "--window",
        type=count,
        metavar="N",
        default=16,
        help="instances under way at once on each, if the peer agrees; 1 does not ask (default: 16)",
    )
    add_client_options(parser)


@dataclass(slots=True)
class _Tally:
    """What has become of the files."""

    total: int
    answered: int = 0
    sent: int = 0
    warnings: int = 0
    bytes_sent: int = 0
    failed: list[str] = field(default_factory=list)
    started: float = 0.0


class _Progress:
    """How much of all files is done, on the bar."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._done = 0
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Go on by so many bytes, or back; also in worker threads."""
        with self._lock:
            self._done += count
            self._bar.update(self._done)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    from .associate import connection_options
    from .interrupt import run_client
    from .scan import Scan, group

    arguments = connection_options(options)
    scan = Scan()
    tally = _Tally(0)

    async def store(interrupt: Interrupt) -> int:
        with screen.bar("looking for DICOM files") as bar:
            await scan.run(options.paths, bar)
        for path, reason in scan.unreadable:
            screen.error(f"{path}: {reason}")
        tally.total = len(scan.files)
        tally.started = perf_counter()
        with screen.bar("sending", sum(file.size for file in scan.files) or None, of_bytes=True) as bar:
            progress = _Progress(bar)
            for contexts, files in group(scan.files):
                sender = _Sender(options, screen, interrupt, tally, progress)
                try:
                    await sender.send(contexts, files, arguments)
                except CommandError as exc:
                    if not tally.answered:
                        raise
                    screen.error(str(exc))
                if interrupt.signal is not None:
                    break
        return Exit.DONE if tally.sent == tally.total and not scan.unreadable else Exit.FAILED

    try:
        return run_client(store)
    finally:
        if tally.started:
            screen.line(_summary(tally, scan))


def _summary(tally: _Tally, scan: Scan) -> str:
    seconds = max(perf_counter() - tally.started, 1e-6)
    text = "nothing to send"
    if tally.total:
        of = "" if tally.sent == tally.total else f" of {amount(tally.total)}"
        text = f"sent {amount(tally.sent)}{of} {'instance' if tally.total == 1 else 'instances'}"
        rate = f"{size(tally.bytes_sent / seconds)}/s, {amount(round(tally.sent / seconds))}/s"
        text += f", {size(tally.bytes_sent)} in {span(seconds)} ({rate})"
    parts = [text]
    if tally.failed:
        parts.append(f"{amount(len(tally.failed))} failed")
    missing = tally.total - tally.sent - len(tally.failed)
    if missing:
        parts.append(f"{amount(missing)} not sent")
    if tally.warnings:
        parts.append(counted(tally.warnings, "warning"))
    if scan.unreadable:
        parts.append(f"{amount(len(scan.unreadable))} unreadable")
    if scan.skipped:
        parts.append(f"{counted(len(scan.skipped), 'other file')} skipped")
    return "; ".join(parts)


class _Sender:
    """Sends the files that share an association's presentation contexts."""

    def __init__(
        self, options: argparse.Namespace, screen: Screen, interrupt: Interrupt, tally: _Tally, progress: _Progress
    ) -> None:
        self._options = options
        self._screen = screen
        self._interrupt = interrupt
        self._tally = tally
        self._progress = progress
        self._refused: CommandError | None = None
        self._associated = False

    async def send(self, contexts: list[PresentationContext], files: list[Found], arguments: dict[str, Any]) -> None:
        """Send the files over as many associations as there shall be.

        :raises CommandError: not one association could be made.
        """
        import anyio

        from .queue import Queue

        queue = Queue(files, self._progress.advance)
        failed: Exception | None = None

        async def work() -> None:
            nonlocal failed
            try:
                await self._work(queue, contexts, arguments)
            except Exception as exc:
                # Outside, the task group would wrap it.
                failed = failed or exc
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for _ in range(min(self._options.associations, len(files))):
                tasks.start_soon(work)
        if failed is not None:
            raise failed
        if self._refused is not None and not self._associated:
            raise self._refused

    async def _work(self, queue: Queue, contexts: list[PresentationContext], arguments: dict[str, Any]) -> None:
        """Send over one association after the other, until there are no more files."""
        from .associate import associate

        window = self._options.window
        losses = 0
        while losses < _MOST_LOSSES:
            before = self._tally.answered
            lost: Exception | None = None
            try:
                async with associate(
                    self._options, contexts, self._interrupt, async_operations=(window, 1), **arguments
                ) as association:
                    self._associated = True
                    with self._interrupt.gently():
                        lost = await self._fill(association, queue)
            except CommandError as exc:
                if exc.status != Exit.NO_ASSOCIATION:
                    raise
                self._refused = exc
                if self._associated:
                    self._screen.error(str(exc))
                return
            if lost is None or self._interrupt.signal is not None:
                return
            losses = 0 if self._tally.answered > before else losses + 1
            self._screen.error(f"{_words(lost)}{'; associating again' if losses < _MOST_LOSSES else ''}")

    async def _fill(self, association: Association, queue: Queue) -> Exception | None:
        """Send what there is over an association; return why it was lost, or ``None``."""
        lost = None
        while lost is None and queue:
            # One at a time, so that one that is the reason takes no others with it again.
            item = queue.again()
            lost = await self._send(association, queue, queue if item is None else iter([item]))
        return lost

    async def _send(self, association: Association, queue: Queue, items: Iterator[Item]) -> Exception | None:
        """Send files; return why the association was lost, if it was."""
        from ..exceptions import AssociationError, OperationTimeout, RemoteProtocolError

        taken: deque[Item] = deque()  # those without an outcome
        storing = association.store_many(_instances(items, taken))
        try:
            async for stored in storing:
                item = next(item for item in taken if item.instance is stored.what)
                taken.remove(item)
                self._done(item, stored)
        except (AssociationError, OperationTimeout, RemoteProtocolError) as exc:
            # Whether what was sent came to anything, or to this, nobody knows: each gets another chance.
            unsent = [id(instance) for instance in storing.unsent]
            for item in taken:
                item.attempts += id(item.instance) not in unsent
                if item.attempts < _MOST_ATTEMPTS:
                    queue.put_back(item)
                else:
                    self._fail(item, _words(exc))
                    item.done()
            return exc
        return None

    def _done(self, item: Item, stored: Stored) -> None:
        """Count an outcome, and tell what is not as it should be."""
        response, error = stored.response, stored.error
        if response is not None:
            self._answered(item, response)
        elif error is not None:
            self._fail(item, _words(error))
        item.done()

    def _answered(self, item: Item, response: Response) -> None:
        self._tally.answered += 1
        status = response.status
        text = f"status {status:#06x} ({status.meaning})"
        if response.error_comment:
            text += f": {response.error_comment}"
        if not (status.is_success or status.is_warning):
            self._fail(item, text)
            return
        self._tally.sent += 1
        self._tally.bytes_sent += item.file.size
        if status.is_warning:
            self._tally.warnings += 1
            self._screen.error(f"{item.file.path}: warning: {text}")

    def _fail(self, item: Item, why: str) -> None:
        self._tally.failed.append(item.file.path)
        self._screen.error(f"{item.file.path}: {why}")


def _instances(items: Iterator[Item], taken: deque[Item]) -> Iterator[str | Instance]:
    """Give what is to be sent, and note what was taken."""
    for item in items:
        taken.append(item)
        yield item.instance


def _words(exc: Exception) -> str:
    from ..exceptions import DataSetError

    if isinstance(exc, DataSetError):
        return "not a DICOM file any more" if str(exc).startswith("not a DICOM file") else str(exc)
    if isinstance(exc, OSError):
        return (exc.strerror or str(exc)).lower()
    return str(exc)
