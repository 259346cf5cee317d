"""What a person or the next program gets to see: results, errors, progress.

Results are lines on standard output; all else goes to standard error. Text of peers is never written as it came: what is
not printable is escaped, so that nobody's patient name can drive a terminal. Rich is imported when a bar or a table is
drawn, which happens on terminals only.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bar", "Screen", "amount", "clean", "counted", "is_terminal", "size", "span"]


def clean(text: str) -> str:
    """Return a text as one line in which everything that is not printable is escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )


def amount(number: int) -> str:
    """Write a number with its thousands apart."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, noun: str) -> str:
    """Write ``1 file`` or ``2 files``."""
    if number == 1:
        return f"1 {noun}"
    return (
        f"{amount(number)} {noun[:-1] + 'ies' if noun.endswith('y') else noun + ('es' if noun[-2:] == 'ch' else 's')}"
    )


def size(count: float) -> str:
    """Write a number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def span(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.2f} ms"
    if seconds < 99.95:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a person is looking at a stream."""
    try:
        return stream.isatty() and os.environ.get("TERM", "") != "dumb"
    except (ValueError, AttributeError):
        return False


class Bar:
    """Progress that nobody sees; the base of the one that is drawn."""

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Show how far it is.

        :param total: how far it goes, once that is known.
        :param note: a few words beside the bar.
        """


class _DrawnBar(Bar):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        if note is not None:
            self._progress.update(self._task, note=clean(note))
        if total is None:
            self._progress.update(self._task, completed=done)
        else:
            self._progress.update(self._task, completed=done, total=total)


class Screen:
    """The two streams of a command.

    :param prog: what error lines begin with.
    """

    def __init__(self, prog: str) -> None:
        self.prog = prog
        self._drawn: Progress | None = None  # what is being drawn on standard error
        if hasattr(sys.stdout, "reconfigure"):
            # A file name or a patient's name may have characters that the stream's encoding lacks.
            sys.stdout.reconfigure(errors="backslashreplace")

    @property
    def is_interactive(self) -> bool:
        """Whether results are read by a person, on a terminal."""
        return is_terminal(sys.stdout)

    def line(self, text: str) -> None:
        """Write a line of results, at once.

        :raises BrokenPipeError: nobody reads them any more.
        """
        if sys.stdout is not None:  # it is not there when it was closed before we began
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Write a line beside the results, above a bar that is drawn."""
        self.raw_note(clean(text))

    def raw_note(self, text: str) -> None:
        """Write what is clean already, such as the lines of a traceback."""
        try:
            if self._drawn is not None:
                self._drawn.console.print(text, markup=False, highlight=False, soft_wrap=True)
            elif sys.stderr is not None:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()
        except (OSError, ValueError):
            pass  # nobody can be told

    def error(self, text: str) -> None:
        """Write a line that says what went wrong."""
        self.note(f"{self.prog}: {text}")

    @contextmanager
    def bar(self, what: str, total: float | None = None, *, of_bytes: bool = False) -> Iterator[Bar]:
        """Draw a progress bar on standard error while the block runs, if that is a terminal.

        :param what: what is being done.
        :param total: how far it goes, if that is known.
        :param of_bytes: progress is in bytes, not in things.
        """
        progress = _rich_progress(of_bytes) if is_terminal(sys.stderr) else None
        if progress is None:
            yield Bar()
            return
        try:
            with progress:
                self._drawn = progress
                yield _DrawnBar(progress, progress.add_task(what, total=total, note=""))
        finally:
            self._drawn = None

    def close(self) -> None:
        """Flush, and let go of an output that nobody reads."""
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except (OSError, ValueError):
            # Otherwise the interpreter tries again at its end, and complains.
            with open(os.devnull, "w") as devnull:
                os.dup2(devnull.fileno(), sys.stdout.fileno())


def _rich_progress(of_bytes: bool) -> Progress | None:
    """Make a bar; ``None`` without Rich."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError:
        return None
    columns: tuple[ProgressColumn, ...] = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(None))
    if of_bytes:
        columns += (DownloadColumn(), TransferSpeedColumn())
    else:
        columns += (MofNCompleteColumn(),)
    columns += (TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
    return Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )
