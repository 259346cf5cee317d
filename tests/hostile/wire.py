"""PDUs and messages in raw bytes (PS3.8 9.3, PS3.7 E.1), and lengths that lie where they are told to."""

from __future__ import annotations

import struct

__all__ = [
    "ABORT_0_0",
    "ACCEPT",
    "CT",
    "ECHO",
    "ECHO_RESPONSE",
    "FIND",
    "FIND_RESPONSE",
    "GET",
    "MAXIMUM",
    "MOVE",
    "RELEASE",
    "RELEASE_RESPONSE",
    "REQUEST",
    "STORE",
    "VERIFICATION",
    "abort",
    "accept",
    "accepted",
    "associate",
    "cancel",
    "command",
    "context",
    "element",
    "find_command",
    "get_response",
    "item",
    "message",
    "p_data",
    "pdv",
    "reject",
    "statuses",
    "store_command",
    "ui",
    "us",
]

ABORT_0_0 = b"\x07\0\0\0\0\x04\0\0\0\0"
RELEASE = b"\x05\0\0\0\0\x04\0\0\0\0"
RELEASE_RESPONSE = b"\x06\0\0\0\0\x04\0\0\0\0"

#: Command Fields.
STORE, GET, FIND_RQ, MOVE, ECHO_RQ, CANCEL = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF

_CT_IMAGE_STORAGE = b"1.2.840.10008.5.1.4.1.1.2"
_STUDY_ROOT_FIND = b"1.2.840.10008.5.1.4.1.2.2.1"


def abort(source: int, reason: int) -> bytes:
    """Return an A-ABORT."""
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))


def reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ."""
    return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))


def item(kind: int, value: bytes, length: int | None = None) -> bytes:
    """Return an item or sub-item."""
    return struct.pack(">BxH", kind, len(value) if length is None else length) + value


def context(number: int, abstract_syntax: bytes, *transfer_syntaxes: bytes) -> bytes:
    """Return a proposed presentation context."""
    body = bytes((number, 0, 0, 0)) + item(0x30, abstract_syntax)
    return item(0x20, body + b"".join(item(0x40, syntax) for syntax in transfer_syntaxes))


VERIFICATION = context(1, b"1.2.840.10008.1.1", b"1.2.840.10008.1.2")
FIND = context(3, _STUDY_ROOT_FIND, b"1.2.840.10008.1.2")
CT = context(5, _CT_IMAGE_STORAGE, b"1.2.840.10008.1.2")
#: A context that nobody here accepts: Modality Worklist.
_REJECTED = context(7, b"1.2.840.10008.5.1.4.31", b"1.2.840.10008.1.2")
MAXIMUM = item(0x51, struct.pack(">I", 16384))


def associate(
    *items: bytes,
    called: bytes = b"SERVER",
    calling: bytes = b"ADVERSARY",
    application: bytes = b"1.2.840.10008.3.1.1.1",
    version: int = 1,
    user: bytes = MAXIMUM,
) -> bytes:
    """Return an A-ASSOCIATE-RQ."""
    body = struct.pack(">H2x16s16s32x", version, called.ljust(16), calling.ljust(16))
    body += item(0x10, application) + b"".join(items or (VERIFICATION, FIND, CT, _REJECTED)) + item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def accept(*contexts: bytes, user: bytes = MAXIMUM) -> bytes:
    """Return an A-ASSOCIATE-AC."""
    body = struct.pack(">H2x16s16s32x", 1, b"SERVER".ljust(16), b"ASYNCDICOM".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(contexts) + item(0x50, user)
    return struct.pack(">BxI", 2, len(body)) + body


def accepted(number: int, result: int = 0, transfer_syntax: bytes = b"1.2.840.10008.1.2") -> bytes:
    """Return an answered presentation context."""
    return item(0x21, bytes((number, 0, result, 0)) + item(0x40, transfer_syntax))


#: An acceptor that accepts three contexts, and a requestor that proposes them.
ACCEPT = accept(accepted(1), accepted(3), accepted(5))
REQUEST = associate()


def pdv(number: int, control: int, data: bytes, length: int | None = None) -> bytes:
    """Return a PDV; control is 1 for a command, 2 for the last fragment, 3 for both."""
    return struct.pack(">IBB", len(data) + 2 if length is None else length, number, control) + data


def p_data(*pdvs: bytes, length: int | None = None) -> bytes:
    """Return a P-DATA-TF."""
    body = b"".join(pdvs)
    return struct.pack(">BxI", 4, len(body) if length is None else length) + body


def command(*elements: tuple[int, bytes]) -> bytes:
    """Return a command set."""
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def element(tag: int, value: bytes, length: int | None = None) -> bytes:
    """Return an element in Implicit VR Little Endian."""
    value += b" " * (len(value) % 2)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def us(value: int) -> bytes:
    """Return a value of VR US."""
    return struct.pack("<H", value)


def ui(value: bytes) -> bytes:
    """Return a value of VR UI."""
    return value + b"\0" * (len(value) % 2)


def message(number: int, command_set: bytes, data: bytes | None = None) -> bytes:
    """Return a message: a command set, and its data set if there is one, a P-DATA-TF each."""
    sent = p_data(pdv(number, 3, command_set))
    return sent if data is None else sent + p_data(pdv(number, 2, data))


def _echo(field: int, *more: tuple[int, bytes]) -> bytes:
    about = 0x110 if field == ECHO_RQ else 0x120
    return command((2, b"1.2.840.10008.1.1\0"), (0x100, us(field)), (about, us(1)), (0x800, us(0x101)), *more)


ECHO = _echo(ECHO_RQ)
ECHO_RESPONSE = _echo(0x8030, (0x900, us(0)))


def store_command(uid: bytes, message_id: int = 7) -> bytes:
    """Return the command set of a C-STORE-RQ of a CT image."""
    return command(
        (2, ui(_CT_IMAGE_STORAGE)),
        (0x100, us(STORE)),
        (0x110, us(message_id)),
        (0x700, us(0)),
        (0x800, us(1)),
        (0x1000, ui(uid)),
    )


def find_command(message_id: int = 1) -> bytes:
    """Return the command set of a C-FIND-RQ of Study Root."""
    return command(
        (2, ui(_STUDY_ROOT_FIND)),
        (0x100, us(FIND_RQ)),
        (0x110, us(message_id)),
        (0x700, us(0)),
        (0x800, us(1)),
    )


def cancel(message_id: int, data_set_type: int = 0x101) -> bytes:
    """Return the command set of a C-CANCEL-RQ."""
    return command((0x100, us(CANCEL)), (0x120, us(message_id)), (0x800, us(data_set_type)))


#: Of a pending C-FIND-RSP for message 1.
FIND_RESPONSE = command(
    (2, ui(_STUDY_ROOT_FIND)), (0x100, us(0x8020)), (0x120, us(1)), (0x800, us(1)), (0x900, us(0xFF00))
)


def get_response(status: int, *, completed: int, failed: int) -> bytes:
    """Return the command set of a final C-GET-RSP for message 1, without a data set."""
    return command(
        (2, ui(b"1.2.840.10008.5.1.4.1.2.2.3")),
        (0x100, us(0x8010)),
        (0x120, us(1)),
        (0x800, us(0x101)),
        (0x900, us(status)),
        (0x1021, us(completed)),
        (0x1022, us(failed)),
        (0x1023, us(0)),
    )


def statuses(received: bytes) -> list[int]:
    """Return the Status (0000,0900) of each response in what was received."""
    mark = b"\0\0\0\x09\x02\0\0\0"
    parts = received.split(mark)[1:]
    return [struct.unpack_from("<H", part)[0] for part in parts if len(part) >= 2]
