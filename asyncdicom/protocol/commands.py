"""The DIMSE messages and the codec of their command sets (PS3.7 9.3, 10.3 and Annex E).

Theory of operation
-------------------
A command set is a data set of group 0000 in Implicit VR Little Endian without sequences, whatever transfer syntax was
negotiated (PS3.7 6.3.1). :data:`ELEMENTS` lists its elements with their value representations; a message is a dataclass
whose fields are named by the keywords of its elements, so that what belongs to which message is said once, by the
fields. From the two, one plan for each class is made at import, and :func:`encode` and :func:`decode` follow it.

What a peer sends is read leniently where nothing depends on it: a group length that is wrong or missing, the order,
padding, and elements that are unknown or belong to other messages, which are kept. It is refused with
:class:`InvalidCommandSet`, and nothing else, where the structure is broken or the message could not be answered.
Values are not judged here: a UID may hold anything, and UIDs that are missing decode as empty.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from operator import attrgetter
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from ..exceptions import LocalProtocolError
from .values import frozen

__all__ = [
    "ELEMENTS",
    "MESSAGES",
    "NO_DATA_SET",
    "RESPONSES",
    "CCancelRQ",
    "CEchoRQ",
    "CEchoRSP",
    "CFindRQ",
    "CFindRSP",
    "CGetRQ",
    "CGetRSP",
    "CMoveRQ",
    "CMoveRSP",
    "CStoreRQ",
    "CStoreRSP",
    "Element",
    "InvalidCommandSet",
    "Message",
    "NActionRQ",
    "NActionRSP",
    "NCreateRQ",
    "NCreateRSP",
    "NDeleteRQ",
    "NDeleteRSP",
    "NEventReportRQ",
    "NEventReportRSP",
    "NGetRQ",
    "NGetRSP",
    "NSetRQ",
    "NSetRSP",
    "Priority",
    "Request",
    "Response",
    "UnknownCommandField",
    "decode",
    "encode",
]


class InvalidCommandSet(Exception):
    """Received bytes are no command set that could be answered; the message says why, without quoting the bytes."""


class UnknownCommandField(InvalidCommandSet):
    """The command set is sound, but there is no message with its Command Field.

    A request of this kind is answered by 0x0211, unrecognised operation (PS3.7 C.5.23).

    :ivar command_field: the value of (0000,0100).
    :ivar message_id: the value of (0000,0110), or ``None`` if there is none.
    :ivar has_data_set: whether a data set follows.
    """

    def __init__(self, command_field: int, message_id: int | None, has_data_set: bool) -> None:
        super().__init__(f"command set has the unknown Command Field 0x{command_field:04X}")
        self.command_field = command_field
        self.message_id = message_id
        self.has_data_set = has_data_set


class Priority(enum.IntEnum):
    """The values of Priority (0000,0700); any other is kept as the number that it is."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


class Element(NamedTuple):
    """A command element: its number in group 0000, the name of its field, and its value representation."""

    number: int
    field: str
    vr: str


#: The elements of PS3.7 Table E.1-1, ascending.
ELEMENTS: Final = (
    Element(0x0000, "command_group_length", "UL"),
    Element(0x0002, "affected_sop_class_uid", "UI"),
    Element(0x0003, "requested_sop_class_uid", "UI"),
    Element(0x0100, "command_field", "US"),
    Element(0x0110, "message_id", "US"),
    Element(0x0120, "message_id_being_responded_to", "US"),
    Element(0x0600, "move_destination", "AE"),
    Element(0x0700, "priority", "US"),
    Element(0x0800, "command_data_set_type", "US"),
    Element(0x0900, "status", "US"),
    Element(0x0901, "offending_element", "AT"),
    Element(0x0902, "error_comment", "LO"),
    Element(0x0903, "error_id", "US"),
    Element(0x1000, "affected_sop_instance_uid", "UI"),
    Element(0x1001, "requested_sop_instance_uid", "UI"),
    Element(0x1002, "event_type_id", "US"),
    Element(0x1005, "attribute_identifier_list", "AT"),
    Element(0x1008, "action_type_id", "US"),
    Element(0x1020, "number_of_remaining_suboperations", "US"),
    Element(0x1021, "number_of_completed_suboperations", "US"),
    Element(0x1022, "number_of_failed_suboperations", "US"),
    Element(0x1023, "number_of_warning_suboperations", "US"),
    Element(0x1030, "move_originator_ae_title", "AE"),
    Element(0x1031, "move_originator_message_id", "US"),
)

