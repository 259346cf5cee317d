"""The seven PDUs of the DICOM Upper Layer, their items and sub-items, and their encoding (PS3.8 9.3, PS3.7 Annex D.3).

Theory of operation
-------------------
A PDU is a six-byte header and a variable field; the framing takes the header off, so :func:`decode` is given the type
and the variable field. Variable fields, items and sub-items nest as *(type, reserved, 16-bit length, value)*; one
function, :func:`_items`, walks them, and it compares every length with the end of the parent before anything is
sliced. Fields inside a sub-item are read by :class:`_Fields`, which checks in the same way.

Decoding is tolerant where real peers are sloppy and it does no harm: padded names, reserved bytes, unknown items (which
are skipped by their length), items that are missing, repeated (the first one counts) or out of order. It raises
:class:`InvalidPDU`, and nothing else, where the structure is broken. What the values *mean* is judged above.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from struct import Struct
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, assert_never

from ..exceptions import LocalProtocolError
from .values import frozen

__all__ = [
    "PDU",
    "PDU_TYPES",
    "Abort",
    "AbortReason",
    "AssociateAC",
    "AssociateRJ",
    "AssociateRQ",
    "AsyncOperationsWindow",
    "CommonExtendedNegotiation",
    "DataTF",
    "ExtendedNegotiation",
    "InvalidPDU",
    "PresentationContextAC",
    "PresentationContextRQ",
    "PresentationDataValue",
    "ReleaseRP",
    "ReleaseRQ",
    "RoleSelection",
    "UserIdentityAC",
    "UserIdentityRQ",
    "UserInformation",
    "decode",
    "encode",
    "recurs",
    "summary",
]


class AbortReason(enum.IntEnum):
    """The reason field of an A-ABORT by the service provider (PS3.8 Table 9-26); 3 is reserved."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_VALUE = 6


class InvalidPDU(Exception):
    """Received bytes are no PDU; the message says what is wrong and where, without quoting the bytes.

    :ivar reason: the reason for the A-ABORT that answers it, in states that give one.
    """

    def __init__(self, message: str, reason: AbortReason = AbortReason.INVALID_VALUE) -> None:
        super().__init__(message)
        self.reason = reason


# Sub-items of the user information item.


@frozen
class AsyncOperationsWindow:
    """Asynchronous Operations Window sub-item (53H): PS3.7 Tables D.3-7 and D.3-8.

    Both numbers are seen from the association-requestor, also in the A-ASSOCIATE-AC; 0 is unlimited.
    """

    invoked: int
    performed: int


@frozen
class RoleSelection:
    """SCP/SCU Role Selection sub-item (54H): PS3.7 Tables D.3-9 and D.3-10.

    Both roles are those of the association-requestor, proposed or (in the A-ASSOCIATE-AC) accepted.
    """

    sop_class_uid: str
    scu: bool
    scp: bool


@frozen
class ExtendedNegotiation:
    """SOP Class Extended Negotiation sub-item (56H): PS3.7 Table D.3-11."""

    sop_class_uid: str
    information: bytes


@frozen
class CommonExtendedNegotiation:
    """SOP Class Common Extended Negotiation sub-item (57H): PS3.7 Tables D.3-12 and D.3-13."""

    sop_class_uid: str
    service_class_uid: str
    related_sop_class_uids: tuple[str, ...] = ()


@frozen
class UserIdentityRQ:
    """User Identity sub-item of an A-ASSOCIATE-RQ (58H): PS3.7 Table D.3-14. The credentials are not in its ``repr``.

    :ivar type: 1 user name, 2 user name and passcode, 3 Kerberos ticket, 4 SAML assertion, 5 JSON Web Token.
    :ivar primary: the user name, ticket, assertion or token.
    :ivar secondary: the passcode of type 2, else empty.
    """

    type: int
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)
    positive_response_requested: bool = False


