"""Tests of the PDU codec: golden bytes, tolerated and malformed input, and properties."""

from __future__ import annotations

import copy
import pickle
import time
from dataclasses import replace
from typing import Any

import pynetdicom.pdu
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom.exceptions import LocalProtocolError
from asyncdicom.protocol import pdu
from asyncdicom.protocol.pdu import (
    PDU,
    PDU_TYPES,
    Abort,
    AbortReason,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsyncOperationsWindow,
    CommonExtendedNegotiation,
    DataTF,
    ExtendedNegotiation,
    InvalidPDU,
    PresentationContextAC,
    PresentationContextRQ,
    PresentationDataValue,
    ReleaseRP,
    ReleaseRQ,
    RoleSelection,
    UserIdentityAC,
    UserIdentityRQ,
    UserInformation,
    decode,
    encode,
    summary,
)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

# Golden bytes, by hand from the tables that the classes cite. Text is spelled in ASCII for legibility.

#: AE titles "ARCHIVE" and "WORKSTATION", and the reserved 32 bytes.
_TITLES = b"ARCHIVE         " + b"WORKSTATION     " + bytes(32)
#: Application Context item: 10H, reserved, length 21.
_CONTEXT_NAME = b"\x10\x00\x00\x151.2.840.10008.3.1.1.1"

_MINIMAL_RQ = AssociateRQ(
    called_ae_title="ARCHIVE",
    calling_ae_title="WORKSTATION",
    application_context=APPLICATION_CONTEXT,
    presentation_contexts=(
        PresentationContextRQ(
            context_id=1,
            abstract_syntax="1.2.840.10008.1.1",
            transfer_syntaxes=("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"),
        ),
    ),
    user_information=UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
)
_MINIMAL_RQ_BYTES = (
    b"\x01\x00\x00\x00\x00\xbb"  # 68 + 25 + 73 + 21 = 187
    b"\x00\x01\x00\x00"
    + _TITLES
    + _CONTEXT_NAME
    + b"\x20\x00\x00\x45\x01\x00\x00\x00"  # 4 + (4 + 17) + (4 + 19) + (4 + 17) = 69
    + b"\x30\x00\x00\x111.2.840.10008.1.1"
    + b"\x40\x00\x00\x131.2.840.10008.1.2.1"
    + b"\x40\x00\x00\x111.2.840.10008.1.2"
    + b"\x50\x00\x00\x11"  # (4 + 4) + (4 + 5) = 17
    + b"\x51\x00\x00\x04\x00\x00\x40\x00"
    + b"\x52\x00\x00\x051.2.3"
)

