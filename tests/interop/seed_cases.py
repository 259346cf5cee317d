"""The conditions under which our SCPs give each status of the seed page, in the order of the page."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from anyio import to_thread
from pydicom import Dataset
from pynetdicom.dimse_messages import C_CANCEL_RQ, C_FIND_RQ
from pynetdicom.dimse_primitives import C_CANCEL, C_GET, C_MOVE
from pynetdicom.dsutils import encode
from pynetdicom.pdu import P_DATA_TF

import asyncdicom
from asyncdicom import StatusError, sop

from ..seed_page import FIND, GET, MOVE, models
from .material import Sample, part10, study
from .scu import (
    COMPRESSED,
    GOOD,
    IDENTIFIER,
    OTHER,
    UNPROPOSED,
    Handler,
    find_primitive,
    match,
    raw,
    raw_responses,
    retrieve_primitive,
    unencodable,
    with_status,
    yields,
)
from .seed_scu import DOSE, HANDLERS, LOST, MESSAGE_ID, SHORT, ULTRASOUND, Asking, Case

__all__ = ["CASES", "OF_PATIENT", "PATIENT", "as_usual", "of"]

Values = dict[str, Any]

#: Whose instances the archives are asked for.
PATIENT = "77654033"
OF_PATIENT = tuple(item for item in study() if item.header().PatientID == PATIENT)
SHORT_UID = str(SHORT.SOPInstanceUID)
QUERY_RETRIEVE_LEVEL, PATIENT_ID, STUDY_UID = 0x00080052, 0x00100020, 0x0020000D
FRAME_KEYS = (0x00081161, 0x00081162, 0x00081163)

CASES: list[Case] = []


# How a case is asked for


def as_usual(asked: Asking) -> None:
    """Send the request as pynetdicom does; what it makes of the responses is what came."""
    found = list(asked.responses())
    assert [status.Status for status, _ in found] == [answer.status for answer in asked.answers]


def primitive(asked: Asking, identifier: bytes | None, model: str | None = None) -> Any:
    """Return a request that pynetdicom would not send of its own accord."""
    case = asked.case
    if case.service == FIND:
        return find_primitive(model or case.model, identifier, MESSAGE_ID)
    made = retrieve_primitive(C_GET if case.service == GET else C_MOVE, model or case.model, identifier, case.to)
    made.MessageID = MESSAGE_ID
    return made


def garbled(asked: Asking) -> None:
    """Send an identifier that cannot be decoded."""
    raw(asked.association, primitive(asked, bytes(range(256))), asked.context().context_id)


def of_another_class(asked: Asking) -> None:
    """Name a SOP class that is not that of the context."""
    made = primitive(asked, IDENTIFIER, sop.MODALITY_WORKLIST_INFORMATION_MODEL_FIND)
    raw(asked.association, made, asked.context().context_id)


def without_identifier(asked: Asking) -> None:
    """Leave the identifier out."""
    raw(asked.association, primitive(asked, None), asked.context().context_id)


def without_destination(asked: Asking) -> None:
    """Leave the Move Destination blank."""
    made = primitive(asked, IDENTIFIER)
    made._move_destination = "    "
    raw(asked.association, made, asked.context().context_id)


def twice(asked: Asking) -> None:
    """Send the same Message ID again while the first request is being performed."""
    GATE.clear()
    context_id = asked.context().context_id
    requests = [primitive(asked, encoded(asked)) for _ in range(2)]
    responses = raw_responses(asked.association, requests, context_id)
    try:
        next(responses)
        (refused,) = asked.answers
    finally:
        GATE.set()
    next(responses)
    responses.close()
    assert [answer.status for answer in asked.answers] == [refused.status, 0x0000]
    asked.answers.pop()


def of_find_class(asked: Asking) -> None:
    """Ask for the operation on a class that only has C-FIND."""
    made = primitive(asked, IDENTIFIER, sop.STUDY_ROOT_FIND)
    raw(asked.association, made, asked.context(sop.STUDY_ROOT_FIND).context_id)


def encoded(asked: Asking) -> bytes:
    """Encode the identifier, as pynetdicom does."""
    syntax = asked.context().transfer_syntax[0]
    data = encode(asked.identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert data is not None
    return data


def cancelling(after: int) -> Callable[[Asking], None]:
    """Return how to cancel after some pending responses."""

    def send(asked: Asking) -> None:
        found = asked.responses()
        for _ in range(after):
            next(found)
        cancel(asked)
        assert next(found)[0].Status == 0xFE00

    return send


def cancel(asked: Asking) -> None:
    asked.association.send_c_cancel(MESSAGE_ID, query_model=asked.case.model)


def cancelling_in_one_segment(asked: Asking) -> None:
    """Send the request and its C-CANCEL in one piece, as pynetdicom encodes them."""
    context = asked.context()
    cancelled = C_CANCEL()
    cancelled.MessageIDBeingRespondedTo = MESSAGE_ID
    piece = b""
    for message, one in ((C_FIND_RQ(), primitive(asked, encoded(asked))), (C_CANCEL_RQ(), cancelled)):
        message.primitive_to_message(one)
        for fragment in message.encode_msg(context.context_id, 16382):
            pdu = P_DATA_TF()
            pdu.from_primitive(fragment)
            piece += pdu.encode()
    responses = raw_responses(asked.association, [], context.context_id)
    asked.association.dul.socket.send(piece)
    while next(responses).Status != 0xFE00:
        pass
    responses.close()


def cancels_at_the_first(asked: Asking, event: Any) -> int:
    """Cancel in answering a sub-operation."""
    if len(asked.stored) == 1:
        cancel(asked)
    return 0x0000


def cancels_and_waits(asked: Asking, event: Any) -> int:
    """Cancel, and let the sub-operation wait until the retrieval has ended."""
    cancel(asked)
    asked.ended.wait(20)
    return 0x0000


# What handlers do

GATE = threading.Event()


async def waits_for_the_gate(request: asyncdicom.RetrieveRequest) -> AsyncIterator[Any]:
    await to_thread.run_sync(GATE.wait)
    yield 0x0000, None


def never_ends(*items: Any, total: int | None = None) -> Handler:
    async def handler(request: Any) -> AsyncIterator[Any]:
        if total is not None:
            request.total = total
        for item in items:
            yield item
        await anyio.sleep_forever()

    return handler


def fails_at_once(request: Any) -> Any:
    raise ValueError("a bug")


def fails_for_ct(asked: Asking, event: Any) -> int:
    return 0xA700 if event.request.AffectedSOPClassUID == sop.CT_IMAGE_STORAGE else 0x0000


def warns_for_ct(asked: Asking, event: Any) -> int:
    return 0xB000 if event.request.AffectedSOPClassUID == sop.CT_IMAGE_STORAGE else 0x0000


# The table


def add(service: str, status: int, when: str, handler: Handler | None = None, **values: Any) -> None:
    """Add a case; one with a handler has an identifier that names it."""
    if handler is not None:
        name = f"CASE {len(HANDLERS)}"
        HANDLERS[name] = handler
        values["keys"] = {"QueryRetrieveLevel": "PATIENT", "PatientID": name}
    values = {"model": models(service)[0], "send": as_usual, **values}
    CASES.append(Case(service=service, status=status, when=when, handler=handler, **values))


def of(level: str, **keys: Any) -> dict[str, Any]:
    """Return the keys of an identifier."""
    return {"QueryRetrieveLevel": level, **keys}


def uids(*items: Sample) -> tuple[str, ...]:
    return tuple(item.sop_instance_uid for item in items)


#: How identifiers may be encoded besides Explicit VR Little Endian, which we prefer.
SYNTAXES = (
    sop.IMPLICIT_VR_LITTLE_ENDIAN,
    sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_BIG_ENDIAN,
)
MATCHES = match(PatientName="A"), match(PatientName="B")
#: What an archive is asked for by C-FIND, and how many matches that has.
STUDIES: Values = {"at": "archive", "keys": of("STUDY", PatientID=PATIENT, StudyInstanceUID="")}
STUDY_COUNT = len({str(item.header().StudyInstanceUID) for item in OF_PATIENT})
#: What an archive is asked for by C-GET and C-MOVE.
WHOLE: Values = {"at": "archive", "keys": of("PATIENT", PatientID=PATIENT), "proposed": OF_PATIENT}
COUNT = len(OF_PATIENT)
#: How a retrieval of one instance, and of two, goes on until then.
ONE: Values = {"pending": (0xFF00,), "counters": (1, 0, 0)}
TWO: Values = {"pending": (0xFF00, 0xFF00)}
FRAME_MODELS = {GET: sop.COMPOSITE_INSTANCE_ROOT_GET, MOVE: sop.COMPOSITE_INSTANCE_ROOT_MOVE}


def find_statuses() -> None:
    """PS3.7 C, and what PS3.4 C.4.1.1.4 adds."""
    first, second = MATCHES
    pending = {"pending": (0xFF00,)}
    add(FIND, 0x0000, "nothing matches", yields())
    add(FIND, 0x0000, "after the last match", yields(*MATCHES), **TWO)
    add(FIND, 0x0000, "the handler says so", yields(first, (0x0000, None), second), **pending)
    add(FIND, 0x0000, "archive: nothing matches", at="archive", keys=of("PATIENT", PatientID="NOBODY"))
    add(FIND, 0x0122, "not the class of the context", send=of_another_class, comment="SOP class")
    add(FIND, 0x0122, "the handler says so", yields((0x0122, None)))
    add(FIND, 0xFE00, "C-CANCEL at once", never_ends(), send=cancelling(0))
    add(FIND, 0xFE00, "C-CANCEL after two matches", never_ends(*MATCHES), send=cancelling(2), **TWO)
    add(FIND, 0xFE00, "the handler says so", yields(first, (0xFE00, None)), **pending)
    add(FIND, 0xFE00, "archive: C-CANCEL in the same segment", **STUDIES, send=cancelling_in_one_segment)

    add(FIND, 0xA700, "OSError", yields(OSError(28, "no space")), comment="ENOSPC")
    add(FIND, 0xA700, "MemoryError after a match", yields(first, MemoryError()), comment="MemoryError", **pending)
    add(FIND, 0xA700, "the handler says so", yields((0xA700, None)))
    add(FIND, 0xA700, "archive: it has no index", **STUDIES | {"at": "ruined"}, comment="OSError")
    mismatches(FIND)
    unable_to_process(FIND, [first], **pending)
    add(FIND, 0x0000, "FF00 for each match", yields(*MATCHES, (0xFF00, first)), pending=(0xFF00,) * 3)
    add(FIND, 0x0000, "archive: FF00 for each match", **STUDIES, pending=(0xFF00,) * STUDY_COUNT)
    for syntax in SYNTAXES:
        add(
            FIND,
            0x0000,
            f"archive: FF00 in {syntax.keyword}",
            **STUDIES,
            syntax=syntax,
            pending=(0xFF00,) * STUDY_COUNT,
        )
    add(FIND, 0x0000, "FF01 for a match", yields((0xFF01, first), second), pending=(0xFF01, 0xFF00))
    unknown = STUDIES | {"keys": STUDIES["keys"] | {"PixelAspectRatio": ""}}
    add(FIND, 0x0000, "archive: FF01 for a key it does not know", **unknown, pending=(0xFF01,) * STUDY_COUNT)


def find_statuses_of_ours() -> None:
    """What is within 0xC000 to 0xCFFF."""
    first, _ = MATCHES
    pending = {"pending": (0xFF00,)}
    bad_statuses(FIND, [first], **pending)
    add(FIND, 0xC310, "the identifier is garbage", send=garbled, comment="decoded")
    add(FIND, 0xC310, "archive: the identifier is garbage", at="archive", send=garbled, comment="decoded")
    add(FIND, 0xC310, "there is no identifier", send=without_identifier, comment="decoded")
    add(FIND, 0xC311, "before a match", yields(ValueError("a bug")), comment="handler failed")
    add(FIND, 0xC311, "after a match", yields(first, KeyError("a bug")), comment="handler failed", **pending)
    add(FIND, 0xC311, "before it is a generator", fails_at_once, comment="handler failed")
    for what, item in (("None", (0xFF00, None)), ("an empty match", Dataset()), ("nonsense", unencodable())):
        add(FIND, 0xC312, f"the handler yields {what}", yields(first, item), comment="encoded", **pending)


#: Identifiers that do not fit their information model, and what of them is to blame: the place of the model among those of
#: the service, the keys, the tag.
MISMATCHES: list[tuple[str, int, Values, int]] = [
    ("no level", 0, {"PatientID": PATIENT}, QUERY_RETRIEVE_LEVEL),
    ("an unknown level", 0, of("VOLUME", PatientID=PATIENT), QUERY_RETRIEVE_LEVEL),
    ("a level above the model", 1, of("PATIENT", PatientID=PATIENT), QUERY_RETRIEVE_LEVEL),
    ("a level below the model", 2, of("SERIES", PatientID=PATIENT), QUERY_RETRIEVE_LEVEL),
    ("no key above", 0, of("STUDY", StudyInstanceUID="1.2"), PATIENT_ID),
    ("a wildcard in a key above", 0, of("STUDY", PatientID="7*", StudyInstanceUID="1.2"), PATIENT_ID),
    ("two values above", 1, of("SERIES", StudyInstanceUID=["1.2", "1.3"], SeriesInstanceUID="1.2"), STUDY_UID),
    ("a wildcard in a UID", 1, of("STUDY", StudyInstanceUID="1.2.*"), STUDY_UID),
]
RETRIEVAL_MISMATCHES: list[tuple[str, int, Values, int]] = [
    ("no key of the level", 0, of("PATIENT"), PATIENT_ID),
    ("an unknown key", 1, of("STUDY", StudyInstanceUID="1.2", PixelAspectRatio=["1", "2"]), 0x00280034),
]


def mismatches(service: str) -> None:
    """0xA900."""
    add(service, 0xA900, "the handler says so", yields(StatusError(0xA900, "no level")), comment="no level")
    for when, place, keys, tag in MISMATCHES + (RETRIEVAL_MISMATCHES if service != FIND else []):
        asked: Values = {"at": "archive", "model": models(service)[place], "keys": keys}
        add(service, 0xA900, f"archive: {when}", **asked, comment=".", offending=(tag,))


def unable_to_process(service: str, before: list[Any], **more: Any) -> None:
    """0xC000 to 0xCFFF: codes of the handler's own, with what is wrong."""
    tags = (0x00100020, 0x00080052)
    status = with_status(0xC123, comment="the reason", offending=list(tags))
    add(service, 0xC000, "the first", yields(*before, (0xC000, None)), **more)
    add(service, 0xC123, "raised", yields(*before, StatusError(0xC123, "é")), comment=r"^\?$", **more)
    add(service, 0xC123, "with reasons", yields(*before, (status, None)), comment="reason", offending=tags, **more)
    add(service, 0xCFFF, "the last", yields(*before, (0xCFFF, None)), **more)


