"""Retrieve instances into a folder, by C-GET, as <SOP Instance UID>.dcm.

The peer is asked by C-FIND which SOP classes are concerned. What it could not send for want of a presentation context is
asked for again on another association with others, until all is there or there are no others. A file that is there already
is left alone if its data set is the same; if it is another one the instance is refused, unless --replace is given.

With --without-bulk-data pixel data and the like are left out (PS3.4 Annex Z). Such files are no substitute for the
instances, and are named <SOP Instance UID>.nobulk.dcm.

examples:
  asyncdicom get ARCHIVE@pacs.example:104 -k StudyInstanceUID=1.2.3 -o study
  asyncdicom get ARCHIVE@pacs.example:104 -k StudyInstanceUID=1.2.3 -k SeriesInstanceUID=1.2.3.4 -o series
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..exceptions import DicomNetworkError
from .arguments import Parser, add_client_options, add_query_options, address
from .outcome import CommandError, Exit
from .screen import Bar, Screen, amount, counted, size, span

if TYPE_CHECKING:
    from .. import Association, Get, Response
    from .interrupt import Interrupt
    from .keep import Folder, Incoming
    from .keys import Query
    from .listing import Listing, Place

__all__ = ["add_arguments", "run"]

#: Further associations in a row that may bring nothing, before the rest is given up.
_FRUITLESS = 4
#: UIDs in an identifier; a value has at most 65 534 bytes.
_MOST_UIDS = 900


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("address", type=address, metavar="AET@HOST:PORT", help="the peer")
    add_query_options(parser)
    parser.add_argument("-o", "--output", metavar="DIR", default=".", help="the folder (default: the current one)")
    parser.add_argument("--replace", action="store_true", help="replace files that have another content")
    parser.add_argument("--without-bulk-data", action="store_true", help="leave out pixel data and other bulk data")
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
    retrieval = _Retrieval(options, screen, query, folder, arguments)
    try:
        return run_client(retrieval.run)
    finally:
        if retrieval.started:
            screen.line(retrieval.summary())


class _Retrieval:
    """One retrieval, over as many associations as it takes.

    :ivar started: when the first of them was made; 0 before.
    """

    def __init__(
        self, options: argparse.Namespace, screen: Screen, query: Query, folder: Folder, arguments: dict[str, Any]
    ) -> None:
        self._options = options
        self._screen = screen
        self._query = query
        self._folder = folder
        self._arguments = arguments
        self._expected: int | None = None
        self._there: set[str] = set()
        self._same = 0
        self._refused: dict[str, str] = {}  # by us: why they were not kept
        self._failed: set[str] = set()  # what the peer could not send
        self._unnamed = 0  # how many more, where it does not say which
        self._ended: str | None = None  # a failure that other contexts would not mend
        self.started = 0.0

    def summary(self) -> str:
        """Say what has been done, in a line."""
        seconds = max(perf_counter() - self.started, 1e-6)
        count = self._folder.bytes
        text = f"retrieved {counted(len(self._there), 'instance')}"
        if count:
            text += f", {size(count)} in {span(seconds)} ({size(count / seconds)}/s)"
        text += f" into {self._folder.path}"
        if self._same:
            text += f"; {amount(self._same)} of them {'was' if self._same == 1 else 'were'} there already"
        missing = len(self._refused) + len(self._failed) + self._unnamed
        return f"{text}; {amount(missing)} missing" if missing else text

    async def run(self, interrupt: Interrupt) -> int:
        """Retrieve, and return the exit status."""
        from .. import sop
        from .associate import associate
        from .plan import Plan

        listing = await self._list(interrupt)
        model = self._query.sop_class("GET")
        identifiers: list[Any] = [self._query.identifier]
        if self._options.without_bulk_data:
            # This class knows the level IMAGE alone, and no other key (PS3.4 Z.4.2.1.4).
            model = str(sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET)
            given = self._query.value("SOPInstanceUID")
            identifiers = _identifiers(given.split("\\") if given else listing.places)
        plan = Plan(listing.classes)
        fruitless = 0
        while identifiers and plan and interrupt.signal is None and fruitless <= _FRUITLESS:
            before = len(self._there)
            async with associate(self._options, plan.take(model), interrupt, **self._arguments) as association:
                self.started = self.started or perf_counter()
                with interrupt.gently():
                    await self._retrieve(association, model, identifiers)
            if self._ended is not None:
                break
            identifiers = self._again(listing, identifiers)
            fruitless = 0 if len(self._there) > before else fruitless + 1
        return self._result(listing, interrupted=interrupt.signal is not None)

    async def _list(self, interrupt: Interrupt) -> Listing:
        """Ask what there is; a peer that wants no such question is retrieved from all the same."""
        from ..exceptions import AssociationRejected
        from .associate import associate
        from .listing import Listing, list_instances, models

        each = self._options.without_bulk_data and not self._query.value("SOPInstanceUID")
        listing = Listing()
        try:
            async with associate(self._options, models(self._query), interrupt, **self._arguments) as association:
                with interrupt.gently(), self._screen.bar("asking what there is") as bar:
                    listing = await list_instances(association, self._query, bar, each=each)
        except CommandError as exc:
            if each or not isinstance(exc.__cause__, AssociationRejected):
                raise
        if listing.complete:
            self._expected = len(listing.places)
        return listing

    async def _retrieve(self, association: Association, model: str, identifiers: Sequence[Any]) -> None:
        """Retrieve over one association."""
        self._failed = set()
        self._unnamed = 0
        with self._screen.bar("retrieving", self._expected) as bar:
            for identifier in identifiers:
                async with association.get(identifier, model, check=False) as instances:
                    await self._keep_all(instances, bar)
                assert instances.response is not None
                self._judge(instances.response)

    async def _keep_all(self, instances: Get, bar: Bar) -> None:
        async for instance in instances:
            uid = instance.sop_instance_uid
            if uid not in self._there:
                instance.status = _OUT_OF_RESOURCES  # unless it can be kept
                instance.status = _SUCCESS if await self._keep(instance) else _DUPLICATE
            total = instances.progress.total
            if total is not None and total > (self._expected or 0):
                self._expected = total
            bar.update(len(self._there), self._expected)

    async def _keep(self, instance: Incoming) -> bool:
        """Keep an instance; return whether it is there now.

        :raises CommandError: nothing can be written.
        """
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
            return False
        self._same += kept is Kept.SAME
        self._there.add(uid)
        return True

    def _judge(self, response: Response) -> None:
        """Note what a final response says about what did not come."""
        status = response.status
        if status.is_success:
            return
        failed = response.progress.failed or 0
        named = set(response.failed_sop_instance_uids)
        if status.is_warning or failed or named:
            self._failed |= named - self._there - self._refused.keys()
            self._unnamed += max(0, failed - len(named)) if not named else 0
        else:
            text = f"status {status:#06x} ({status.meaning})"
            self._ended = f"{text}: {response.error_comment}" if response.error_comment else text

    def _again(self, listing: Listing, identifiers: list[Any]) -> list[Any]:
        """Return the identifiers for what could not be sent and may be on other contexts."""
        if self._options.without_bulk_data:
            return _identifiers(self._failed)
        if self._failed and self._failed <= listing.places.keys():
            return _identifiers({uid: listing.places[uid] for uid in sorted(self._failed)})
        # What is there already comes again at worst, or fails now; both do no harm.
        return identifiers if self._failed or self._unnamed else []

    def _result(self, listing: Listing, *, interrupted: bool) -> int:
        """Say what is missing, and return the exit status."""
        if self._ended is not None:
            self._screen.error(self._ended)
        for uid, why in self._refused.items():
            self._screen.error(f"{uid}: {why}")
        for uid in sorted(self._failed):
            self._screen.error(f"{uid}: the peer could not send it")
        if self._unnamed:
            self._screen.error(f"{counted(self._unnamed, 'instance')} could not be sent; the peer does not say which")
        absent: set[str] = set()
        if listing.complete and self._ended is None and not interrupted and not self._unnamed:
            absent = listing.places.keys() - self._there - self._refused.keys() - self._failed
        for uid in sorted(absent):
            self._screen.error(f"{uid}: was found but not sent")
        missing = self._refused or self._failed or self._unnamed or absent
        return Exit.FAILED if missing or self._ended is not None else Exit.DONE


#: Refused: duplicate SOP Instance (PS3.7 C.5.8), and out of resources (PS3.4 B.2.3).
_SUCCESS = 0x0000
_DUPLICATE = 0x0111
_OUT_OF_RESOURCES = 0xA700


def _identifiers(uids: Mapping[str, Place] | Iterable[str]) -> list[dict[str, str]]:
    """Make identifiers of the level IMAGE for instances; with the unique keys above them, if those are given."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for uid in uids:
        place = uids[uid] if isinstance(uids, Mapping) else {}
        groups.setdefault(tuple(place.items()), []).append(uid)
    return [
        {"QueryRetrieveLevel": "IMAGE", **dict(place), "SOPInstanceUID": "\\".join(together[i : i + _MOST_UIDS])}
        for place, together in groups.items()
        for i in range(0, len(together), _MOST_UIDS)
    ]
