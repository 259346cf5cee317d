"""Have instances sent to another application entity, by C-MOVE.

The peer looks the destination's AE title up among those that it knows; that is not a matter of this program.

example:
  asyncdicom move ARCHIVE@pacs.example:104 --to WORKSTATION -k StudyInstanceUID=1.2.3
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import TYPE_CHECKING

from .arguments import Parser, add_client_options, add_query_options, address, ae_title
from .outcome import Exit
from .screen import Screen, counted, span

if TYPE_CHECKING:
    from .. import Progress, Response
    from .interrupt import Interrupt

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("address", type=address, metavar="AET@HOST:PORT", help="the peer")
    parser.add_argument("--to", type=ae_title, metavar="AET", required=True, help="the destination")
    add_query_options(parser)
    add_client_options(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    from .associate import associate, connection_options
    from .interrupt import run_client
    from .keys import retrieve_query

    query = retrieve_query(options)
    arguments = connection_options(options)

    async def move(interrupt: Interrupt) -> int:
        model = query.sop_class("MOVE")
        async with associate(options, [model], interrupt, **arguments) as association:
            start = perf_counter()
            operation = association.move(query.identifier, model, destination=options.to, check=False)
            with interrupt.gently(), screen.bar(f"moving to {options.to}") as bar:
                async with operation:
                    async for progress in operation:
                        bar.update(_done(progress), progress.total, _trouble(progress))
            seconds = perf_counter() - start
        response = operation.response
        if response is None:
            return Exit.FAILED
        # A final response may come without counters; then those of the last pending one count.
        progress = operation.progress if response.progress.completed is None else response.progress
        if response.status.is_success or progress.total is not None or _done(progress):
            screen.line(f"moved {_summary(progress)} to {options.to} in {span(seconds)}")
        return _judge(response, screen, interrupted=interrupt.signal is not None)

    return run_client(move)


def _done(progress: Progress) -> int:
    return (progress.completed or 0) + (progress.failed or 0) + (progress.warning or 0)


def _trouble(progress: Progress) -> str:
    return f"{progress.failed} failed" if progress.failed else ""


def _summary(progress: Progress) -> str:
    text = counted((progress.completed or 0) + (progress.warning or 0), "instance")
    parts = [f"{progress.failed} failed"] if progress.failed else []
    if progress.warning:
        parts.append(counted(progress.warning, "warning"))
    if progress.remaining:
        parts.append(f"{progress.remaining} left")
    return f"{text} ({', '.join(parts)})" if parts else text


def _judge(response: Response, screen: Screen, *, interrupted: bool) -> int:
    """Say what failed, and return the exit status."""
    status = response.status
    if status.is_success and not response.progress.failed:
        return Exit.DONE
    for uid in response.failed_sop_instance_uids:
        screen.error(f"{uid}: the peer could not send it")
    if not interrupted:
        comment = f": {response.error_comment}" if response.error_comment else ""
        screen.error(f"status {status:#06x} ({status.meaning}){comment}")
    return Exit.FAILED