#: The Command Data Set Type (0000,0800) that says that no data set follows; any other says that one does.
NO_DATA_SET: Final = 0x0101

#: The one that we send when a data set follows: the choice is ours, and this is what everybody sends.
_DATA_SET: Final = 0x0001

#: An Error Comment is a Long String: at most 64 characters (PS3.5 Table 6.2-1).
_COMMENT_LENGTH: Final = 64


# The messages. A field without a default is always sent.


@frozen
class _Message:
    """What all messages have in common.

    :ivar unknown: elements that the message does not define, as (tag, value) pairs, kept as they came.
    """

    command_field: ClassVar[int]
    is_response: ClassVar[bool]

    unknown: tuple[tuple[int, bytes], ...] = ()


@frozen
class _Request(_Message):
    is_response: ClassVar[bool] = False

    message_id: int


@frozen
class _Response(_Message):
    """The last three fields may come with a status other than success (PS3.7 Annex C)."""

    is_response: ClassVar[bool] = True

    message_id_being_responded_to: int
    status: int
    offending_element: tuple[int, ...] | None = None
    error_comment: str | None = None
    error_id: int | None = None


@frozen
class _Suboperations(_Response):
    affected_sop_class_uid: str | None = None
    number_of_remaining_suboperations: int | None = None
    number_of_completed_suboperations: int | None = None
    number_of_failed_suboperations: int | None = None
    number_of_warning_suboperations: int | None = None


@frozen
class CStoreRQ(_Request):
    """C-STORE-RQ (PS3.7 Table 9.3-1)."""

    command_field: ClassVar[int] = 0x0001

    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    priority: int = Priority.MEDIUM
    move_originator_ae_title: str | None = None
    move_originator_message_id: int | None = None


@frozen
class CStoreRSP(_Response):
    """C-STORE-RSP (PS3.7 Table 9.3-2)."""

    command_field: ClassVar[int] = 0x8001

    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None


@frozen
class CGetRQ(_Request):
    """C-GET-RQ (PS3.7 Table 9.3-6)."""

    command_field: ClassVar[int] = 0x0010

    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM


@frozen
class CGetRSP(_Suboperations):
    """C-GET-RSP (PS3.7 Table 9.3-7)."""

    command_field: ClassVar[int] = 0x8010


@frozen
class CFindRQ(_Request):
    """C-FIND-RQ (PS3.7 Table 9.3-3)."""

    command_field: ClassVar[int] = 0x0020

    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM


@frozen
class CFindRSP(_Response):
    """C-FIND-RSP (PS3.7 Table 9.3-4)."""

    command_field: ClassVar[int] = 0x8020

    affected_sop_class_uid: str | None = None


@frozen
class CMoveRQ(_Request):
    """C-MOVE-RQ (PS3.7 Table 9.3-9)."""

    command_field: ClassVar[int] = 0x0021

    affected_sop_class_uid: str
    move_destination: str
    priority: int = Priority.MEDIUM


@frozen
class CMoveRSP(_Suboperations):
    """C-MOVE-RSP (PS3.7 Table 9.3-10)."""

    command_field: ClassVar[int] = 0x8021


@frozen
class CEchoRQ(_Request):
    """C-ECHO-RQ (PS3.7 Table 9.3-12)."""

    command_field: ClassVar[int] = 0x0030

    affected_sop_class_uid: str


@frozen
class CEchoRSP(_Response):
    """C-ECHO-RSP (PS3.7 Table 9.3-13)."""

    command_field: ClassVar[int] = 0x8030

    affected_sop_class_uid: str | None = None


@frozen
class CCancelRQ(_Message):
    """C-CANCEL-FIND-RQ, C-CANCEL-GET-RQ and C-CANCEL-MOVE-RQ, which are alike (PS3.7 Tables 9.3-5, 9.3-8, 9.3-11)."""

    command_field: ClassVar[int] = 0x0FFF
    is_response: ClassVar[bool] = False

    message_id_being_responded_to: int


@frozen
class NEventReportRQ(_Request):
    """N-EVENT-REPORT-RQ (PS3.7 Table 10.3-1)."""

    command_field: ClassVar[int] = 0x0100

    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    event_type_id: int