def bad_statuses(service: str, before: list[Any], **more: Any) -> None:
    """0xC001 and 0xC002: what the handler gives is no status."""
    add(service, 0xC001, "no Status", yields(*before, (with_status(None), None)), comment="without Status", **more)
    for what, value in (("a text", "0000"), ("None", None), ("negative", -1), ("too large", 0x10000), ("a bool", True)):
        add(service, 0xC002, what, yields(*before, (value, None)), comment="status", **more)


def retrieval_statuses(service: str) -> None:
    """PS3.7 C."""
    good, other = GOOD.instance(), OTHER.instance()
    add(service, 0x0000, "nothing matches", yields(total=0))
    add(service, 0x0000, "no sub-operation", yields(0))
    add(service, 0x0000, "all are done", yields(2, good, other), counters=(2, 0, 0), **TWO)
    add(service, 0x0000, "a path and a data set", yields(GOOD.path, part10(OTHER), total=2), counters=(2, 0, 0), **TWO)
    add(service, 0x0000, "the handler says so", yields(2, good, (0x0000, None)), left=1, **ONE)
    add(service, 0x0000, "more than it announced", yields(1, good, other), **ONE)
    add(service, 0x0000, "archive: nothing matches", **WHOLE | {"keys": of("PATIENT", PatientID="NOBODY")})
    add(service, 0x0000, "archive: all are done", **WHOLE, pending=None, counters=(COUNT, 0, 0))
    add(service, 0x0122, "not the class of the context", send=of_another_class, comment="SOP class")
    add(service, 0x0122, "the handler says so", yields((0x0122, None)))
    add(service, 0x0124, "not authorised", yields(1, good), calling="STRANGER", comment="authorised")
    add(service, 0x0124, "the handler says so", yields((0x0124, None)))
    add(service, 0x0210, "the same Message ID again", waits_for_the_gate, send=twice, window=4)
    if service == MOVE:
        add(MOVE, 0x0211, "a class that has no C-MOVE", send=of_find_class, comment="operation")
        add(MOVE, 0x0212, "there is no Move Destination", send=without_destination, comment="Destination")
    add(service, 0x0212, "there is no identifier", send=without_identifier, comment="identifier")
    add(service, 0xFE00, "C-CANCEL at once", never_ends(total=9), send=cancelling(0), remaining=0)
    add(
        service, 0xFE00, "C-CANCEL after an instance", never_ends(good, total=9), send=cancelling(1), remaining=8, **ONE
    )
    add(service, 0xFE00, "the handler says so", yields(3, good, (0xFE00, None)), remaining=2, **ONE)
    failed: Values = {"stores": 0xA700, "pending": (0xFF00,), "counters": (0, 1, 0), "failed": uids(GOOD)}
    add(
        service,
        0xFE00,
        "C-CANCEL after a failure",
        never_ends(good, total=9),
        send=cancelling(1),
        remaining=8,
        **failed,
    )
    cancelled: Values = {"stores": cancels_at_the_first, "counters": (1, 0, 0), "remaining": COUNT - 1}
    if service == MOVE:
        cancelled = {
            "stores": cancels_and_waits,
            "remaining": COUNT,
            "complains": "(?i)invalid event|closed connection|DUL.run",
        }
    add(service, 0xFE00, "archive: C-CANCEL during an instance", **WHOLE, **cancelled)