_FULL_USER_INFORMATION = UserInformation(
    maximum_length=0,
    implementation_class_uid="1.2.3",
    async_operations=AsyncOperationsWindow(invoked=0, performed=513),
    roles=(
        RoleSelection(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", scu=False, scp=True),
        RoleSelection(sop_class_uid="1.2.840.10008.5.1.4.1.1.4", scu=True, scp=False),
    ),
    implementation_version_name="ASYNCDICOM_0_1",
    extended_negotiation=(ExtendedNegotiation(sop_class_uid="1.2.4", information=b"\x01\x00\x01"),),
    common_extended_negotiation=(
        CommonExtendedNegotiation(sop_class_uid="1.2.5", service_class_uid="1.2.6"),
        CommonExtendedNegotiation(
            sop_class_uid="1.2.5", service_class_uid="1.2.6", related_sop_class_uids=("1.2.7", "1.2.8.9")
        ),
    ),
    user_identity=UserIdentityRQ(type=2, primary=b"anna", secondary=b"sesame", positive_response_requested=True),
)
_FULL_USER_ITEMS = (
    b"\x51\x00\x00\x04\x00\x00\x00\x00"
    b"\x52\x00\x00\x051.2.3"
    b"\x53\x00\x00\x04\x00\x00\x02\x01"
    b"\x54\x00\x00\x1d\x00\x191.2.840.10008.5.1.4.1.1.2\x00\x01"
    b"\x54\x00\x00\x1d\x00\x191.2.840.10008.5.1.4.1.1.4\x01\x00"
    b"\x55\x00\x00\x0eASYNCDICOM_0_1"
    b"\x56\x00\x00\x0a\x00\x051.2.4\x01\x00\x01"
    b"\x57\x00\x00\x10\x00\x051.2.5\x00\x051.2.6\x00\x00"
    b"\x57\x00\x00\x20\x00\x051.2.5\x00\x051.2.6\x00\x10\x00\x051.2.7\x00\x071.2.8.9"
    b"\x58\x00\x00\x10\x02\x01\x00\x04anna\x00\x06sesame"
)
_FULL_RQ = AssociateRQ(
    called_ae_title="ARCHIVE",
    calling_ae_title="WORKSTATION",
    application_context=APPLICATION_CONTEXT,
    presentation_contexts=(
        PresentationContextRQ(context_id=1, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=("1.2",)),
        PresentationContextRQ(context_id=255, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=("1.2.3.4",)),
    ),
    user_information=_FULL_USER_INFORMATION,
)
_FULL_RQ_BYTES = (
    b"\x01\x00\x00\x00\x01\x74"  # 68 + 25 + 36 + 40 + (4 + 199) = 372
    b"\x00\x01\x00\x00"
    + _TITLES
    + _CONTEXT_NAME
    + b"\x20\x00\x00\x20\x01\x00\x00\x00"  # 4 + (4 + 17) + (4 + 3) = 32
    + b"\x30\x00\x00\x111.2.840.10008.1.1"
    + b"\x40\x00\x00\x031.2"
    + b"\x20\x00\x00\x24\xff\x00\x00\x00"
    + b"\x30\x00\x00\x111.2.840.10008.1.1"
    + b"\x40\x00\x00\x071.2.3.4"
    + b"\x50\x00\x00\xc7"  # 8 + 9 + 8 + 33 + 33 + 18 + 14 + 20 + 36 + 20 = 199
    + _FULL_USER_ITEMS
)

_AC = AssociateAC(
    called_ae_title="ARCHIVE",
    calling_ae_title="WORKSTATION",
    application_context=APPLICATION_CONTEXT,
    presentation_contexts=(
        PresentationContextAC(context_id=1, result=0, transfer_syntax="1.2.840.10008.1.2.1"),
        PresentationContextAC(context_id=3, result=4, transfer_syntax="1.2.840.10008.1.2"),
    ),
    user_information=UserInformation(
        maximum_length=131072,
        implementation_class_uid="1.2.3",
        async_operations=AsyncOperationsWindow(invoked=1, performed=1),
        user_identity_response=UserIdentityAC(response=b"ticket"),
    ),
)
_AC_BYTES = (
    b"\x02\x00\x00\x00\x00\xc2"  # 68 + 25 + 31 + 29 + (4 + 37) = 194
    b"\x00\x01\x00\x00"
    + _TITLES
    + _CONTEXT_NAME
    + b"\x21\x00\x00\x1b\x01\x00\x00\x00\x40\x00\x00\x131.2.840.10008.1.2.1"
    + b"\x21\x00\x00\x19\x03\x00\x04\x00\x40\x00\x00\x111.2.840.10008.1.2"
    + b"\x50\x00\x00\x25"  # 8 + 9 + 8 + (4 + 8) = 37
    + b"\x51\x00\x00\x04\x00\x02\x00\x00"
    + b"\x52\x00\x00\x051.2.3"
    + b"\x53\x00\x00\x04\x00\x01\x00\x01"
    + b"\x59\x00\x00\x08\x00\x06ticket"
)

GOLDEN: list[tuple[PDU, bytes]] = [
    (_MINIMAL_RQ, _MINIMAL_RQ_BYTES),
    (_FULL_RQ, _FULL_RQ_BYTES),
    (_AC, _AC_BYTES),
    (AssociateRJ(result=1, source=1, reason=7), b"\x03\x00\x00\x00\x00\x04\x00\x01\x01\x07"),
    (AssociateRJ(result=2, source=3, reason=2), b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02"),
    (
        DataTF(pdvs=(PresentationDataValue(context_id=1, is_command=True, is_last=True, data=b"ab"),)),
        b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03ab",
    ),
    (
        DataTF(
            pdvs=(
                PresentationDataValue(context_id=3, is_command=True, is_last=False, data=b""),
                PresentationDataValue(context_id=5, is_command=False, is_last=True, data=b"x"),
                PresentationDataValue(context_id=5, is_command=False, is_last=False, data=b"yz"),
            )
        ),
        b"\x04\x00\x00\x00\x00\x15\x00\x00\x00\x02\x03\x01\x00\x00\x00\x03\x05\x02x\x00\x00\x00\x04\x05\x00yz",
    ),
    (ReleaseRQ(), b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"),
    (ReleaseRP(), b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"),
    (Abort(source=0, reason=0), b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"),
    (Abort(source=2, reason=6), b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"),
]

GOLDEN_IDS = [f"{type(pdu).__name__}-{index}" for index, (pdu, _) in enumerate(GOLDEN)]

golden = pytest.mark.parametrize(("pdu", "octets"), GOLDEN, ids=GOLDEN_IDS)


@golden
def test_encoder_writes_the_golden_bytes(pdu: PDU, octets: bytes) -> None:
    assert encode(pdu) == octets


@golden
def test_decoder_reads_the_golden_bytes(pdu: PDU, octets: bytes) -> None:
    assert decode(octets[0], octets[6:]) == pdu
    assert decode(octets[0], memoryview(octets)[6:]) == pdu


@golden
def test_the_type_table_names_the_class_of_each_pdu(pdu: PDU, octets: bytes) -> None:
    assert PDU_TYPES[octets[0]] is type(pdu)


_PEERS: dict[int, Any] = {
    1: pynetdicom.pdu.A_ASSOCIATE_RQ,
    2: pynetdicom.pdu.A_ASSOCIATE_AC,
    3: pynetdicom.pdu.A_ASSOCIATE_RJ,
    4: pynetdicom.pdu.P_DATA_TF,
    5: pynetdicom.pdu.A_RELEASE_RQ,
    6: pynetdicom.pdu.A_RELEASE_RP,
    7: pynetdicom.pdu.A_ABORT_RQ,
}


@golden
def test_pynetdicom_reads_the_golden_bytes_and_writes_the_same(pdu: PDU, octets: bytes) -> None:
    peer = _PEERS[octets[0]]()
    peer.decode(octets)
    assert peer.encode() == octets


@golden
def test_every_truncation_of_the_golden_bytes_is_invalid(pdu: PDU, octets: bytes) -> None:
    # A cut between two items of an A-ASSOCIATE PDU, or two PDVs, leaves a PDU that is whole again.
    for end in range(6, len(octets)):
        try:
            shorter = decode(octets[0], octets[6:end])
        except InvalidPDU:
            continue
        assert isinstance(pdu, AssociateRQ | AssociateAC | DataTF)
        assert shorter != pdu
        assert decode(octets[0], encode(shorter)[6:]) == shorter


@golden
def test_a_golden_pdu_has_a_summary_of_one_printable_line(pdu: PDU, octets: bytes) -> None:
    line = summary(pdu)
    assert line.isprintable()
    assert line.isascii()


# What is tolerated.


def item(kind: int, value: bytes, *, reserved: int = 0, length: int | None = None) -> bytes:
    """Spell an item, with a wrong length if asked."""
    return bytes((kind, reserved)) + (len(value) if length is None else length).to_bytes(2, "big") + value


def counted(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def associate(*items: bytes, version: bytes = b"\0\1", called: bytes = b"A", calling: bytes = b"B") -> bytes:
    """Spell the variable field of an A-ASSOCIATE PDU."""
    return version + b"\0\0" + called.ljust(16) + calling.ljust(16) + bytes(32) + b"".join(items)


def context(context_id: int = 1, *items: bytes) -> bytes:
    """Spell a presentation context item of an A-ASSOCIATE-RQ."""
    return item(0x20, bytes((context_id, 0, 0, 0)) + b"".join(items or (item(0x30, b"1.2"), item(0x40, b"1.3"))))


def context_ac(context_id: int, result: int, *items: bytes) -> bytes:
    return item(0x21, bytes((context_id, 0, result, 0)) + b"".join(items))


def user(*items: bytes) -> bytes:
    return item(0x50, b"".join(items))


def decode_rq(body: bytes) -> AssociateRQ:
    pdu = decode(1, body)
    assert isinstance(pdu, AssociateRQ)
    return pdu


def decode_ac(body: bytes) -> AssociateAC:
    pdu = decode(2, body)
    assert isinstance(pdu, AssociateAC)
    return pdu


@pytest.mark.parametrize(
    ("field", "title"),
    [
        (b"ARCHIVE         ", "ARCHIVE"),
        (b"ARCHIVE\0\0\0\0\0\0\0\0\0", "ARCHIVE"),
        (b"ARCHIVE \0\0\0\0 \0\0\0", "ARCHIVE"),
        (b"  ARCHIVE       ", "ARCHIVE"),
        (b"SIXTEEN.LETTERS.", "SIXTEEN.LETTERS."),
        (b"                ", ""),
        (bytes(16), ""),
        (b"TWO WORDS       ", "TWO WORDS"),
        # Judged above, and never a raw log line: see the tests of summary().
        (b"A\0B             ", "A\0B"),
        (b"A\r\n\x1b[2J        ", "A\r\n\x1b[2J"),
        (b"../../x         ", "../../x"),
        (b"\xc4RCHIV          ", "\xc4RCHIV"),
    ],
)
def test_ae_titles_lose_their_padding_and_nothing_else(field: bytes, title: str) -> None:
    assert decode_rq(associate(called=field)).called_ae_title == title
    assert decode_ac(associate(calling=field)).calling_ae_title == title


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0", b" \0 "])
def test_uids_and_names_lose_padding_of_either_parity(padding: bytes) -> None:
    pdu = decode_rq(
        associate(
            item(0x10, b"1.1" + padding),
            context(1, item(0x30, b"1.2" + padding), item(0x40, b"1.3" + padding)),
            user(
                item(0x52, b"1.4" + padding),
                item(0x54, counted(b"1.5" + padding) + b"\1\1"),
                item(0x55, b"NAME" + padding),
                item(0x56, counted(b"1.6" + padding) + b"\1"),
                item(0x57, counted(b"1.7" + padding) + counted(b"1.8") + counted(counted(b"1.9" + padding))),
            ),
        )
    )
    assert pdu.application_context == "1.1"
    assert pdu.presentation_contexts == (
        PresentationContextRQ(context_id=1, abstract_syntax="1.2", transfer_syntaxes=("1.3",)),
    )
    assert pdu.user_information == UserInformation(
        implementation_class_uid="1.4",
        roles=(RoleSelection(sop_class_uid="1.5", scu=True, scp=True),),
        implementation_version_name="NAME",
        extended_negotiation=(ExtendedNegotiation(sop_class_uid="1.6", information=b"\1"),),
        common_extended_negotiation=(
            CommonExtendedNegotiation(sop_class_uid="1.7", service_class_uid="1.8", related_sop_class_uids=("1.9",)),
        ),
    )


@pytest.mark.parametrize("version", [b"\0\0", b"\0\2", b"\0\3", b"\xff\xff"])
def test_any_protocol_version_decodes_for_the_caller_to_judge(version: bytes) -> None:
    assert decode_rq(associate(version=version)).protocol_version == int.from_bytes(version, "big")


def test_reserved_bytes_are_not_looked_at() -> None:
    clean = _MINIMAL_RQ_BYTES[6:]
    dirty = bytearray(clean)
    dirty[2:4] = b"\xff\xff"
    dirty[36:68] = b"\xff" * 32
    position = 68
    while position < len(dirty):
        dirty[position + 1] = 0xFF
        if dirty[position] == 0x20:
            dirty[position + 5 : position + 8] = b"\xff\xff\xff"
        position += 4 + int.from_bytes(dirty[position + 2 : position + 4], "big")
    assert decode_rq(bytes(dirty)) == _MINIMAL_RQ
    assert decode(3, b"\xff\1\1\7") == AssociateRJ(result=1, source=1, reason=7)
    assert decode(5, b"\xff\xff\xff\xff") == ReleaseRQ()
    assert decode(6, b"\xff\xff\xff\xff") == ReleaseRP()
    assert decode(7, b"\xff\xff\2\1") == Abort(source=2, reason=1)


def test_values_that_are_reserved_decode_as_they_are() -> None:
    assert decode(3, b"\0\xff\xfe\xfd") == AssociateRJ(result=255, source=254, reason=253)
    assert decode(7, b"\0\0\xff\3") == Abort(source=255, reason=3)
    pdu = decode_ac(associate(context_ac(1, 255)))
    assert pdu.presentation_contexts == (PresentationContextAC(context_id=1, result=255, transfer_syntax=None),)


def test_user_items_may_come_in_any_order_and_be_unknown() -> None:
    backwards: list[bytes] = []
    data = _FULL_USER_ITEMS
    while data:
        end = 4 + int.from_bytes(data[2:4], "big")
        backwards.insert(0, data[:end])
        backwards.insert(0, item(0x5A, b"\xff" * 7))
        data = data[end:]
    found = decode_rq(associate(user(*backwards))).user_information
    expected = _FULL_USER_INFORMATION
    assert found.user_identity == expected.user_identity
    assert found.maximum_length == expected.maximum_length
    assert found.roles == expected.roles[::-1]
    assert found.common_extended_negotiation == expected.common_extended_negotiation[::-1]


def test_of_items_that_may_occur_once_the_first_counts() -> None:
    pdu = decode_rq(
        associate(
            item(0x10, b"1.1"),
            user(item(0x51, b"\0\0\x40\0"), item(0x51, b"\0\0\0\0"), item(0x52, b"1.2"), item(0x52, b"1.3")),
            item(0x10, b"1.9"),
            user(item(0x51, b"\0\0\0\7"), item(0x55, b"NAME")),
        )
    )
    assert pdu.application_context == "1.1"
    assert pdu.user_information == UserInformation(maximum_length=16384, implementation_class_uid="1.2")


def test_unknown_items_are_skipped_by_their_length() -> None:
    pdu = decode_rq(
        associate(
            item(0x00, b""),
            item(0x99, b"\xff" * 300),
            item(0x21, b"x"),
            context(1, item(0x77, b"?"), item(0x30, b"1.2"), item(0x21, b""), item(0x40, b"1.3")),
            user(item(0x51, b"\0\0\x40\0"), item(0x60, b"")),
            item(0xFF, b"?"),
        )
    )
    assert len(pdu.presentation_contexts) == 1
    assert pdu.user_information.maximum_length == 16384


def test_items_may_be_missing() -> None:
    assert decode_rq(associate()) == AssociateRQ(called_ae_title="A", calling_ae_title="B", application_context=None)
    assert decode_ac(associate()) == AssociateAC(called_ae_title="A", calling_ae_title="B", application_context=None)
    assert decode_rq(associate(user())).user_information == UserInformation()
    assert decode_rq(associate(context(1, item(0x30, b"1.2")))).presentation_contexts[0].transfer_syntaxes == ()


@pytest.mark.parametrize(
    ("items", "transfer_syntax"),
    [
        ((), None),
        ((item(0x40, b""),), None),
        ((item(0x40, b"\0"),), None),
        ((item(0x40, b"1.3"),), "1.3"),
        ((item(0x40, b"1.3"), item(0x40, b"1.4")), "1.3"),
        ((item(0x30, b"1.2"), item(0x40, b"1.3")), "1.3"),
    ],
)
def test_a_rejected_context_may_have_any_transfer_syntax_or_none(
    items: tuple[bytes, ...], transfer_syntax: str | None
) -> None:
    pdu = decode_ac(associate(context_ac(1, 3, *items)))
    assert pdu.presentation_contexts == (
        PresentationContextAC(context_id=1, result=3, transfer_syntax=transfer_syntax),
    )


@pytest.mark.parametrize(
    ("octet", "role"), [(0, False), (1, True), (2, False), (255, False)], ids=["0", "1", "2", "255"]
)
def test_only_one_means_yes_in_a_role_or_a_response_request(octet: int, role: bool) -> None:
    information = decode_rq(
        associate(
            user(
                item(0x54, counted(b"1.2") + bytes((octet, octet))),
                item(0x58, bytes((1, octet)) + counted(b"u") + counted(b"")),
            )
        )
    ).user_information
    assert information.roles == (RoleSelection(sop_class_uid="1.2", scu=role, scp=role),)
    assert information.user_identity is not None
    assert information.user_identity.positive_response_requested is role


def test_absurd_role_items_for_classes_never_proposed_are_tolerated() -> None:
    uids = [b"", b"\0", b"9" * 1000, b"../../x", b"\xff\xfe", *(b"1.2.%d" % index for index in range(1000))]
    items = [item(0x54, counted(uid) + b"\1\1") for uid in uids]
    items.append(item(0x54, counted(b"1.2") + b"\1\0" + b"trailing"))
    assert len(decode_rq(associate(context(), user(*items))).user_information.roles) == 1006


def test_all_128_context_ids_may_be_used() -> None:
    pdu = decode_rq(associate(*(context(context_id) for context_id in range(1, 256, 2))))
    assert [context.context_id for context in pdu.presentation_contexts] == list(range(1, 256, 2))


def test_reserved_bits_of_a_message_control_header_are_not_looked_at() -> None:
    assert decode(4, b"\0\0\0\3\1\xfcx") == decode(4, b"\0\0\0\3\1\0x")
    assert decode(4, b"\0\0\0\2\1\xff") == decode(4, b"\0\0\0\2\1\3")


# What is malformed.

_MALFORMED_USER_ITEMS: dict[str, bytes] = {
    "maximum length of 3 bytes": item(0x51, b"\0\0\1"),
    "maximum length without a value": item(0x51, b""),
    "operations window of 2 bytes": item(0x53, b"\0\1"),
    "role of 1 byte": item(0x54, b"\0"),
    "role without a role": item(0x54, counted(b"1.2")),
    "role without an SCP role": item(0x54, counted(b"1.2") + b"\1"),
    "role with a UID past its end": item(0x54, b"\0\4" + b"1.2"),
    "role with a UID that swallows the roles": item(0x54, b"\0\5" + b"1.2" + b"\1\1"),
    "role with a UID length of 0xFFFF": item(0x54, b"\xff\xff" + b"1.2" + b"\1\1"),
    "role past its parent": item(0x54, counted(b"1.2") + b"\1\1", length=8),
    "role with a length of 0xFFFF": item(0x54, counted(b"1.2") + b"\1\1", length=0xFFFF),
    "extended negotiation with a UID past its end": item(0x56, b"\0\4" + b"1.2"),
    "extended negotiation without a UID length": item(0x56, b""),
    "common extended negotiation without a service class": item(0x57, counted(b"1.2")),
    "common extended negotiation with a service class past its end": item(0x57, counted(b"1.2") + b"\0\4" + b"1.3"),
    "common extended negotiation without related classes": item(0x57, counted(b"1.2") + counted(b"1.3")),
    "common extended negotiation with related classes past its end": item(
        0x57, counted(b"1.2") + counted(b"1.3") + b"\0\x20" + counted(b"1.4")
    ),
    "common extended negotiation with a related class past their end": item(
        0x57, counted(b"1.2") + counted(b"1.3") + b"\0\5" + b"\0\4" + b"1.4" + b"more"
    ),
    "common extended negotiation with half a related length": item(
        0x57, counted(b"1.2") + counted(b"1.3") + counted(b"\0")
    ),
    "user identity without fields": item(0x58, b""),
    "user identity of type only": item(0x58, b"\1"),
    "user identity without a primary field": item(0x58, b"\1\0"),
    "user identity with a primary field past its end": item(0x58, b"\1\0" + b"\0\5" + b"user"),
    "user identity with a primary field of 0xFFFF": item(0x58, b"\1\0" + b"\xff\xff" + b"user" + counted(b"")),
    "user identity without a secondary field": item(0x58, b"\1\0" + counted(b"user")),
    "user identity with a secondary field past its end": item(0x58, b"\2\0" + counted(b"user") + b"\0\5" + b"pass"),
    "user identity past its parent": item(0x58, b"\1\0" + counted(b"user") + counted(b""), length=200),
    "user identity response past its end": item(0x59, b"\0\5" + b"resp"),
    "user identity response without a length": item(0x59, b"\0"),
    "half a sub-item header": b"\x51\0",
    "a sub-item header only, with a length": b"\x51\0\0\4",
    "an unknown sub-item past its parent": item(0x6F, b"x", length=2),
}

_MALFORMED_RQ: dict[str, bytes] = {
    "nothing": b"",
    "half of the fixed fields": associate()[:30],
    "one byte less than the fixed fields": associate()[:-1],
    "one byte after the fixed fields": associate(b"\x10"),
    "three bytes after the last item": associate(context(), b"\x50\0\0"),
    "application context past the PDU": associate(item(0x10, b"1.2", length=4)),
    "application context of 0xFFFF": associate(item(0x10, b"1.2", length=0xFFFF)),
    "presentation context past the PDU": associate(item(0x20, b"\1\0\0\0", length=5)),
    "presentation context of 0xFFFF": associate(item(0x20, b"\1\0\0\0", length=0xFFFF)),
    "presentation context of 0 bytes": associate(item(0x20, b"")),
    "presentation context of 3 bytes": associate(item(0x20, b"\1\0\0")),
    "abstract syntax past its parent": associate(
        context(1, item(0x40, b"1.3"), item(0x30, b"1.2", length=4)), user(item(0x51, b"\0\0\0\0"))
    ),
    "transfer syntax past its parent": associate(
        context(1, item(0x30, b"1.2"), item(0x40, b"1.3", length=4)), user(item(0x51, b"\0\0\0\0"))
    ),
    "transfer syntax of 0xFFFF": associate(context(1, item(0x30, b"1.2"), item(0x40, b"1.3", length=0xFFFF))),
    "half a sub-item in a presentation context": associate(context(1, item(0x30, b"1.2"), b"\x40\0")),
    "no abstract syntax": associate(context(1, item(0x40, b"1.3"))),
    "nothing in a presentation context": associate(item(0x20, b"\1\0\0\0")),
    "two abstract syntaxes": associate(context(1, item(0x30, b"1.2"), item(0x30, b"1.4"), item(0x40, b"1.3"))),
    "the same abstract syntax twice": associate(context(1, item(0x30, b"1.2"), item(0x30, b"1.2"))),
    "context ID 0": associate(context(0)),
    "context ID 2": associate(context(2)),
    "context ID 254": associate(context(1), context(254)),
    "context ID twice": associate(context(1), context(3), context(1)),
    "context ID once more than there are": associate(*(context(index) for index in range(1, 256, 2)), context(255)),
    "user information past the PDU": associate(item(0x50, b"", length=1)),
    "user information of 0xFFFF": associate(item(0x50, item(0x51, b"\0\0\0\0"), length=0xFFFF)),
} | {name: associate(context(), user(octets)) for name, octets in _MALFORMED_USER_ITEMS.items()}

_MALFORMED_AC: dict[str, bytes] = {
    "nothing": b"",
    "one byte less than the fixed fields": associate()[:-1],
    "presentation context of 3 bytes": associate(item(0x21, b"\1\0\0")),
    "presentation context past the PDU": associate(item(0x21, b"\1\0\0\0", length=40)),
    "transfer syntax past its parent": associate(context_ac(1, 0, item(0x40, b"1.3", length=4)), user()),
    "two transfer syntaxes accepted": associate(context_ac(1, 0, item(0x40, b"1.3"), item(0x40, b"1.4"))),
    "even context ID": associate(context_ac(2, 0, item(0x40, b"1.3"))),
    "context ID twice": associate(context_ac(1, 0, item(0x40, b"1.3")), context_ac(1, 3)),
} | {name: associate(user(octets)) for name, octets in _MALFORMED_USER_ITEMS.items()}

_MALFORMED_OTHERS: list[tuple[int, bytes]] = [
    *((kind, bytes(length)) for kind in (3, 5, 6, 7) for length in (0, 3, 5)),
    (4, b""),
    (4, b"\0\0\0\2\1"),
    (4, b"\0\0\0\0\1\0"),
    (4, b"\0\0\0\1\1\0"),
    (4, b"\0\0\0\3\1\0"),
    (4, b"\x80\0\0\0\1\0"),
    (4, b"\xff\xff\xff\xff\1\0"),
    (4, b"\0\0\0\2\1\0" + b"\0\0\0\2\1"),
]


@pytest.mark.parametrize("body", _MALFORMED_RQ.values(), ids=_MALFORMED_RQ.keys())
def test_a_malformed_associate_rq_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidPDU) as caught:
        decode(1, body)
    assert caught.value.reason is AbortReason.INVALID_VALUE
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("body", _MALFORMED_AC.values(), ids=_MALFORMED_AC.keys())
def test_a_malformed_associate_ac_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidPDU) as caught:
        decode(2, body)
    assert caught.value.reason is AbortReason.INVALID_VALUE


@pytest.mark.parametrize(("kind", "body"), _MALFORMED_OTHERS)
def test_another_malformed_pdu_is_invalid(kind: int, body: bytes) -> None:
    with pytest.raises(InvalidPDU) as caught:
        decode(kind, body)
    assert caught.value.reason is AbortReason.INVALID_VALUE


@pytest.mark.parametrize("kind", [0x00, 0x08, 0x16, 0xFF])
def test_an_unknown_pdu_type_is_unrecognized(kind: int) -> None:
    with pytest.raises(InvalidPDU) as caught:
        decode(kind, bytes(4))
    assert caught.value.reason is AbortReason.UNRECOGNIZED_PDU


def test_two_thousand_transfer_syntaxes_decode_in_linear_time() -> None:
    syntaxes = tuple(f"1.2.826.0.1.3680043.{index}" for index in range(2000))
    pdu = AssociateRQ(
        called_ae_title="A",
        calling_ae_title="B",
        application_context=APPLICATION_CONTEXT,
        presentation_contexts=(PresentationContextRQ(context_id=1, abstract_syntax="1.2", transfer_syntaxes=syntaxes),),
    )
    octets = encode(pdu)
    start = time.process_time()
    assert decode(1, octets[6:]) == pdu
    assert time.process_time() - start < 5


# What cannot be encoded.


def rq(**changes: Any) -> AssociateRQ:
    values: dict[str, Any] = {"called_ae_title": "A", "calling_ae_title": "B", "application_context": "1.2"}
    return AssociateRQ(**values | changes)


def with_user(**items: Any) -> AssociateRQ:
    return rq(user_information=UserInformation(**items))


@pytest.mark.parametrize(
    "pdu",
    [
        rq(called_ae_title="SEVENTEEN LETTERS"),
        rq(calling_ae_title="\u20ac"),
        rq(application_context="\u0661"),
        rq(application_context="1" * 65536),
        rq(protocol_version=65536),
        rq(presentation_contexts=(PresentationContextRQ(context_id=257, abstract_syntax="1", transfer_syntaxes=()),)),
        rq(
            presentation_contexts=(
                PresentationContextRQ(context_id=1, abstract_syntax="1", transfer_syntaxes=("1.2" * 20,) * 1100),
            )
        ),
        with_user(maximum_length=-1),
        with_user(maximum_length=1 << 32),
        with_user(async_operations=AsyncOperationsWindow(invoked=65536, performed=1)),
        with_user(user_identity=UserIdentityRQ(type=256, primary=b"")),
        with_user(user_identity=UserIdentityRQ(type=3, primary=bytes(65536))),
        with_user(user_identity=UserIdentityRQ(type=2, primary=b"u", secondary=bytes(65536))),
        with_user(roles=(RoleSelection(sop_class_uid="1.2", scu=True, scp=True),) * 8000),
        AssociateRJ(result=256, source=0, reason=0),
        Abort(source=0, reason=-1),
        DataTF(pdvs=(PresentationDataValue(context_id=256, is_command=False, is_last=True, data=b""),)),
    ],
)
def test_what_does_not_fit_into_its_field_raises_a_local_error(pdu: PDU) -> None:
    with pytest.raises(LocalProtocolError):
        encode(pdu)


# Logging.


def test_no_repr_or_summary_or_error_shows_credentials() -> None:
    request = with_user(
        user_identity=UserIdentityRQ(type=2, primary=b"user-anna", secondary=b"pass-sesame"),
        user_identity_response=UserIdentityAC(response=b"ticket-response"),
    )
    accept = decode(2, encode(request)[6:])
    for text in (repr(request), str(request), summary(request), repr(accept), summary(accept)):
        for secret in ("anna", "sesame", "ticket"):
            assert secret not in text
    assert "user identity type 2" in summary(request)
    with pytest.raises(InvalidPDU) as caught:
        decode(1, associate(user(item(0x58, b"\2\0" + counted(b"anna") + b"\0\x99" + b"sesame"))))
    assert "anna" not in str(caught.value)
    assert "sesame" not in str(caught.value)
    with pytest.raises(LocalProtocolError) as local:
        encode(with_user(user_identity=UserIdentityRQ(type=2, primary=b"anna" * 20000)))
    assert "anna" not in str(local.value)


@pytest.mark.parametrize("hostile", ["A\r\nB", "\x1b[2J", "\x00", "\x7f\x85", "\u00e4", "'\"\\", "%s{0}"])
def test_summary_escapes_what_the_peer_sent(hostile: str) -> None:
    request = rq(
        called_ae_title=hostile,
        user_information=UserInformation(implementation_class_uid=hostile, implementation_version_name=hostile * 500),
    )
    line = summary(request)
    assert line.isprintable()
    assert line.isascii()
    assert len(line) < 1000


@pytest.mark.parametrize(
    ("pdu", "line"),
    [
        (
            _FULL_RQ,
            "A-ASSOCIATE-RQ called 'ARCHIVE' calling 'WORKSTATION', contexts 2, maximum length 0, "
            "implementation '1.2.3' 'ASYNCDICOM_0_1', operations window 0/513, roles 2, extended negotiations 3, "
            "user identity type 2",
        ),
        (
            _AC,
            "A-ASSOCIATE-AC called 'ARCHIVE' calling 'WORKSTATION', contexts accepted 1 of 2, maximum length 131072, "
            "implementation '1.2.3' none, operations window 1/1, user identity response",
        ),
        (AssociateRJ(result=1, source=2, reason=3), "A-ASSOCIATE-RJ result 1, source 2, reason 3"),
        (Abort(source=2, reason=5), "A-ABORT source 2, reason 5"),
        (ReleaseRQ(), "A-RELEASE-RQ"),
        (ReleaseRP(), "A-RELEASE-RP"),
        (
            DataTF(pdvs=(PresentationDataValue(context_id=1, is_command=True, is_last=True, data=b"secret"),)),
            "P-DATA-TF of 1 PDVs, 6 bytes",
        ),
    ],
)
def test_summary_reads_like_this(pdu: PDU, line: str) -> None:
    assert summary(pdu) == line


# Properties.

octet = st.integers(0, 255)
u16 = st.integers(0, 0xFFFF)
uids = st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True)
names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), min_size=1, max_size=16).map(
    lambda text: text.strip("\0 ") or "X"
)
ae_titles = names.map(lambda text: text.strip() or "X")


def tuples(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=4).map(tuple)


user_informations = st.builds(
    UserInformation,
    maximum_length=st.none() | st.integers(0, 0xFFFFFFFF),
    implementation_class_uid=st.none() | uids,
    implementation_version_name=st.none() | names,
    async_operations=st.none() | st.builds(AsyncOperationsWindow, invoked=u16, performed=u16),
    roles=tuples(st.builds(RoleSelection, sop_class_uid=uids, scu=st.booleans(), scp=st.booleans())),
    extended_negotiation=tuples(st.builds(ExtendedNegotiation, sop_class_uid=uids, information=st.binary(max_size=8))),
    common_extended_negotiation=tuples(
        st.builds(
            CommonExtendedNegotiation,
            sop_class_uid=uids,
            service_class_uid=uids,
            related_sop_class_uids=tuples(uids),
        )
    ),
    user_identity=st.none()
    | st.builds(
        UserIdentityRQ,
        type=octet,
        primary=st.binary(max_size=20),
        secondary=st.binary(max_size=20),
        positive_response_requested=st.booleans(),
    ),
    user_identity_response=st.none() | st.builds(UserIdentityAC, response=st.binary(max_size=20)),
)


def contexts_of(build: Any) -> Any:
    return st.lists(st.integers(0, 127).map(lambda index: 2 * index + 1), max_size=5, unique=True).flatmap(
        lambda ids: st.tuples(*(build(st.just(context_id)) for context_id in ids))
    )


requests = st.builds(
    AssociateRQ,
    called_ae_title=ae_titles,
    calling_ae_title=ae_titles,
    application_context=st.none() | uids,
    presentation_contexts=contexts_of(
        lambda ids: st.builds(
            PresentationContextRQ, context_id=ids, abstract_syntax=uids, transfer_syntaxes=tuples(uids)
        )
    ),
    user_information=user_informations,
    protocol_version=u16,
)
accepts = st.builds(
    AssociateAC,
    called_ae_title=ae_titles,
    calling_ae_title=ae_titles,
    application_context=st.none() | uids,
    presentation_contexts=contexts_of(
        lambda ids: st.builds(PresentationContextAC, context_id=ids, result=octet, transfer_syntax=st.none() | uids)
    ),
    user_information=user_informations,
    protocol_version=u16,
)
pdvs = st.builds(
    PresentationDataValue,
    context_id=octet,
    is_command=st.booleans(),
    is_last=st.booleans(),
    data=st.binary(max_size=20),
)
pdus = st.one_of(
    requests,
    accepts,
    st.builds(AssociateRJ, result=octet, source=octet, reason=octet),
    st.builds(DataTF, pdvs=st.lists(pdvs, min_size=1, max_size=4).map(tuple)),
    st.just(ReleaseRQ()),
    st.just(ReleaseRP()),
    st.builds(Abort, source=octet, reason=octet),
)


@given(pdus)
def test_decoding_what_was_encoded_gives_the_same(pdu: PDU) -> None:
    octets = encode(pdu)
    assert PDU_TYPES[octets[0]] is type(pdu)
    assert int.from_bytes(octets[2:6], "big") == len(octets) - 6
    assert decode(octets[0], octets[6:]) == pdu
    assert summary(pdu).isprintable()


def _check_any(kind: int, body: bytes) -> None:
    try:
        pdu = decode(kind, body)
    except InvalidPDU:
        return
    assert decode(kind, encode(pdu)[6:]) == pdu
    assert summary(pdu).isprintable()


@given(st.integers(0, 9), st.binary(max_size=200))
def test_any_bytes_decode_or_are_invalid(kind: int, body: bytes) -> None:
    _check_any(kind, body)


@given(st.sampled_from([1, 2]), st.binary(max_size=200))
def test_any_items_decode_or_are_invalid(kind: int, items: bytes) -> None:
    _check_any(kind, associate(items))


@given(pdus, st.data())
def test_a_damaged_pdu_decodes_or_is_invalid(pdu: PDU, data: st.DataObject) -> None:
    octets = bytearray(encode(pdu))
    for position in data.draw(st.lists(st.integers(6, max(6, len(octets) - 1)), max_size=3)):
        octets[position] = data.draw(octet)
    _check_any(octets[0], bytes(octets[6:]))


def test_a_request_that_was_seen_before_decodes_to_the_same_and_one_with_credentials_is_not_kept() -> None:
    plain = AssociateRQ(called_ae_title="A", calling_ae_title="B", presentation_contexts=(), application_context=None)
    secret = replace(
        plain, user_information=UserInformation(user_identity=UserIdentityRQ(type=2, primary=b"u", secondary=b"s3cret"))
    )
    for request in (plain, secret):
        body = encode(request)[6:]
        assert decode(1, body) == decode(1, body)
    assert decode(1, encode(plain)[6:]) is decode(1, encode(plain)[6:])
    assert [pdu.recurs(decode(1, encode(request)[6:])) for request in (plain, secret)] == [True, False]
    assert not pdu.recurs(plain)
    assert not any(b"s3cret" in body for _, body in pdu._remembered)


def test_a_request_remembers_its_encoding_and_a_changed_one_has_its_own() -> None:
    plain = AssociateRQ(called_ae_title="A", calling_ae_title="B", presentation_contexts=(), application_context=None)
    octets = encode(plain)
    assert encode(plain) is octets
    assert plain == replace(plain)
    assert encode(replace(plain)) == octets
    assert encode(replace(plain, called_ae_title="C")) == octets.replace(b"A" + b" " * 15, b"C" + b" " * 15)
    assert encode(copy.copy(plain)) == encode(pickle.loads(pickle.dumps(plain))) == octets
    assert "encoding" not in repr(plain)


def test_no_more_than_a_few_requests_are_remembered() -> None:
    for number in range(500):
        decode(
            1,
            encode(
                AssociateRQ(
                    called_ae_title="A",
                    calling_ae_title=str(number),
                    presentation_contexts=(),
                    application_context=None,
                )
            )[6:],
        )
    assert 0 < len(pdu._remembered) <= 64