@frozen
class UserIdentityAC:
    """User Identity sub-item of an A-ASSOCIATE-AC (59H): PS3.7 Table D.3-15. The response is not in its ``repr``."""

    response: bytes = field(repr=False)


@frozen
class UserInformation:
    """User Information item (50H): PS3.8 Tables 9-16 and 9-20, PS3.7 D.3.3.

    ``None`` and ``()`` say that there is no such sub-item.

    :ivar maximum_length: the longest variable field of a P-DATA-TF PDU, in bytes, that the sender of this item can
        receive; 0 is unlimited (51H, PS3.8 Tables D.1-1 and D.1-2).
    :ivar implementation_class_uid: 52H, PS3.7 Table D.3-1.
    :ivar implementation_version_name: 55H, PS3.7 Table D.3-3.
    """

    maximum_length: int | None = None
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None
    async_operations: AsyncOperationsWindow | None = None
    roles: tuple[RoleSelection, ...] = ()
    extended_negotiation: tuple[ExtendedNegotiation, ...] = ()
    common_extended_negotiation: tuple[CommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentityRQ | None = None
    user_identity_response: UserIdentityAC | None = None


# Items of the A-ASSOCIATE PDUs.


@frozen
class PresentationContextRQ:
    """Presentation Context item of an A-ASSOCIATE-RQ (20H): PS3.8 Tables 9-13, 9-14 and 9-15."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@frozen
class PresentationContextAC:
    """Presentation Context item of an A-ASSOCIATE-AC (21H): PS3.8 Tables 9-18 and 9-19.

    :ivar result: 0 acceptance, 1 user-rejection, 2 no reason (provider rejection), 3 abstract syntax not supported,
        4 transfer syntaxes not supported.
    :ivar transfer_syntax: not significant unless the result is 0; ``None`` if the peer sent none.
    """

    context_id: int
    result: int
    transfer_syntax: str | None


# PDUs.


class _Associate:
    """What an A-ASSOCIATE PDU remembers besides its fields; it is neither compared nor copied nor shown.

    :ivar _encoding: what :func:`encode` made of it. It is encoded to see whether it can be, and then to be sent, also by those
        who propose or answer the same again.
    :ivar _recurs: whether :func:`decode` gives it again for the same bytes.
    """

    __slots__ = ("_encoding", "_recurs")

    _encoding: bytes
    _recurs: bool


@frozen
class AssociateRQ(_Associate):
    """A-ASSOCIATE-RQ PDU (01H): PS3.8 Table 9-11.

    :ivar application_context: Application Context item (10H, Table 9-12).
    :ivar protocol_version: bit 0 set is version 1; the other bits are not to be tested.
    """

    called_ae_title: str
    calling_ae_title: str
    application_context: str | None
    presentation_contexts: tuple[PresentationContextRQ, ...] = ()
    user_information: UserInformation = UserInformation()
    protocol_version: int = 1


@frozen
class AssociateAC(_Associate):
    """A-ASSOCIATE-AC PDU (02H): PS3.8 Table 9-17.

    The AE titles are those of the A-ASSOCIATE-RQ sent back; their value "shall not be tested when received".
    """

    called_ae_title: str
    calling_ae_title: str
    application_context: str | None
    presentation_contexts: tuple[PresentationContextAC, ...] = ()
    user_information: UserInformation = UserInformation()
    protocol_version: int = 1


@frozen
class AssociateRJ:
    """A-ASSOCIATE-RJ PDU (03H): PS3.8 Table 9-21."""

    result: int
    source: int
    reason: int


@frozen
class PresentationDataValue:
    """Presentation Data Value item: PS3.8 Table 9-23, message control header E.1-1."""

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes = field(repr=False)


@frozen
class DataTF:
    """P-DATA-TF PDU (04H): PS3.8 Table 9-22. For tests and tools; the framing never builds one."""

    pdvs: tuple[PresentationDataValue, ...]


@frozen
class ReleaseRQ:
    """A-RELEASE-RQ PDU (05H): PS3.8 Table 9-24."""


@frozen
class ReleaseRP:
    """A-RELEASE-RP PDU (06H): PS3.8 Table 9-25."""


@frozen
class Abort:
    """A-ABORT PDU (07H): PS3.8 Table 9-26.

    :ivar source: 0 service user, 2 service provider.
    :ivar reason: an :class:`AbortReason` when the source is the provider, else not significant.
    """

    source: int
    reason: int


PDU: TypeAlias = AssociateRQ | AssociateAC | AssociateRJ | DataTF | ReleaseRQ | ReleaseRP | Abort

#: PDU type -> class, in the standard's order (PS3.8 9.3.1).
PDU_TYPES: Mapping[int, type[PDU]] = MappingProxyType(
    {1: AssociateRQ, 2: AssociateAC, 3: AssociateRJ, 4: DataTF, 5: ReleaseRQ, 6: ReleaseRP, 7: Abort}
)

# Item types (PS3.8 9.3.2 and 9.3.3); those of the user information are the keys of _USER_ITEMS.
_APPLICATION_CONTEXT = 0x10
_PRESENTATION_CONTEXT_RQ = 0x20
_PRESENTATION_CONTEXT_AC = 0x21
_ABSTRACT_SYNTAX = 0x30
_TRANSFER_SYNTAX = 0x40
_USER_INFORMATION = 0x50

_HEADER = Struct(">BxI")  # PDU type, reserved, PDU length
_ITEM = Struct(">BxH")  # item type, reserved (of 57H: its version, 0), item length
_ASSOCIATE = Struct(">H2x16s16s32x")  # protocol version, reserved, called AE title, calling AE title, reserved
_CONTEXT_RQ = Struct(">Bxxx")
_CONTEXT_AC = Struct(">BxBx")
_PDV = Struct(">IBB")
_U8 = Struct(">B")
_U16 = Struct(">H")
_U32 = Struct(">I")
_U16_U16 = Struct(">HH")

_PADDING = "\0 "


# Reading.


def _items(data: bytes, start: int, end: int, where: str) -> Iterator[tuple[int, int, int]]:
    """Yield (type, start of value, end of value) of the items in ``data[start:end]``."""
    unpack = _ITEM.unpack_from
    while start < end:
        if end - start < 4:
            raise InvalidPDU(f"{end - start} bytes where an item is due in {where}")
        kind, length = unpack(data, start)
        start += 4
        if length > end - start:
            raise InvalidPDU(f"item {kind:#04x} of {length} bytes in {where} with {end - start} bytes left")
        yield kind, start, start + length
        start += length


class _Fields:
    """Read the fields of a sub-item in order; whatever follows the last one is ignored."""

    __slots__ = ("_data", "_end", "_position", "_where")

    def __init__(self, data: bytes, start: int, end: int, where: str) -> None:
        self._data = data
        self._position = start
        self._end = end
        self._where = where

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        start = self._position
        if size > self._end - start:
            raise InvalidPDU(f"{size} bytes are due in {self._where} with {self._end - start} bytes left")
        self._position = start + size
        return self._data[start : start + size]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def counted(self) -> bytes:
        """Return the bytes behind a 16-bit length."""
        return self.take(self.u16())

    def uid(self) -> str:
        return _text(self.counted())

    def part(self) -> _Fields:
        """Return a reader of the bytes behind a 16-bit length."""
        size = self.u16()
        start = self._position
        self.take(size)
        return _Fields(self._data, start, start + size, self._where)

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return self._end - self._position

    def rest(self) -> bytes:
        return self.take(self.left)


def _text(value: bytes) -> str:
    """Decode a UID or a name: never padded by the rules, often padded with NULs or spaces in practice."""
    return value.decode("latin-1").rstrip(_PADDING)


# Writing.


def _raw(text: str, what: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"{what} {text!a} has characters that cannot be encoded") from None


def _ae_title(text: str) -> bytes:
    value = _raw(text, "AE title")
    if len(value) > 16:
        raise LocalProtocolError(f"AE title {text!a} is longer than 16 characters")
    return value.ljust(16)


def _pack(layout: Struct, what: str, *values: int) -> bytes:
    """Pack unsigned integers."""
    try:
        return layout.pack(*values)
    except Exception as exc:  # struct.error for numbers out of range and for what is no number
        raise LocalProtocolError(f"{what} cannot be encoded: {exc}") from None


def _item(kind: int, value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise LocalProtocolError(f"item {kind:#04x} of {len(value)} bytes; 65535 is the most")
    return _ITEM.pack(kind, len(value)) + value


def _counted(value: bytes, what: str) -> bytes:
    if len(value) > 0xFFFF:
        raise LocalProtocolError(f"{what} of {len(value)} bytes; 65535 is the most")
    return _U16.pack(len(value)) + value


def _counted_uid(uid: str) -> bytes:
    return _counted(_raw(uid, "UID"), "UID")


# The sub-items of the user information item: one decoder and one encoder each, and a table.


def _read_maximum_length(fields: _Fields) -> int:
    return int.from_bytes(fields.take(4), "big")


def _write_maximum_length(value: int) -> bytes:
    return _pack(_U32, "maximum length", value)


def _read_text(fields: _Fields) -> str:
    return _text(fields.rest())


def _write_uid(value: str) -> bytes:
    return _raw(value, "UID")


def _write_version_name(value: str) -> bytes:
    return _raw(value, "implementation version name")


def _read_async_operations(fields: _Fields) -> AsyncOperationsWindow:
    return AsyncOperationsWindow(invoked=fields.u16(), performed=fields.u16())


def _write_async_operations(value: AsyncOperationsWindow) -> bytes:
    return _pack(_U16_U16, "asynchronous operations window", value.invoked, value.performed)


def _read_role(fields: _Fields) -> RoleSelection:
    return RoleSelection(sop_class_uid=fields.uid(), scu=fields.u8() == 1, scp=fields.u8() == 1)


def _write_role(value: RoleSelection) -> bytes:
    return _counted_uid(value.sop_class_uid) + bytes((value.scu, value.scp))


def _read_extended(fields: _Fields) -> ExtendedNegotiation:
    return ExtendedNegotiation(sop_class_uid=fields.uid(), information=fields.rest())


def _write_extended(value: ExtendedNegotiation) -> bytes:
    return _counted_uid(value.sop_class_uid) + value.information


def _read_common_extended(fields: _Fields) -> CommonExtendedNegotiation:
    sop_class_uid = fields.uid()
    service_class_uid = fields.uid()
    related = fields.part()
    uids = []
    while related.left:
        uids.append(related.uid())
    return CommonExtendedNegotiation(
        sop_class_uid=sop_class_uid, service_class_uid=service_class_uid, related_sop_class_uids=tuple(uids)
    )


def _write_common_extended(value: CommonExtendedNegotiation) -> bytes:
    related = b"".join(map(_counted_uid, value.related_sop_class_uids))
    head = _counted_uid(value.sop_class_uid) + _counted_uid(value.service_class_uid)
    return head + _counted(related, "related general SOP classes")


def _read_user_identity(fields: _Fields) -> UserIdentityRQ:
    kind = fields.u8()
    positive_response_requested = fields.u8() == 1
    return UserIdentityRQ(
        type=kind,
        positive_response_requested=positive_response_requested,
        primary=fields.counted(),
        secondary=fields.counted(),
    )


def _write_user_identity(value: UserIdentityRQ) -> bytes:
    head = _pack(_U8, "user identity type", value.type) + bytes((value.positive_response_requested,))
    return head + _counted(value.primary, "user identity") + _counted(value.secondary, "user identity passcode")


def _read_user_identity_response(fields: _Fields) -> UserIdentityAC:
    return UserIdentityAC(response=fields.counted())


def _write_user_identity_response(value: UserIdentityAC) -> bytes:
    return _counted(value.response, "user identity response")


class _UserItem(NamedTuple):
    attribute: str  # of UserInformation
    many: bool  # whether there may be several
    read: Callable[[_Fields], object]
    write: Callable[[Any], bytes]


#: Sub-item type -> how it is read and written, in the order in which we send them.
_USER_ITEMS: Mapping[int, _UserItem] = MappingProxyType(
    {
        0x51: _UserItem("maximum_length", False, _read_maximum_length, _write_maximum_length),
        0x52: _UserItem("implementation_class_uid", False, _read_text, _write_uid),
        0x53: _UserItem("async_operations", False, _read_async_operations, _write_async_operations),
        0x54: _UserItem("roles", True, _read_role, _write_role),
        0x55: _UserItem("implementation_version_name", False, _read_text, _write_version_name),
        0x56: _UserItem("extended_negotiation", True, _read_extended, _write_extended),
        0x57: _UserItem("common_extended_negotiation", True, _read_common_extended, _write_common_extended),
        0x58: _UserItem("user_identity", False, _read_user_identity, _write_user_identity),
        0x59: _UserItem("user_identity_response", False, _read_user_identity_response, _write_user_identity_response),
    }
)


def _read_user_information(data: bytes, start: int, end: int) -> UserInformation:
    found: dict[str, Any] = {}
    for kind, first, last in _items(data, start, end, "the user information item"):
        row = _USER_ITEMS.get(kind)
        if row is None:
            continue
        value = row.read(_Fields(data, first, last, f"user information sub-item {kind:#04x}"))
        if row.many:
            found.setdefault(row.attribute, []).append(value)
        else:
            found.setdefault(row.attribute, value)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    return UserInformation(**values)


def _write_user_information(information: UserInformation) -> bytes:
    out: list[bytes] = []
    for kind, row in _USER_ITEMS.items():
        value = getattr(information, row.attribute)
        if row.many:
            out += [_item(kind, row.write(one)) for one in value] if value else ()
        elif value is not None:
            out.append(_item(kind, row.write(value)))
    return _item(_USER_INFORMATION, b"".join(out))


# The presentation context items.


def _check_context_id(context_id: int, seen: Mapping[int, object]) -> None:
    # "Presentation-context-ID values shall be odd integers between 1 and 255" (PS3.8 Table 9-13), each used once.
    if not context_id & 1:
        raise InvalidPDU(f"presentation context ID {context_id} is even")
    if context_id in seen:
        raise InvalidPDU(f"presentation context ID {context_id} is used twice")


def _read_context_rq(data: bytes, start: int, end: int, found: dict[int, PresentationContextRQ]) -> None:
    if end - start < 4:
        raise InvalidPDU(f"presentation context item of {end - start} bytes")
    (context_id,) = _CONTEXT_RQ.unpack_from(data, start)
    _check_context_id(context_id, found)
    abstract_syntaxes = []
    transfer_syntaxes = []
    for kind, first, last in _items(data, start + 4, end, "a presentation context item"):
        if kind == _TRANSFER_SYNTAX:
            transfer_syntaxes.append(_text(data[first:last]))
        elif kind == _ABSTRACT_SYNTAX:
            abstract_syntaxes.append(_text(data[first:last]))
    if len(abstract_syntaxes) != 1:
        raise InvalidPDU(f"{len(abstract_syntaxes)} abstract syntaxes in presentation context {context_id}")
    found[context_id] = PresentationContextRQ(
        context_id=context_id, abstract_syntax=abstract_syntaxes[0], transfer_syntaxes=tuple(transfer_syntaxes)
    )


def _read_context_ac(data: bytes, start: int, end: int, found: dict[int, PresentationContextAC]) -> None:
    if end - start < 4:
        raise InvalidPDU(f"presentation context item of {end - start} bytes")
    context_id, result = _CONTEXT_AC.unpack_from(data, start)
    _check_context_id(context_id, found)
    syntaxes = [
        _text(data[first:last])
        for kind, first, last in _items(data, start + 4, end, "a presentation context item")
        if kind == _TRANSFER_SYNTAX
    ]
    if result == 0 and len(syntaxes) > 1:
        raise InvalidPDU(f"{len(syntaxes)} transfer syntaxes accepted in presentation context {context_id}")
    transfer_syntax = (syntaxes[0] or None) if syntaxes else None
    found[context_id] = PresentationContextAC(context_id=context_id, result=result, transfer_syntax=transfer_syntax)


def _write_context(context: PresentationContextRQ | PresentationContextAC) -> bytes:
    if isinstance(context, PresentationContextRQ):
        value = _pack(_CONTEXT_RQ, "presentation context ID", context.context_id)
        value += _item(_ABSTRACT_SYNTAX, _raw(context.abstract_syntax, "UID"))
        value += b"".join(_item(_TRANSFER_SYNTAX, _raw(uid, "UID")) for uid in context.transfer_syntaxes)
        return _item(_PRESENTATION_CONTEXT_RQ, value)
    value = _pack(_CONTEXT_AC, "presentation context", context.context_id, context.result)
    if context.transfer_syntax is not None:
        value += _item(_TRANSFER_SYNTAX, _raw(context.transfer_syntax, "UID"))
    return _item(_PRESENTATION_CONTEXT_AC, value)


# The PDUs.


def _read_associate(data: bytes, where: str) -> tuple[dict[str, Any], list[tuple[int, int, int]]]:
    """Return the fields that A-ASSOCIATE-RQ and A-ASSOCIATE-AC share, and where their items are."""
    if len(data) < _ASSOCIATE.size:
        raise InvalidPDU(f"{where} PDU of {len(data)} bytes; {_ASSOCIATE.size} is the least")
    version, called, calling = _ASSOCIATE.unpack_from(data)
    items = list(_items(data, _ASSOCIATE.size, len(data), f"the {where} PDU"))
    application_context = None
    information = None
    for kind, first, last in items:
        if kind == _APPLICATION_CONTEXT and application_context is None:
            application_context = _text(data[first:last])
        elif kind == _USER_INFORMATION and information is None:
            information = _read_user_information(data, first, last)
    fields = {
        "protocol_version": version,
        # "leading and trailing spaces (20H) being non-significant" (PS3.8 Table 9-11).
        "called_ae_title": called.decode("latin-1").strip(_PADDING),
        "calling_ae_title": calling.decode("latin-1").strip(_PADDING),
        "application_context": application_context,
        "user_information": information or UserInformation(),
    }
    return fields, items


def _read_associate_rq(data: bytes) -> AssociateRQ:
    fields, items = _read_associate(data, "A-ASSOCIATE-RQ")
    contexts: dict[int, PresentationContextRQ] = {}
    for kind, first, last in items:
        if kind == _PRESENTATION_CONTEXT_RQ:
            _read_context_rq(data, first, last, contexts)
    return AssociateRQ(presentation_contexts=tuple(contexts.values()), **fields)


def _read_associate_ac(data: bytes) -> AssociateAC:
    fields, items = _read_associate(data, "A-ASSOCIATE-AC")
    contexts: dict[int, PresentationContextAC] = {}
    for kind, first, last in items:
        if kind == _PRESENTATION_CONTEXT_AC:
            _read_context_ac(data, first, last, contexts)
    return AssociateAC(presentation_contexts=tuple(contexts.values()), **fields)


def _write_associate(pdu: AssociateRQ | AssociateAC) -> bytes:
    out = [_pack(_U16, "protocol version", pdu.protocol_version), b"\0\0"]
    out += [_ae_title(pdu.called_ae_title), _ae_title(pdu.calling_ae_title), bytes(32)]
    if pdu.application_context is not None:
        out.append(_item(_APPLICATION_CONTEXT, _raw(pdu.application_context, "UID")))
    out += map(_write_context, pdu.presentation_contexts)
    out.append(_write_user_information(pdu.user_information))
    return b"".join(out)


def _check_four(data: bytes, where: str) -> None:
    if len(data) != 4:
        raise InvalidPDU(f"{where} PDU of {len(data)} bytes instead of 4")


def _read_associate_rj(data: bytes) -> AssociateRJ:
    _check_four(data, "A-ASSOCIATE-RJ")
    return AssociateRJ(result=data[1], source=data[2], reason=data[3])


def _read_release_rq(data: bytes) -> ReleaseRQ:
    _check_four(data, "A-RELEASE-RQ")
    return ReleaseRQ()


def _read_release_rp(data: bytes) -> ReleaseRP:
    _check_four(data, "A-RELEASE-RP")
    return ReleaseRP()


def _read_abort(data: bytes) -> Abort:
    _check_four(data, "A-ABORT")
    return Abort(source=data[2], reason=data[3])


def _read_data(data: bytes) -> DataTF:
    pdvs: list[PresentationDataValue] = []
    position, end = 0, len(data)
    while position < end or not pdvs:
        if end - position < _PDV.size:
            raise InvalidPDU(f"{end - position} bytes where a PDV is due in a P-DATA-TF PDU")
        length, context_id, control = _PDV.unpack_from(data, position)
        if not 2 <= length <= end - position - 4:
            raise InvalidPDU(f"PDV length {length} in a P-DATA-TF PDU with {end - position - 4} bytes left")
        fragment = data[position + _PDV.size : position + 4 + length]
        # Bits 2 to 7 of the message control header are reserved and not tested (PS3.8 E.2).
        pdvs.append(
            PresentationDataValue(
                context_id=context_id, is_command=control & 1 == 1, is_last=control & 2 == 2, data=fragment
            )
        )
        position += 4 + length
    return DataTF(pdvs=tuple(pdvs))


def _write_pdv(pdv: PresentationDataValue) -> bytes:
    control = pdv.is_command | pdv.is_last << 1
    return _pack(_PDV, "presentation data value", len(pdv.data) + 2, pdv.context_id, control) + pdv.data


_READERS: Mapping[int, Callable[[bytes], PDU]] = MappingProxyType(
    {
        1: _read_associate_rq,
        2: _read_associate_ac,
        3: _read_associate_rj,
        4: _read_data,
        5: _read_release_rq,
        6: _read_release_rp,
        7: _read_abort,
    }
)


#: A-ASSOCIATE PDUs of at most so many bytes are remembered, and how many: peers say the same each time.
_REMEMBERED_LENGTH = 4096
_REMEMBERED_MOST = 64

#: Type and variable field -> what it was decoded to. Nothing with credentials is ever among them.
_remembered: dict[tuple[int, bytes], PDU] = {}


def decode(pdu_type: int, body: bytes | memoryview) -> PDU:
    """Decode the variable field of a PDU, that is, what follows its six bytes of header.

    :raises InvalidPDU: it is no PDU of that type, or there is no such type.
    """
    reader = _READERS.get(pdu_type)
    if reader is None:
        raise InvalidPDU(f"unrecognized PDU type {pdu_type:#04x}", AbortReason.UNRECOGNIZED_PDU)
    body = bytes(body)
    if pdu_type > 2 or len(body) > _REMEMBERED_LENGTH:
        return reader(body)
    known = _remembered.get((pdu_type, body))
    if known is None:
        known = reader(body)
        assert isinstance(known, AssociateRQ | AssociateAC)
        information = known.user_information
        if information.user_identity is None and information.user_identity_response is None:
            if len(_remembered) >= _REMEMBERED_MOST:
                _remembered.clear()
            object.__setattr__(known, "_recurs", True)
            _remembered[pdu_type, body] = known
    return known


def recurs(pdu: PDU) -> bool:
    """Tell whether :func:`decode` remembers a PDU: it is small and without credentials, and so is what follows from it."""
    return getattr(pdu, "_recurs", False)


def encode(pdu: PDU) -> bytes:
    """Encode a PDU with its header, in the strictest form: AE titles space-padded, UIDs unpadded, reserved bytes 0.

    :raises LocalProtocolError: a value does not fit into its field.
    """
    match pdu:
        case AssociateRQ() | AssociateAC():
            return _encode_associate(pdu)
        case AssociateRJ():
            kind, body = 3, b"\0" + _pack(Struct(">BBB"), "A-ASSOCIATE-RJ", pdu.result, pdu.source, pdu.reason)
        case DataTF():
            kind, body = 4, b"".join(map(_write_pdv, pdu.pdvs))
        case ReleaseRQ():
            kind, body = 5, bytes(4)
        case ReleaseRP():
            kind, body = 6, bytes(4)
        case Abort():
            kind, body = 7, b"\0\0" + _pack(Struct(">BB"), "A-ABORT", pdu.source, pdu.reason)
        case _:
            assert_never(pdu)
    return _HEADER.pack(kind, len(body)) + body


def _encode_associate(pdu: AssociateRQ | AssociateAC) -> bytes:
    try:
        return pdu._encoding
    except AttributeError:
        body = _write_associate(pdu)
        encoding = _HEADER.pack(1 if isinstance(pdu, AssociateRQ) else 2, len(body)) + body
        object.__setattr__(pdu, "_encoding", encoding)
        return encoding


# For logs.


def _quote(text: str | None) -> str:
    """Return ``text`` in quotes, printable ASCII only and of bounded length, as it comes from the peer."""
    if text is None:
        return "none"
    return ascii(text) if len(text) <= 64 else ascii(text[:64]) + "..."


def _summary_associate(pdu: AssociateRQ | AssociateAC) -> str:
    if isinstance(pdu, AssociateRQ):
        name, contexts = "A-ASSOCIATE-RQ", f"contexts {len(pdu.presentation_contexts)}"
    else:
        accepted = sum(context.result == 0 for context in pdu.presentation_contexts)
        name, contexts = "A-ASSOCIATE-AC", f"contexts accepted {accepted} of {len(pdu.presentation_contexts)}"
    information = pdu.user_information
    parts = [f"{name} called {_quote(pdu.called_ae_title)} calling {_quote(pdu.calling_ae_title)}", contexts]
    if information.maximum_length is not None:
        parts.append(f"maximum length {information.maximum_length}")
    uid, version = information.implementation_class_uid, information.implementation_version_name
    parts.append(f"implementation {_quote(uid)} {_quote(version)}")
    window = information.async_operations
    if window is not None:
        parts.append(f"operations window {window.invoked}/{window.performed}")
    if information.roles:
        parts.append(f"roles {len(information.roles)}")
    if information.extended_negotiation or information.common_extended_negotiation:
        count = len(information.extended_negotiation) + len(information.common_extended_negotiation)
        parts.append(f"extended negotiations {count}")
    if information.user_identity is not None:
        parts.append(f"user identity type {information.user_identity.type}")
    if information.user_identity_response is not None:
        parts.append("user identity response")
    return ", ".join(parts)


def summary(pdu: PDU) -> str:
    """Describe a PDU in one line for logs: control characters escaped, length bounded, no payload, no credentials."""
    match pdu:
        case AssociateRQ() | AssociateAC():
            return _summary_associate(pdu)
        case AssociateRJ():
            return f"A-ASSOCIATE-RJ result {pdu.result}, source {pdu.source}, reason {pdu.reason}"
        case DataTF():
            return f"P-DATA-TF of {len(pdu.pdvs)} PDVs, {sum(len(pdv.data) for pdv in pdu.pdvs)} bytes"
        case ReleaseRQ():
            return "A-RELEASE-RQ"
        case ReleaseRP():
            return "A-RELEASE-RP"
        case Abort():
            return f"A-ABORT source {pdu.source}, reason {pdu.reason}"
        case _:
            assert_never(pdu)
