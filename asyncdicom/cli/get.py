"""Retrieve instances into a folder, by C-GET, as <SOP Instance UID>.dcm.

The peer is asked by C-FIND which SOP classes are concerned. What it could not send for want of a presentation context is
asked for again on another association with others, until all is there or there are no others. A peer without C-GET can send
by C-MOVE: to --listen, if it knows that AE title at that address.

A file that is there already is left alone if its data set is the same; if it is another one the instance is refused, unless
--replace is given. With --without-bulk-data pixel data and the like are left out (PS3.4 Annex Z). Such files are no
substitute for the instances, and are named <SOP Instance UID>.nobulk.dcm.

examples:
  asyncdicom get ARCHIVE@pacs.example:104 -k StudyInstanceUID=1.2.3 -o study
  asyncdicom get ARCHIVE@pacs.example:104 -k StudyInstanceUID=1.2.3 -k SeriesInstanceUID=1.2.3.4 -o series
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .arguments import Parser, add_client_options, add_query_options, address
from .outcome import CommandError, Exit
from .screen import Bar, Screen, amount, counted, size, span

if TYPE_CHECKING:
    from .. import Retrieval
    from .interrupt import Interrupt
    from .keep import Folder, Incoming
    from .keys import Query

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("address", type=address, metavar="AET@HOST:PORT", help="the peer")
    add_query_options(parser)
    parser.add_argument("-o", "--output", metavar="DIR", default=".", help="the folder (default: the current one)")
    parser.add_argument("--replace", action="store_true", help="replace files that have another content")
    parser.add_argument("--without-bulk-data", action="store_true", help="leave out pixel data and other bulk data")
    parser.add_argument(
        "--listen", type=address, metavar="AET@HOST:PORT", help="receive here by C-MOVE, if the peer has no C-GET"
    )
    add_client_options(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    from .associate import connection_options
    from .interrupt import run_client
    from .keep import Folder
    from .keys import retrieve_query

    query = retrieve_query(options)
    arguments = connection_options(options)
    suffix = ".nobulk.dcm" if options.without_bulk_data else ".dcm"
    folder = Folder(options.output, suffix=suffix, replace=options.replace)
    folder.prepare()
    work = _Work(options, screen, query, folder, arguments)
    try:
        return run_client(work.run)
    finally:
        if work.started:
            screen.line(work.summary())


class _Work:
    """One retrieval.

    :ivar started: when the peer had accepted an association; 0 before.
    """

    def __init__(
        self, options: argparse.Namespace, screen: Screen, query: Query, folder: Folder, arguments: dict[str, Any]
    ) -> None:
        self._options = options
        self._screen = screen
        self._query = query
        self._folder = folder
        self._arguments = arguments
        self._there = 0
        self._same = 0
        self._refused: dict[str, str] = {}  # by us: why they were not kept
        self._missing = 0
        self.started = 0.0

    def summary(self) -> str:
        """Say what has been done, in a line."""
        seconds = max(perf_counter() - self.started, 1e-6)
        count = self._folder.bytes
        text = f"retrieved {counted(self._there, 'instance')}"
        if count:
            text += f", {size(count)} in {span(seconds)} ({size(count / seconds)}/s)"
        text += f" into {self._folder.path}"
        if self._same:
            text += f"; {amount(self._same)} of them {'was' if self._same == 1 else 'were'} there already"
        missing = len(self._refused) + self._missing
        return f"{text}; {amount(missing)} missing" if missing else text

    def _retrieval(self) -> Retrieval:
        """Make the retrieval.

        :raises CommandError: it makes no sense.
        """
        from .. import retrieve, sop
        from ..exceptions import LocalProtocolError

        options = self._options
        model = None if options.model is None else self._query.sop_class("GET")
        if options.without_bulk_data:
            model = str(sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET)
        elif options.listen is not None:
            # This says which model, not which way.
            model = None if model is None else self._query.sop_class("FIND")
        try:
            return retrieve(
                options.address,
                self._query.identifier,
                model,
                via="get" if options.listen is None else None,
                listen=options.listen,
                check=False,
                **self._arguments,
            )
        except (LocalProtocolError, ValueError) as exc:
            raise CommandError(str(exc), Exit.USAGE) from exc

    async def run(self, interrupt: Interrupt) -> int:
        """Retrieve, and return the exit status."""
        from ..exceptions import DicomNetworkError, NoPresentationContext

        retrieval = self._retrieval()
        try:
            await retrieval.__aenter__()
        except NoPresentationContext:
            raise
        except DicomNetworkError as exc:
            text = str(exc)
            where = "" if self._options.address.host in text else f"{self._options.address}: "
            raise CommandError(f"{where}{text}", Exit.NO_ASSOCIATION) from exc
        self.started = perf_counter()
        with interrupt.gently(), self._screen.bar("retrieving") as bar:
            async with retrieval:
                await self._keep_all(retrieval, bar)
        return self._result(retrieval, interrupted=interrupt.signal is not None)

    async def _keep_all(self, retrieval: Retrieval, bar: Bar) -> None:
        async for instance in retrieval:
            instance.status = _OUT_OF_RESOURCES  # unless it can be kept
            await self._keep(instance)
            instance.accept()
            bar.update(self._there, retrieval.progress.total or retrieval.expected)

    async def _keep(self, instance: Incoming) -> None:
        """Keep an instance.

        :raises CommandError: nothing can be written.
        """
        from ..exceptions import DicomNetworkError
        from .keep import Kept

        uid = instance.sop_instance_uid
        try:
            kept = await self._folder.keep(instance)
        except DicomNetworkError:
            raise
        except FileExistsError:
            kept = Kept.REFUSED
        except OSError as exc:
            path = self._folder.file(uid)
            raise CommandError(f"cannot write {path}: {(exc.strerror or str(exc)).lower()}") from exc
        if kept is Kept.REFUSED:
            self._refused[uid] = f"{self._folder.file(uid)} is there with another content; see --replace"
            return
        self._same += kept is Kept.SAME
        self._there += 1

    def _result(self, retrieval: Retrieval, *, interrupted: bool) -> int:
        """Say what is missing, and return the exit status."""
        if interrupted:
            return Exit.INTERRUPTED
        self._missing = retrieval.missing
        named = retrieval.missing_sop_instance_uids
        for uid, why in self._refused.items():
            self._screen.error(f"{uid}: {why}")
        for uid in named:
            self._screen.error(f"{uid}: the peer did not send it")
        unnamed = self._missing - len(named)
        if unnamed:
            self._screen.error(f"{counted(unnamed, 'instance')} did not come; the peer does not say which")
        failure = retrieval.failure
        if failure is not None and not self._missing:
            comment = f": {failure.error_comment}" if failure.error_comment else ""
            self._screen.error(f"status {failure.status:#06x} ({failure.status.meaning}){comment}")
        return Exit.FAILED if self._refused or self._missing or failure is not None else Exit.DONE


#: Refused: out of resources (PS3.4 B.2.3).
_OUT_OF_RESOURCES = 0xA700
