"""How a command ends: its exit status, and the one line that says what went wrong."""

from __future__ import annotations

import enum
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from .screen import Screen, clean

if TYPE_CHECKING:
    import argparse

    from .arguments import Parser

__all__ = ["Command", "CommandError", "Exit", "perform", "run"]


class Exit(enum.IntEnum):
    """The exit statuses of the program."""

    DONE = 0
    FAILED = 1  # a DIMSE failure, or anything is missing
    USAGE = 2
    NO_ASSOCIATION = 3  # refused, rejected, timed out
    INTERRUPTED = 130
    TERMINATED = 143

    @classmethod
    def of_signal(cls, number: int) -> Exit:
        """Return the status of a command that a signal has ended."""
        return cls.TERMINATED if number == signal.SIGTERM else cls.INTERRUPTED


class CommandError(Exception):
    """Ends a command with a line and an exit status."""

    def __init__(self, message: str, status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.status = status


class Command(Protocol):
    """The module of a command."""

    def add_arguments(self, parser: Parser) -> None:
        """Describe the arguments."""

    def run(self, options: argparse.Namespace, screen: Screen) -> int:
        """Do it, and return the exit status."""


def run(name: str, command: Command, words: Sequence[str]) -> int:
    """Parse the arguments of a command, run it, and return its exit status, whatever happens."""
    from .arguments import Parser, parse

    description, _, rest = (command.__doc__ or "").partition("\n\n")
    parser = Parser(prog=f"asyncdicom {name}", description=description.replace("``", ""), epilog=rest.strip())
    command.add_arguments(parser)
    screen = Screen(parser.prog)
    try:
        options = parse(parser, words)
    except CommandError as exc:
        screen.error(str(exc))
        return exc.status
    return perform(lambda: command.run(options, screen), screen, options.verbose)


def perform(action: Callable[[], int], screen: Screen, verbose: int, *, label: str = "") -> int:
    """Do something, and return the exit status; what goes wrong is said, and what is logged is shown.

    :param label: what lines of the log are marked with, where there are several processes.
    """
    _start_logging(screen, verbose, label)
    try:
        return _outcome(action, screen, verbose)
    finally:
        screen.close()


def _outcome(action: Callable[[], int], screen: Screen, verbose: int) -> int:
    from ..exceptions import DicomNetworkError

    try:
        return action()
    except CommandError as exc:
        screen.error(str(exc))
        return exc.status
    except DicomNetworkError as exc:
        # After the association was made: what remained to be done is missing.
        screen.error(str(exc))
        return Exit.FAILED
    except BrokenPipeError:
        return Exit.DONE  # whoever reads our output has seen enough
    except OSError as exc:
        screen.error(_os_error(exc))
        return Exit.FAILED
    except Exception as exc:
        if verbose:
            raise
        screen.error(f"unexpected {type(exc).__name__}: {exc} (-v shows where)")
        return Exit.FAILED


def _os_error(exc: OSError) -> str:
    text = (exc.strerror or str(exc)).lower()
    return f"{exc.filename}: {text}" if exc.filename else text


class _OneLine(logging.Formatter):
    """Format a record as one line without control characters; tracebacks only when they are asked for."""

    def __init__(self, prog: str, verbose: int, label: str) -> None:
        mark = f"[{label}] " if label else ""
        super().__init__(f"%(asctime)s %(levelname)s {mark}%(name)s: %(message)s")
        self._prog = prog
        self._verbose = verbose

    def format(self, record: logging.LogRecord) -> str:
        if self._verbose:
            text = clean(self._fmt_message(record))
            if record.exc_info:
                text += "\n" + self.formatException(record.exc_info)
            return text
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]} (-v shows where)"
        return f"{self._prog}: {record.levelname.lower()}: {clean(text)}"

    def _fmt_message(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        return self.formatMessage(record)


class _Notes(logging.Handler):
    """Write records where notes go, above a bar that is drawn."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._screen.raw_note(self.format(record))
        except Exception:
            self.handleError(record)


def _start_logging(screen: Screen, verbose: int, label: str) -> None:
    handler = _Notes(screen)
    handler.setFormatter(_OneLine(screen.prog, verbose, label))
    logger = logging.getLogger("asyncdicom")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    if not sys.warnoptions:
        import warnings

        # What pydicom has to say about the data of others helps nobody here.
        warnings.simplefilter("ignore" if not verbose else "once")