def retrieval_statuses_of_the_service(service: str) -> None:
    """What PS3.4 C.4.2.1.5 and C.4.3.1.4 add."""
    good, other = GOOD.instance(), OTHER.instance()
    for error in (OSError("the index is gone"), MemoryError()):
        name = type(error).__name__
        add(service, 0xA701, f"{name} before the number is known", yields(error), comment=name)
        add(service, 0xA702, f"{name} after that", yields(2, good, error), comment=name, left=1, **ONE)
    add(service, 0xA701, "the handler says so", yields((0xA701, None)))
    add(service, 0xA701, "archive: it has no index", **WHOLE | {"at": "ruined"}, comment="OSError")
    failing: Values = {"counters": (0, 2, 0), "comment": "all sub-operations failed"}
    add(
        service, 0xA702, "all failed", yields(2, good, other), stores=0xA700, failed=uids(GOOD, OTHER), **failing, **TWO
    )
    add(service, 0xA702, "none came", yields(2), **failing)
    dose: Values = {"at": "gaps", "keys": of("PATIENT", PatientID=str(DOSE.header().PatientID)), "proposed": (DOSE,)}
    gone: Values = {"counters": (0, 1, 0), "failed": uids(DOSE), "comment": "all sub-operations failed"}
    add(service, 0xA702, "archive: the files are gone", **dose, **gone, pending=(0xFF00,))
    nothing: Values = WHOLE | {"pending": None, "counters": (0, COUNT, 0), "failed": uids(*OF_PATIENT)}
    if service == GET:
        add(GET, 0xA702, "archive: no role", **nothing, roles=False, comment="all sub-operations failed")
    else:
        add(MOVE, 0xA702, "archive: the destination is away", **nothing, to="GONE", comment="unreachable: .*refused")
        add(MOVE, 0xA801, "not a peer", yields(1, good), to="STRANGER", comment="not known")
        add(MOVE, 0xA801, "the handler says so", yields((0xA801, None)))
        add(MOVE, 0xA801, "archive: not a peer", **WHOLE, to="STRANGER", comment="not known")
    mismatches(service)
    frames(service)
    warnings(service)
    unable_to_process(service, [1, good], **ONE)
    add(service, 0x0000, "FF00 for each", yields(3, good, other, good), pending=(0xFF00,) * 3, counters=(3, 0, 0))
    add(service, 0x0000, "FF00 by the handler", yields(1, (0xFF00, None), good), counters=(1, 0, 0), **TWO)