@frozen
class NEventReportRSP(_Response):
    """N-EVENT-REPORT-RSP (PS3.7 Table 10.3-2)."""

    command_field: ClassVar[int] = 0x8100

    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    event_type_id: int | None = None


@frozen
class NGetRQ(_Request):
    """N-GET-RQ (PS3.7 Table 10.3-3)."""

    command_field: ClassVar[int] = 0x0110

    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    attribute_identifier_list: tuple[int, ...] | None = None


@frozen
class NGetRSP(_Response):
    """N-GET-RSP (PS3.7 Table 10.3-4)."""

    command_field: ClassVar[int] = 0x8110

    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    attribute_identifier_list: tuple[int, ...] | None = None


@frozen
class NSetRQ(_Request):
    """N-SET-RQ (PS3.7 Table 10.3-5)."""

    command_field: ClassVar[int] = 0x0120

    requested_sop_class_uid: str
    requested_sop_instance_uid: str


@frozen
class NSetRSP(_Response):
    """N-SET-RSP (PS3.7 Table 10.3-6)."""

    command_field: ClassVar[int] = 0x8120

    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    attribute_identifier_list: tuple[int, ...] | None = None


@frozen
class NActionRQ(_Request):
    """N-ACTION-RQ (PS3.7 Table 10.3-7)."""

    command_field: ClassVar[int] = 0x0130

    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    action_type_id: int


@frozen
class NActionRSP(_Response):
    """N-ACTION-RSP (PS3.7 Table 10.3-8)."""

    command_field: ClassVar[int] = 0x8130

    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    action_type_id: int | None = None


@frozen
class NCreateRQ(_Request):
    """N-CREATE-RQ (PS3.7 Table 10.3-9); without an instance UID the SCP chooses one."""

    command_field: ClassVar[int] = 0x0140

    affected_sop_class_uid: str
    affected_sop_instance_uid: str | None = None


@frozen
class NCreateRSP(_Response):
    """N-CREATE-RSP (PS3.7 Table 10.3-10)."""

    command_field: ClassVar[int] = 0x8140

    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    attribute_identifier_list: tuple[int, ...] | None = None


@frozen
class NDeleteRQ(_Request):
    """N-DELETE-RQ (PS3.7 Table 10.3-11)."""

    command_field: ClassVar[int] = 0x0150

    requested_sop_class_uid: str
    requested_sop_instance_uid: str


@frozen
class NDeleteRSP(_Response):
    """N-DELETE-RSP (PS3.7 Table 10.3-12)."""

    command_field: ClassVar[int] = 0x8150

    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None


Request: TypeAlias = (
    CStoreRQ
    | CGetRQ
    | CFindRQ
    | CMoveRQ
    | CEchoRQ
    | NEventReportRQ
    | NGetRQ
    | NSetRQ
    | NActionRQ
    | NCreateRQ
    | NDeleteRQ
)
Response: TypeAlias = (
    CStoreRSP
    | CGetRSP
    | CFindRSP
    | CMoveRSP
    | CEchoRSP
    | NEventReportRSP
    | NGetRSP
    | NSetRSP
    | NActionRSP
    | NCreateRSP
    | NDeleteRSP
)
Message: TypeAlias = Request | Response | CCancelRQ

#: Command Field -> message (PS3.7 Table E.1-1).
MESSAGES: Mapping[int, type[Message]] = MappingProxyType(
    {
        message.command_field: message
        for message in (
            *(CStoreRQ, CStoreRSP, CGetRQ, CGetRSP, CFindRQ, CFindRSP, CMoveRQ, CMoveRSP, CEchoRQ, CEchoRSP, CCancelRQ),
            *(NEventReportRQ, NEventReportRSP, NGetRQ, NGetRSP, NSetRQ, NSetRSP),
            *(NActionRQ, NActionRSP, NCreateRQ, NCreateRSP, NDeleteRQ, NDeleteRSP),
        )
    }
)

#: Each request -> its response.
RESPONSES: Mapping[type[Message], type[Message]] = MappingProxyType(
    {
        CEchoRQ: CEchoRSP,
        CStoreRQ: CStoreRSP,
        CFindRQ: CFindRSP,
        CGetRQ: CGetRSP,
        CMoveRQ: CMoveRSP,
        NEventReportRQ: NEventReportRSP,
        NGetRQ: NGetRSP,
        NSetRQ: NSetRSP,
        NActionRQ: NActionRSP,
        NCreateRQ: NCreateRSP,
        NDeleteRQ: NDeleteRSP,
    }
)


