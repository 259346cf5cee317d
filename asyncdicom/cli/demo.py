"""Show the main job on real data, without any peer: an archive on a free port of this machine, the DICOM files that
ship with pydicom, and a client that stores, queries, retrieves by C-GET and by C-MOVE, and cancels.

Everything happens in a temporary folder that is removed at the end, unless --keep names one.

example:
  asyncdicom demo
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..status import CANCEL
from .arguments import Parser, add_verbosity
from .outcome import CommandError, Exit
from .screen import Bar, Screen, clean, counted, size, span

if TYPE_CHECKING:
    from pydicom import Dataset

    from .. import Address, Association, Response, Services
    from .interrupt import Interrupt
    from .scan import Found

__all__ = ["add_arguments", "run"]

#: AE titles of the archive, of the client, and of the storage SCP that C-MOVE sends to.
_ARCHIVE, _CLIENT, _WORKSTATION = "ARCHIVE", "DEMO", "WORKSTATION"

#: Instances that are under way at once on an association.
_WINDOW = 16


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("--keep", metavar="DIR", help="work in this folder, and leave it as it is at the end")
    add_verbosity(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    import logging
    from tempfile import TemporaryDirectory

    from .interrupt import run_client

    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        raise CommandError("the demo needs SQLAlchemy (pip install 'asyncdicom[archive]')", Exit.USAGE) from None
    if not options.verbose:
        # That a retrieval was cancelled is what is to be shown, not an error.
        logging.getLogger("asyncdicom").setLevel(logging.CRITICAL)

    async def demo(interrupt: Interrupt) -> int:
        with interrupt.gently():
            await _Demo(screen, folder).run()
        return Exit.DONE

    if options.keep is not None:
        folder = Path(options.keep)
        return run_client(demo)
    with TemporaryDirectory(prefix="asyncdicom-demo-") as name:
        folder = Path(name)
        return run_client(demo)


class _Demo:
    """The demonstration, step by step."""

    def __init__(self, screen: Screen, folder: Path) -> None:
        self._screen = screen
        self._folder = folder
        self._number = 0
        self._stored: dict[str, str] = {}  # the files of what the archive took, by SOP Instance UID
        self._arrived: dict[str, bytes] = {}  # at the workstation

    def _step(self, title: str) -> None:
        self._number += 1
        text = f"{self._number}. {title}"
        self._screen.line("")
        self._screen.line(f"\x1b[1m{text}\x1b[0m" if self._screen.is_interactive else text)

    def _say(self, text: str) -> None:
        self._screen.line(f"   {clean(text)}")

    async def run(self) -> None:
        """Do all of it.

        :raises CommandError: something is not as it should be.
        """
        from .. import connect, sop
        from ..archive import Archive
        from .keep import Folder
        from .scan import MOST_CONTEXTS

        start = perf_counter()
        Folder(str(self._folder)).prepare()
        archive = Archive(self._folder / "archive", ae_title=_ARCHIVE)
        async with (
            _serving(self._workstation(), _WORKSTATION) as workstation,
            archive,
            _serving(archive.services, _ARCHIVE, {_WORKSTATION: workstation}) as address,
        ):
            self._step("An archive, and a workstation that it can send to")
            self._say(f"{address}, its folder is {self._folder / 'archive'}")
            self._say(f"{workstation}")
            contexts = await self._store(address)
            models = [sop.VERIFICATION, sop.STUDY_ROOT_FIND, sop.PATIENT_ROOT_GET, sop.STUDY_ROOT_MOVE]
            contexts = [*models, *contexts][:MOST_CONTEXTS]
            async with connect(address, calling=_CLIENT, contexts=contexts) as association:
                await self._echo(association)
                study = await self._find(association)
                patient = str(study.PatientID)
                await self._get(association, patient)
                await self._cancel(association, patient)
                await self._move(association, str(study.StudyInstanceUID))
        self._screen.line("")
        self._screen.line(f"All of it in {span(perf_counter() - start)}.")

    def _workstation(self) -> Services:
        from .. import Services, StoreRequest

        services = Services()

        @services.store("*")
        async def store(request: StoreRequest) -> None:
            self._arrived[request.sop_instance_uid] = await request.read()

        return services

    async def _store(self, address: Address) -> list[Any]:
        """Load pydicom's files; return the presentation contexts that they need."""
        import anyio
        import pydicom

        from .. import Instance, connect
        from ..dataset import read_file_head
        from .scan import Scan, group

        self._step("C-STORE: the DICOM files that ship with pydicom")
        scan = Scan()
        await scan.run([str(Path(pydicom.__file__).parent / "data" / "test_files")], Bar())
        # Several of them are one instance in several encodings; an archive keeps one of each.
        unique: dict[str, Found] = {}
        for file in scan.files:
            unique.setdefault(read_file_head(file.path).sop_instance_uid, file)
        chosen = list(unique.values())
        pairs = {(file.sop_class_uid, file.transfer_syntax_uid) for file in chosen}
        classes, syntaxes = {uid for uid, _ in pairs}, {syntax for _, syntax in pairs}
        self._say(
            f"{counted(len(chosen), 'instance')} of {len(classes)} SOP classes, in {len(syntaxes)} transfer syntaxes; "
            f"{counted(len(scan.files) - len(chosen), 'duplicate')} left out, "
            f"{counted(len(scan.skipped), 'other file')} skipped"
        )
        outcomes: Counter[str] = Counter()
        start = perf_counter()
        with self._screen.bar("storing", len(chosen)) as bar:
            for contexts, files in group(chosen):
                options: dict[str, Any] = {"contexts": contexts, "async_operations": (_WINDOW, 1)}
                async with connect(address, calling=_CLIENT, **options) as association:
                    left = iter(files)

                    async def work(association: Association = association, left: Iterator[Found] = left) -> None:
                        for file in left:
                            instance = Instance.from_file(file.path)
                            response = await association.store(instance, check=False)
                            outcomes[_outcome(response)] += 1
                            if response.status.is_success:
                                self._stored.setdefault(instance.sop_instance_uid, file.path)
                            bar.update(outcomes.total())

                    async with anyio.create_task_group() as tasks:
                        for _ in range(_WINDOW):
                            tasks.start_soon(work)
        seconds = perf_counter() - start
        for text, number in outcomes.items():
            self._say(f"{number:>5} {text}")
        self._say(f"{size(sum(file.size for file in chosen))} in {span(seconds)}, {_WINDOW} at a time")
        return group(chosen)[0][0]

    async def _echo(self, association: Association) -> None:
        self._step("C-ECHO")
        times = []
        for _ in range(20):
            start = perf_counter()
            await association.echo()
            times.append(perf_counter() - start)
        self._say(f"20 round trips, the fastest in {span(min(times))}")

    async def _find(self, association: Association) -> Dataset:
        """Query for studies, and return the largest one."""
        from .keys import find_query, parse_key
        from .table import cell, heading

        self._step("C-FIND: the studies, the largest first")
        query = find_query(argparse.Namespace(keys=[], level="study", model=None))
        start = perf_counter()
        studies = [study async for study in association.find(query.identifier, query.sop_class("FIND"))]
        seconds = perf_counter() - start
        studies.sort(key=lambda study: -int(study.get("NumberOfStudyRelatedInstances") or 0))
        names = ("PatientName", "StudyDate", "ModalitiesInStudy", "StudyDescription", "NumberOfStudyRelatedInstances")
        columns = [parse_key(name) for name in names]
        rows = [[heading(key, pretty=True) for key in columns]]
        rows += [[cell(study, key, pretty=True) for key in columns] for study in studies[:6]]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        for row in rows:
            self._say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        self._say(f"{counted(len(studies), 'match')} in {span(seconds)}, the first of them shown")
        return studies[0]

    async def _get(self, association: Association, patient: str) -> None:
        self._step("C-GET: everything of that patient")
        data: dict[str, bytes] = {}
        start = perf_counter()
        with self._screen.bar("retrieving") as bar:
            async with association.get(level="PATIENT", PatientID=patient) as instances:
                async for instance in instances:
                    data[instance.sop_instance_uid] = await instance.read()
                    bar.update(len(data), instances.progress.total)
        seconds = perf_counter() - start
        self._check(data)
        total = sum(map(len, data.values()))
        self._say(
            f"{counted(len(data), 'instance')}, {size(total)} in {span(seconds)}, each as it was stored, byte for byte"
        )

    async def _cancel(self, association: Association, patient: str) -> None:
        self._step("C-CANCEL: the same again, but five are enough")
        start = perf_counter()
        async with association.get(level="PATIENT", PatientID=patient, limit=5) as instances:
            async for instance in instances:
                await instance.read()
        seconds = perf_counter() - start
        response = instances.response
        if response is None or response.status != CANCEL:
            raise CommandError(f"the retrieval was not cancelled: {response}")
        done = response.progress
        self._say(
            f"status {response.status:#06x} ({response.status.meaning}) in {span(seconds)}: {done.completed} completed, "
            f"{done.remaining} remaining"
        )
        await association.echo()
        self._say("the association lives on: a C-ECHO is answered")

    async def _move(self, association: Association, study: str) -> None:
        self._step(f"C-MOVE: the study to {_WORKSTATION}")
        start = perf_counter()
        moving = association.move(level="STUDY", StudyInstanceUID=study, destination=_WORKSTATION)
        with self._screen.bar("moving") as bar:
            async for progress in moving:
                bar.update(progress.completed or 0, progress.total)
        seconds = perf_counter() - start
        self._check(self._arrived)
        done = moving.progress
        self._say(
            f"{counted(done.completed or 0, 'sub-operation')} completed, {done.failed or 0} failed, in {span(seconds)}"
        )
        self._say(f"{counted(len(self._arrived), 'instance')} arrived, {size(sum(map(len, self._arrived.values())))}")

    def _check(self, data: dict[str, bytes]) -> None:
        """See that instances are what was stored.

        :raises CommandError: they are not.
        """
        from ..dataset import FileSource

        for uid, received in data.items():
            with FileSource.open(self._stored[uid]) as source:
                original = bytearray(source.size)
                source.read_into([memoryview(original)])
            # On the wire a data set has an even length.
            if bytes(original) + b"\0" * (len(original) % 2) != received:
                raise CommandError(f"{uid} is not what was stored")


@asynccontextmanager
async def _serving(
    services: Services, ae_title: str, peers: dict[str, Address] | None = None
) -> AsyncIterator[Address]:
    """Serve on a free port of this machine; gives the address."""
    from .. import Address, Server

    async with Server(services, Address(ae_title, "127.0.0.1", 0), called=[ae_title], peers=peers) as server:
        yield server.addresses[0]


def _outcome(response: Response) -> str:
    if response.status.is_success:
        return "stored"
    return f"refused, {response.status:#06x}: {response.error_comment or response.status.meaning}"