#: Which frames of which instance cannot be taken out: the archive, the keys, the elements that are to blame.
FRAMES: list[tuple[int, str, str, str, Values, tuple[int, ...]]] = [
    (0xAA00, "no such frames", "archive", ULTRASOUND.sop_instance_uid, {"SimpleFrameList": [31, 40]}, ()),
    (0xAA00, "no such times", "archive", ULTRASOUND.sop_instance_uid, {"TimeRange": [100.0, 200.0]}, ()),
    (0xAA01, "a single image", "archive", OF_PATIENT[0].sop_instance_uid, {"SimpleFrameList": 1}, ()),
    (0xAA02, "less pixel data than it says", "archive", SHORT_UID, {"SimpleFrameList": 39}, ()),
    (0xAA02, "the file is gone", "gaps", DOSE.sop_instance_uid, {"SimpleFrameList": 1}, ()),
    (0xAA03, "frames without times", "archive", DOSE.sop_instance_uid, {"TimeRange": [0.0, 1.0]}, ()),
    (0xAA04, "no key", "archive", DOSE.sop_instance_uid, {}, FRAME_KEYS),
    (
        0xAA04,
        "two keys",
        "archive",
        DOSE.sop_instance_uid,
        {"SimpleFrameList": 1, "TimeRange": [0.0, 1.0]},
        FRAME_KEYS[::2],
    ),
    (0xAA04, "frame 0", "archive", DOSE.sop_instance_uid, {"SimpleFrameList": [0, 1]}, FRAME_KEYS[:1]),
    (0xAA04, "no 3-tuple", "archive", DOSE.sop_instance_uid, {"CalculatedFrameList": [1, 2]}, FRAME_KEYS[1:2]),
    (
        0xAA04,
        "a time before its start",
        "archive",
        ULTRASOUND.sop_instance_uid,
        {"TimeRange": [2.0, 1.0]},
        FRAME_KEYS[2:],
    ),
]