# The codec.

_US: Final = struct.Struct("<8sH")
_TAG: Final = struct.Struct("<HH")
_HEADER: Final = struct.Struct("<II")
_HEADER_US: Final = struct.Struct("<IIH")

#: What a sequence begins with, in its value: an item (PS3.5 7.5).
_ITEM: Final = b"\xfe\xff\x00\xe0"

#: Requests and responses cannot be answered or matched without these.
_INDISPENSABLE: Final = frozenset({"message_id", "message_id_being_responded_to", "status"})


def _head(number: int, length: int) -> bytes:
    """Give the tag and the length of an element of group 0000."""
    return (number << 16).to_bytes(4, "little") + length.to_bytes(4, "little")


def _tag(number: int) -> str:
    return f"(0000,{number:04X})"


# Encoding.


def _put_text(number: int, value: str, padding: bytes) -> bytes:
    text = value.encode("latin-1")
    if len(text) & 1:
        text += padding
    return (number << 16).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text


def _put_ui(number: int, value: str) -> bytes:
    return _put_text(number, value, b"\0")


def _put_ae(number: int, value: str) -> bytes:
    return _put_text(number, value, b" ")


def _put_lo(number: int, value: str) -> bytes:
    # An over-long or unprintable comment must not fail the response that it explains; a backslash would cut it in two.
    printable = (c if " " <= c <= "~" and c != "\\" else "?" for c in value[:_COMMENT_LENGTH])
    return _put_text(number, "".join(printable), b" ")


def _put_at(number: int, value: tuple[int, ...]) -> bytes:
    return _head(number, 4 * len(value)) + b"".join(_TAG.pack(tag >> 16, tag & 0xFFFF) for tag in value)


_PUT: Final[dict[str, Callable[[int, Any], bytes]]] = {"UI": _put_ui, "AE": _put_ae, "LO": _put_lo, "AT": _put_at}


class _Step(NamedTuple):
    """One step of encoding: constant bytes without ``get``, a number behind its head without ``put``, else ``put``."""

    number: int
    head: bytes
    get: Callable[[Message], Any] | None
    put: Callable[[int, Any], bytes] | None


def _steps(message: type[Message], data_set_type: int) -> tuple[_Step, ...]:
    constants = {"command_field": message.command_field, "command_data_set_type": data_set_type}
    names = {field.name for field in fields(message)}
    steps = []
    for number, name, vr in ELEMENTS:
        head = _head(number, 2)
        if name in constants:
            steps.append(_Step(number, _US.pack(head, constants[name]), None, None))
        elif name in names:
            steps.append(_Step(number, head, attrgetter(name), _PUT.get(vr)))
    return tuple(steps)


#: By whether a data set follows: message -> its steps.
_STEPS: Final = tuple(
    {message: _steps(message, data_set_type) for message in MESSAGES.values()}
    for data_set_type in (NO_DATA_SET, _DATA_SET)
)


def encode(message: Message, *, has_data_set: bool) -> bytes:
    """Encode a message as a command set, group length first, tags ascending.

    :param has_data_set: whether a data set follows the command set.
    :returns: the whole command set, to be cut into fragments. Values of odd length are padded, UIDs by NUL and text by
        a space. An Error Comment is cut to 64 characters and what is not printable ASCII in it is replaced.
    :raises LocalProtocolError: a value does not fit its element.
    """
    parts: list[bytes] = []
    append = parts.append
    pack = _US.pack
    number = 0
    try:
        for number, head, get, put in _STEPS[has_data_set][type(message)]:
            if get is None:
                append(head)
            elif (value := get(message)) is not None:
                append(pack(head, value) if put is None else put(number, value))
        if message.unknown:
            for number, value in message.unknown:
                append(_head(number, len(value)) + value)
            parts.sort(key=_wire_order)
    except (struct.error, TypeError, AttributeError, OverflowError, UnicodeEncodeError) as exc:
        raise LocalProtocolError(f"{type(message).__name__} has no encodable value for {_tag(number)}: {exc}") from exc
    body = b"".join(parts)
    return b"\0\0\0\0\4\0\0\0" + len(body).to_bytes(4, "little") + body


def _wire_order(part: bytes) -> bytes:
    return part[3::-1]


# Decoding.


def _get_ui(value: bytes) -> str:
    return str(value, "latin-1").rstrip("\0 ")


