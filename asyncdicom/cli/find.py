"""Query a peer, by C-FIND: a table on a terminal, a line per match in a pipe.

Keys are keywords or tags; KEY=VALUE matches, with the standard's wildcards and ranges, KEY asks for the value. When every
key has a value, the usual attributes of the level are asked for as well. No match is no error.

examples:
  asyncdicom find ARCHIVE@pacs.example:104 -k PatientName='DOE*' -k StudyDate=20240101-
  asyncdicom find ARCHIVE@pacs.example:104 --level series -k StudyInstanceUID=1.2.3 --json
  asyncdicom find ARCHIVE@pacs.example:104 -k StudyInstanceUID -k 'RequestAttributesSequence[0].RequestedProcedureID'
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import TYPE_CHECKING

from .arguments import Parser, add_client_options, add_query_options, address, count
from .outcome import CommandError, Exit
from .screen import Screen, counted, span

if TYPE_CHECKING:
    from pydicom import Dataset

    from .. import Find, FindNegotiation
    from .keys import Query

__all__ = ["add_arguments", "run"]

#: Options for what is negotiated by extended negotiation (PS3.4 C.5.1.1), by the names of it.
_SEMANTICS = {
    "relational": "keys of levels above may be missing (relational queries)",
    "combined_date_time": "a range of dates and one of times are one range of both",
    "fuzzy": "match names by their sound",
}


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("address", type=address, metavar="AET@HOST:PORT", help="the peer")
    add_query_options(parser)
    parser.add_argument("--limit", type=count, metavar="N", help="take at most so many matches, then cancel")
    for name, text in _SEMANTICS.items():
        parser.add_argument(_option(name), action="store_true", help=f"{text}; the peer must agree to that")
    parser.add_argument("--json", action="store_true", help="print a line of DICOM JSON for each match")
    add_client_options(parser)


class _Output:
    """Where matches go, as they come."""

    def __init__(self, screen: Screen, query: Query, *, as_json: bool) -> None:
        self._screen = screen
        self._query = query
        self._json = as_json
        self._rows: list[list[str]] = []
        self._table = screen.is_interactive and not as_json
        # To a person, what was asked for exactly says nothing new.
        self._shown = [key for key in query.columns if not key.is_exact] or query.columns
        self.count = 0

    def add(self, match: Dataset) -> None:
        """Take a match.

        :raises BrokenPipeError: nobody reads the output any more.
        """
        from .table import cell, heading, json_line

        columns = self._query.columns
        if self._json:
            self._screen.line(json_line(match))
        elif self._table:
            self._rows.append([cell(match, key, pretty=True) for key in self._shown])
        else:
            if not self.count:
                self._screen.line("\t".join(heading(key) for key in columns))
            self._screen.line("\t".join(cell(match, key) for key in columns))
        self.count += 1

    def end(self) -> None:
        """Draw the table, if it is one."""
        if not self._rows:
            return
        from .table import draw

        try:
            draw(self._shown, self._rows)
        except ImportError:  # no Rich
            for row in self._rows:
                self._screen.line("  ".join(row))


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    from .. import FindNegotiation
    from .associate import associate, connection_options
    from .interrupt import Interrupt, run_client
    from .keys import find_query

    query = find_query(options)
    model = query.sop_class("FIND")
    wanted = FindNegotiation(**{name: getattr(options, name) for name in _SEMANTICS})
    arguments = connection_options(options)
    if any(wanted):
        arguments["extended_negotiation"] = {model: wanted}
    output = _Output(screen, query, as_json=options.json)
    start = 0.0
    truncated = False

    async def find(interrupt: Interrupt) -> int:
        nonlocal start, truncated
        async with associate(options, [model], interrupt, **arguments) as association:
            agreed = FindNegotiation.read(association.extended_negotiation.get(model, b""))
            _check_agreed(wanted, agreed, options)
            start = perf_counter()
            matches = association.find(query.identifier, model, limit=options.limit)
            status = Exit.DONE
            with interrupt.gently():
                status = await _take(matches, output, screen)
            truncated = matches.truncated
            return status

    try:
        status = run_client(find)
    finally:
        elapsed = perf_counter() - start
        output.end()
        if screen.is_interactive and start:
            more = ", there are more" if truncated else ""
            screen.note(f"{counted(output.count, 'match')} in {span(elapsed)}{more}")
    return status


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_agreed(wanted: FindNegotiation, agreed: FindNegotiation, options: argparse.Namespace) -> None:
    """Make sure of what the answers will mean.

    :raises CommandError: the peer does not do what was asked for.
    """
    missing = [_option(name) for name in _SEMANTICS if getattr(wanted, name) and not getattr(agreed, name)]
    if missing:
        raise CommandError(f"{options.address} does not support {' and '.join(missing)}")


async def _take(matches: Find, output: _Output, screen: Screen) -> Exit:
    with screen.bar("matches") as bar:
        try:
            async with matches:
                async for match in matches:
                    output.add(match)
                    bar.update(output.count)
        except BrokenPipeError:
            return Exit.DONE  # whoever reads has seen enough; the rest was cancelled
    response = matches.response
    if response is not None and response.status.is_warning:
        screen.error(f"the query ended with a warning: status {response.status:#06x} ({response.status.meaning})")
        return Exit.FAILED
    return Exit.DONE