def frames(service: str) -> None:
    """0xAA00 to 0xAA04: PS3.4 Y.4."""
    model = FRAME_MODELS[service]
    for status, when, server, uid, keys, offending in FRAMES:
        asked: Values = {"at": server, "model": model, "keys": of("FRAME", SOPInstanceUID=uid, **keys)}
        add(service, status, f"archive: {when}", **asked, comment=".", offending=offending)
    for status in range(0xAA00, 0xAA05):
        add(service, status, "the handler says so", yields(StatusError(status, "so")), model=model, comment="so")


def warnings(service: str) -> None:
    """0xB000: some sub-operations failed, or were done with warnings."""
    good, other = GOOD.instance(), OTHER.instance()
    two = yields(2, good, other)
    add(service, 0xB000, "one failed", two, stores=fails_for_ct, counters=(1, 1, 0), failed=uids(OTHER), **TWO)
    for syntax in SYNTAXES:
        some: Values = {"syntax": syntax, "stores": fails_for_ct, "counters": (1, 1, 0), "failed": uids(OTHER)}
        add(service, 0xB000, f"one failed, in {syntax.keyword}", two, **some, **TWO)
    add(service, 0xB000, "with warnings", two, stores=0xB006, counters=(0, 0, 2), **TWO)
    mixed: Values = {"stores": warns_for_ct, "counters": (1, 0, 1)}
    add(service, 0xB000, "one with a warning", two, **mixed, **TWO)
    add(service, 0xB000, "fewer than it announced", yields(4, good), counters=(1, 3, 0), pending=(0xFF00,))
    add(service, 0xB000, "a file is gone", yields(2, GOOD.path.with_name("gone.dcm"), good), counters=(1, 1, 0), **TWO)
    add(service, 0xB000, "the handler says so", yields(1, good, (0xB000, None)), **ONE)
    if service == GET:
        failed: Values = {"counters": (1, 2, 0), "failed": uids(COMPRESSED, UNPROPOSED), "pending": (0xFF00,) * 3}
        add(GET, 0xB000, "no context", yields(3, COMPRESSED.instance(), UNPROPOSED.path, good), **failed)
    lost: Values = {"at": "gaps", "pending": None, "counters": (COUNT - 1, 1, 0), "failed": uids(LOST[0])}
    add(service, 0xB000, "archive: a file is gone", **WHOLE | lost)
    refused = uids(*(item for item in OF_PATIENT if item.sop_class_uid == sop.CT_IMAGE_STORAGE))
    some = {"pending": None, "counters": (COUNT - len(refused), len(refused), 0), "failed": refused}
    add(service, 0xB000, "archive: some are refused", **WHOLE, **some, stores=fails_for_ct)


