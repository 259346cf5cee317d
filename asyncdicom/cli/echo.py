"""Verify that a peer answers, by C-ECHO, and print how long it took.

example:
  asyncdicom echo ARCHIVE@pacs.example:104 --repeat 5
"""

from __future__ import annotations

import argparse
from time import perf_counter

from .arguments import Parser, add_client_options, address, count
from .outcome import Exit
from .screen import Screen, span

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("address", type=address, metavar="AET@HOST:PORT", help="the peer")
    parser.add_argument("--repeat", type=count, metavar="N", default=1, help="how often (default: once)")
    add_client_options(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    from ..sop import VERIFICATION
    from .associate import associate, connection_options
    from .interrupt import Interrupt, run_client

    arguments = connection_options(options)
    times: list[float] = []

    async def echo(interrupt: Interrupt) -> int:
        async with associate(options, [VERIFICATION], interrupt, **arguments) as association:
            with interrupt.gently():
                for number in range(1, options.repeat + 1):
                    start = perf_counter()
                    await association.echo()
                    times.append(perf_counter() - start)
                    if options.repeat > 1:
                        screen.line(f"{number}: {span(times[-1])}")
        return Exit.DONE

    try:
        return run_client(echo)
    finally:
        if times and options.repeat > 1:
            mean = sum(times) / len(times)
            screen.line(
                f"{options.address} answered {len(times)} of {options.repeat}: "
                f"fastest {span(min(times))}, mean {span(mean)}, slowest {span(max(times))}"
            )
        elif times:
            screen.line(f"{options.address} answered in {span(times[0])}")
