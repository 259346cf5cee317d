"""pynetdicom's SCU against our SCPs: what the tests of the seed page share.

Our servers run in a thread of their own, on either backend, for as long as a module of tests does; pynetdicom runs in that of
the test. What it receives is recorded as pydicom decodes it, before pynetdicom makes anything of it.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal
from pydicom import Dataset
from pynetdicom import build_context, evt
from pynetdicom.dsutils import decode
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation

import asyncdicom
from asyncdicom import Address, Server, Services, sop
from asyncdicom._quiet import quiet
from asyncdicom.archive import Archive

from ..archive.multiframe import image
from ..archive.serving import fill, instance_files
from ..seed_page import FIND, GET, MOVE, REQUESTS
from .material import Sample, sample, study
from .peers import free_port, pynetdicom_scu
from .scp import Scp
from .scu import GOOD, OTHER, Handler, PeerAssociation, storage

__all__ = [
    "DOSE",
    "HANDLERS",
    "LOST",
    "MESSAGE_ID",
    "SHORT",
    "STORED",
    "ULTRASOUND",
    "Answer",
    "Asking",
    "Case",
    "Running",
    "asking",
    "check",
    "running_servers",
]

MESSAGE_ID = 0x7F07

#: Instances of several frames: they have times, they have none, there is less pixel data than it says there is.
ULTRASOUND = sample("examples_ybr_color.dcm")
DOSE = sample("rtdose.dcm")
SHORT = image(4, NumberOfFrames=40)

#: What the archives hold: files of pydicom's, and one that is made up.
STORED = (*study(), ULTRASOUND, DOSE)

#: The handlers of the cases, by the Patient ID of their identifiers.
HANDLERS: dict[str, Handler] = {}

_RESPONSES = (0x8010, 0x8020, 0x8021)
_NO_DATA_SET = 0x0101
_COUNTERS = ("Completed", "Failed", "Warning")
_PENDING = (0xFF00, 0xFF01)


# The servers


@dataclass(frozen=True, slots=True)
class Running:
    """Our servers on one backend, and pynetdicom's storage SCP that they move to.

    :ivar ports: the servers: ``handlers`` runs those of the cases; ``strict`` too, and refuses what it cannot count;
        ``archive`` has all of :data:`STORED`; ``gaps`` has lost the files of :data:`LOST`, ``ruined`` its index.
    """

    backend: str
    ports: Mapping[str, int]
    scp: Scp

    def resolve(self, title: str) -> Any:
        """Return the address of a C-MOVE destination."""
        if title == "BROKEN":
            raise RuntimeError("the directory of peers is broken")
        return {
            "DEST": Address("PYNETDICOM", "127.0.0.1", self.scp.port),
            "GONE": f"GONE@127.0.0.1:{free_port()}",
            "WRONG": ("127.0.0.1", "x"),
        }.get(title)


#: The instances whose files an archive has lost: a CT image, and the dose.
LOST = (next(item for item in study() if item.sop_class_uid == sop.CT_IMAGE_STORAGE), DOSE)


@contextmanager
def running_servers(backend: str, scp: Scp, folder: Path) -> Iterator[Running]:
    """Run our servers on a backend until the block is left."""
    ports: dict[str, int] = {}
    running = Running(backend, ports, scp)
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal(backend))

        def serve(name: str, services: Services) -> None:
            server = Server(services, "ASYNCDICOM@127.0.0.1:0", peers=running.resolve)
            stack.enter_context(portal.wrap_async_context_manager(server))
            ports[name] = server.addresses[0].port

        for name, saturate in (("handlers", True), ("strict", False)):
            serve(name, _services(saturate))
        for name in ("archive", "gaps", "ruined"):
            fill(folder / name, [*(item.instance() for item in STORED), SHORT])
            archive = Archive(folder / name, sync="never")
            stack.enter_context(portal.wrap_async_context_manager(archive))
            serve(name, archive.services)
        _damage(folder)
        yield running


def _services(saturate: bool) -> Services:
    services = Services()
    services.saturate_counters = saturate
    services.find(*sop.FIND)(_handle)
    services.retrieve(*sop.GET, *sop.MOVE)(_handle)

    @services.on_request
    async def authorise(request: asyncdicom.Request) -> bool:
        return request.association.peer.ae_title != "STRANGER" or isinstance(request, asyncdicom.EchoRequest)

    return services


def _handle(request: asyncdicom.FindRequest | asyncdicom.RetrieveRequest) -> Any:
    return HANDLERS[str(request.identifier.PatientID)](request)


def _damage(folder: Path) -> None:
    """Take files away from one archive, and from another its index."""
    lost = {item.sop_instance_uid for item in LOST}
    for path in instance_files(folder / "gaps"):
        if any(uid in path.name for uid in lost):
            path.unlink()
    with closing(sqlite3.connect(folder / "ruined" / "index.sqlite")) as connection:
        for name in ("instances", "series", "studies", "patients"):
            connection.execute(f"DROP TABLE {name}")
        connection.commit()


# The cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A condition, and what pynetdicom must be told of it.

    :ivar when: the condition, in words.
    :ivar at: the server, see :attr:`Running.ports`.
    :ivar handler: what the server does, unless it is an archive.
    :ivar keys: of the identifier.
    :ivar send: how it is asked for.
    :ivar to: the Move Destination.
    :ivar syntax: the only transfer syntax that is proposed for the identifier; ``None``: all native ones.
    :ivar stores: what the storage SCP answers, or a function of the :class:`Asking` and pynetdicom's event.
    :ivar proposed: what contexts are there for, for a C-GET.
    :ivar pending: the statuses of the pending responses; ``None``: some.
    :ivar counters: Completed, Failed and Warning in the final response of a retrieval.
    :ivar remaining: Remaining, with a Cancel.
    :ivar left: sub-operations that no counter of the final response counts, because the handler ended it early.
    :ivar failed: the Failed SOP Instance UID List.
    :ivar comment: a pattern of Error Comment; ``None``: there is none.
    :ivar offending: the tags of Offending Element.
    :ivar complains: a pattern of what pynetdicom may log.
    """

    service: str
    status: int
    when: str
    at: str = "handlers"
    model: str
    handler: Handler | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)
    send: Callable[[Asking], None]
    to: str = "DEST"
    calling: str = "PYNETDICOM"
    syntax: str | None = None
    stores: Any = 0x0000
    proposed: tuple[Sample, ...] = (GOOD, OTHER)
    roles: bool = True
    window: int = 1
    pending: tuple[int, ...] | None = ()
    counters: tuple[int, int, int] = (0, 0, 0)
    remaining: int | None = None
    left: int = 0
    failed: tuple[str, ...] = ()
    comment: str | None = None
    offending: tuple[int, ...] = ()
    complains: str | None = None

    def __str__(self) -> str:
        return f"{self.service}-{self.status:04X}-{self.when}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it came.

    :ivar command: its command set, decoded by pydicom.
    :ivar data: its data set, or ``None``.
    """

    command: Dataset
    data: bytes | None

    @property
    def status(self) -> int:
        return int(self.command.Status)

    def counters(self, *names: str) -> tuple[int | None, ...]:
        """Return the counters of sub-operations."""
        return tuple(self.command.get(f"NumberOf{name}Suboperations") for name in names or _COUNTERS)


class Asking:
    """An association of pynetdicom's with a server of ours, on which a case is asked for.

    :ivar answers: the responses that came.
    :ivar stored: the data sets that the storage SCP was given, by SOP Instance UID: on this association, or as a destination.
    :ivar originators: the AE titles and Message IDs of the C-MOVE that they came with.
    :ivar ended: set when the final response has come.
    """

    def __init__(self, case: Case) -> None:
        self.association: PeerAssociation = None
        self.answers: list[Answer] = []
        self.stored: dict[str, bytes] = {}
        self.originators: set[tuple[str, int]] = set()
        self.ended = threading.Event()
        self.begin(case)

    def begin(self, case: Case) -> None:
        """Turn to a case; what an earlier one has brought is forgotten."""
        self.case = case
        self.answers.clear()
        self.stored.clear()
        self.originators.clear()
        self.ended.clear()

    @property
    def identifier(self) -> Dataset:
        """The identifier of the case."""
        made = Dataset()
        with quiet():
            for keyword, value in self.case.keys.items():
                setattr(made, keyword, value)
        return made

    def context(self, model: str | None = None) -> Any:
        """Return the context of a SOP class."""
        wanted = model or self.case.model
        return next(c for c in self.association.accepted_contexts if c.abstract_syntax == wanted)

    def decoded(self, answer: Answer) -> Dataset:
        """Decode the identifier of a response."""
        assert answer.data is not None
        syntax = self.context().transfer_syntax[0]
        with quiet():
            return decode(BytesIO(answer.data), syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)

    def responses(self) -> Iterator[tuple[Dataset, Dataset | None]]:
        """Send the request as pynetdicom does, and iterate over what it makes of the responses."""
        case, association = self.case, self.association
        if case.service == MOVE:
            found = association.send_c_move(self.identifier, case.to, case.model, msg_id=MESSAGE_ID)
        else:
            send = association.send_c_find if case.service == FIND else association.send_c_get
            found = send(self.identifier, case.model, msg_id=MESSAGE_ID)
        return iter(found)

    def record(self, event: Any) -> None:
        """Record a response that has just come."""
        command = event.message.command_set
        if command.CommandField in _RESPONSES:
            has_data = command.CommandDataSetType != _NO_DATA_SET
            copy = Dataset()
            copy.update({element.tag: element for element in command})
            self.answers.append(Answer(copy, event.message.data_set.getvalue() if has_data else None))
            if command.Status not in _PENDING:
                self.ended.set()

    def store(self, event: Any) -> Any:
        """Take an instance, and answer as the case wants."""
        request = event.request
        self.stored[str(request.AffectedSOPInstanceUID)] = request.DataSet.getvalue()
        if self.case.service == MOVE:
            self.originators.add((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        stores = self.case.stores
        return stores(self, event) if callable(stores) else stores


@contextmanager
def asking(running: Running, case: Case, *more: str) -> Iterator[Asking]:
    """Associate for a case.

    :param more: other SOP classes to propose.
    """
    asked = Asking(case)
    running.scp.reset()
    running.scp.handlers["store"] = asked.store
    classes = [uid for uid in (*more, sop.VERIFICATION) if uid != case.model]
    model = build_context(case.model) if case.syntax is None else build_context(case.model, case.syntax)
    contexts = [model, *map(build_context, classes), *(storage(*case.proposed) if case.service == GET else ())]
    window: Any = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = case.window
    options: dict[str, Any] = {
        "ae_title": case.calling,
        "roles": {item.sop_class_uid for item in case.proposed} if case.roles and case.service == GET else (),
        "negotiation": [window] if case.window > 1 else [],
        "handlers": [(evt.EVT_DIMSE_RECV, asked.record), (evt.EVT_C_STORE, asked.store)],
    }
    with quiet(), pynetdicom_scu(running.ports[case.at], contexts, **options) as asked.association:
        assert asked.association.is_established, "pynetdicom was not let in"
        yield asked
        # The association is usable after whatever happened.
        assert asked.association.send_c_echo().Status == 0x0000


# What is checked


def check(asked: Asking) -> None:
    """Check the responses to a case: PS3.7 9.1.2 to 9.1.4, PS3.4 C.4.1 to C.4.3."""
    case = asked.case
    *pendings, last = asked.answers
    assert f"{last.status:04X}" == f"{case.status:04X}", last.command
    statuses = tuple(answer.status for answer in pendings)
    assert statuses == case.pending if case.pending is not None else set(statuses) == {0xFF00}
    for answer in asked.answers:
        _check_message(case, answer)
    if case.service == FIND:
        _check_matches(asked, pendings)
    else:
        _check_progress(case, pendings)
    _check_final(asked, last)


def _check_message(case: Case, answer: Answer) -> None:
    """Check what is in every response (PS3.7 9.3.2.2, 9.3.3.2, 9.3.4.2)."""
    command = answer.command
    assert command.MessageIDBeingRespondedTo == MESSAGE_ID
    assert command.CommandField == 0x8000 | REQUESTS[case.service]
    assert (answer.data is None) == (command.CommandDataSetType == _NO_DATA_SET)
    assert answer.data != b""
    comment = command.get("ErrorComment")
    assert comment is None or (0 < len(comment) <= 64 and comment.isprintable())
    if answer.status in _PENDING:
        assert comment is None
        assert "OffendingElement" not in command


def _check_matches(asked: Asking, pendings: list[Answer]) -> None:
    """Check that each has an identifier and no counters, and that the final response has neither (PS3.4 C.4.1.1.3.2)."""
    for answer in pendings:
        assert len(asked.decoded(answer))
    assert asked.answers[-1].data is None
    for answer in asked.answers:
        assert answer.counters("Remaining", *_COUNTERS) == (None,) * 4


def _check_progress(case: Case, pendings: list[Answer]) -> None:
    """Check that each has all four counters and no data set (PS3.4 C.4.2.1.6 to C.4.2.1.9)."""
    total = sum(case.counters) + (case.remaining or case.left)
    before = (0, 0, 0)
    for answer in pendings:
        assert answer.data is None
        found = tuple(int(count) for count in answer.counters("Remaining", *_COUNTERS) if count is not None)
        assert len(found) == 4
        assert sum(found) == total
        assert all(new >= old for new, old in zip(found[1:], before, strict=True))
        before = found[1:]


def _check_final(asked: Asking, last: Answer) -> None:
    case, command = asked.case, last.command
    if case.service != FIND:
        assert last.counters() == case.counters
        # Only a Cancel may have it (PS3.4 C.4.2.1.6).
        assert last.counters("Remaining") == (case.remaining,)
        assert sorted(_failed_list(asked, last)) == sorted(case.failed)
    comment = command.get("ErrorComment")
    assert (comment is None) is (case.comment is None), comment
    assert case.comment is None or re.search(case.comment, comment), comment
    offending = command.get("OffendingElement")
    tags = () if offending is None else (offending,) if isinstance(offending, int) else tuple(offending)
    assert tuple(int(tag) for tag in tags) == case.offending


def _failed_list(asked: Asking, answer: Answer) -> list[str]:
    """Return the Failed SOP Instance UID List; an identifier has nothing else (PS3.4 C.4.2.1.4.2)."""
    if answer.data is None:
        return []
    (element,) = asked.decoded(answer)
    assert element.keyword == "FailedSOPInstanceUIDList"
    assert element.value
    return [element.value] if isinstance(element.value, str) else list(element.value)