def retrieval_statuses_of_ours(service: str) -> None:
    """What is within 0xC000 to 0xCFFF; 0xC416 and 0xC516 are not on the page."""
    good = GOOD.instance()
    base = 0xC400 if service == GET else 0xC500
    bad_statuses(service, [1, good], **ONE)
    add(service, base + 0x10, "the identifier is garbage", send=garbled, comment="decoded")
    add(service, base + 0x10, "archive: the identifier is garbage", **WHOLE, send=garbled, comment="decoded")
    add(service, base + 0x11, "before an instance", yields(1, ValueError("a bug")), comment="handler failed", left=1)
    add(service, base + 0x11, "after an instance", yields(1, good, KeyError("a bug")), comment="handler failed", **ONE)
    failed: Values = {"stores": 0xA700, "pending": (0xFF00,), "counters": (0, 1, 0), "failed": uids(GOOD)}
    add(service, base + 0x11, "after a failure", yields(1, good, KeyError("a bug")), comment="handler failed", **failed)
    add(service, base + 0x11, "before it is a generator", fails_at_once, comment="handler failed")
    add(service, base + 0x11, "what is no instance", yields(1, object()), comment="handler failed")
    for what, items in (
        ("-1", (-1, good)),
        ("a bool", (True, good)),
        ("a text", ("many",)),
        ("none", (good,)),
        ("nothing", ()),
    ):
        add(service, base + 0x13, f"the number is {what}", yields(*items), comment="number of sub-operations")
    add(service, base + 0x16, "the number is too large", yields(70_000, good), at="strict", comment="70000")
    if service == MOVE:
        add(MOVE, 0xC514, "the destination cannot be looked up", yields(1, good), to="BROKEN", comment="resolving")
        add(MOVE, 0xC515, "the destination has no address", yields(1, good), to="WRONG", comment="address")


find_statuses()
find_statuses_of_ours()
for _service in (GET, MOVE):
    retrieval_statuses(_service)
    retrieval_statuses_of_the_service(_service)
    retrieval_statuses_of_ours(_service)