def _get_text(value: bytes) -> str:
    return str(value, "latin-1").strip("\0 ")


def _get_at(value: bytes) -> tuple[int, ...]:
    if len(value) % 4:
        raise InvalidCommandSet(f"a list of attribute tags has {len(value)} bytes")
    return tuple(group << 16 | element for group, element in _TAG.iter_unpack(value))


_GET: Final[dict[str, Callable[[bytes], Any]]] = {"UI": _get_ui, "AE": _get_text, "LO": _get_text, "AT": _get_at}

#: First four octets of an element, as a little endian number -> name of its field, how to read it (``None``: a number).
_KNOWN: Final = {
    element.number << 16: (element.field, _GET.get(element.vr)) for element in ELEMENTS if element.vr != "UL"
}

#: The fields that are numbers; all others that a message cannot be without are text.
_NUMBERS: Final = frozenset(element.field for element in ELEMENTS if element.vr == "US")


def decode(data: bytes | memoryview) -> tuple[Message, bool]:
    """Decode a whole command set.

    :param data: the command set, defragmented.
    :returns: the message, and whether a data set follows it: any Command Data Set Type but 0x0101 says so.
    :raises UnknownCommandField: the command set is sound, but no message has its Command Field.
    :raises InvalidCommandSet: anything else is wrong with it: its structure is broken, or Command Field, Command Data
        Set Type, Message ID or Status is missing.
    """
    end = len(data)
    # Two more octets, so that each element can be read as if it were a number.
    padded = b"".join((data, b"\0\0"))
    values: dict[str, Any] = {}
    unknown: list[tuple[int, bytes]] = []
    position = 0
    unpack = _HEADER_US.unpack_from
    known = _KNOWN.get
    try:
        while position < end:
            tag, length, number = unpack(padded, position)
            start = position + 8
            position = start + length
            found = known(tag)
            if found is None:
                if tag:  # not the group length, which is ignored
                    unknown.append(_unknown(tag, padded[start:position]))
                continue
            name, get = found
            if get is not None:
                values[name] = get(padded[start:position])
            elif length == 2:
                values[name] = number
            elif length:
                raise InvalidCommandSet(f"{_tag(tag >> 16)} has {length} bytes instead of 2")
    except struct.error:
        raise InvalidCommandSet(f"{end - position} bytes are left after the last element") from None
    if position != end:
        raise InvalidCommandSet(f"{_tag(tag >> 16)} has {length} bytes and runs {position - end} past the end")
    try:
        command_field = values.pop("command_field")
        has_data_set = values.pop("command_data_set_type") != NO_DATA_SET
    except KeyError as exc:
        raise InvalidCommandSet(f"{exc.args[0]} is missing") from None
    message = MESSAGES.get(command_field)
    if message is None:
        raise UnknownCommandField(command_field, values.get("message_id"), has_data_set)
    if unknown:
        values["unknown"] = tuple(unknown)
    try:
        return message(**values), has_data_set
    except TypeError:
        return _lenient(message, values, padded[:end]), has_data_set


def _unknown(tag: int, value: bytes) -> tuple[int, bytes]:
    if tag & 0xFFFF:
        raise InvalidCommandSet(f"({tag & 0xFFFF:04X},{tag >> 16:04X}) is no command element")
    if value.startswith(_ITEM):
        raise InvalidCommandSet(f"{_tag(tag >> 16)} is a sequence")
    return tag >> 16, value


def _lenient(message: type[Message], values: dict[str, Any], data: bytes) -> Message:
    """Make a message of elements that are not quite its own: fill in what can be spared and keep what is too many."""
    own = {field.name: field for field in fields(message)}
    for name, field in own.items():
        if name not in values and field.default is MISSING:
            if name in _INDISPENSABLE:
                raise InvalidCommandSet(f"{name} is missing from {message.__name__}")
            values[name] = 0 if name in _NUMBERS else ""
    foreign = values.keys() - own.keys()
    unknown = []
    position = 0
    while position < len(data):
        tag, length = _HEADER.unpack_from(data, position)
        start = position + 8
        position = start + length
        if tag and (tag not in _KNOWN or _KNOWN[tag][0] in foreign):
            unknown.append((tag >> 16, data[start:position]))
    kept = {name: value for name, value in values.items() if name in own} | {"unknown": tuple(unknown)}
    return message(**kept)
