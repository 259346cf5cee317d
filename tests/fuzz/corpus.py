"""Seeds: valid messages of every kind, from which the fuzzer starts."""

from __future__ import annotations

from collections.abc import Iterator

from asyncdicom import sop
from asyncdicom.protocol import commands, pdu
from asyncdicom.protocol.framing import Layout

from .targets import _REQUEST

__all__ = ["seeds"]


def _commands() -> list[bytes]:
    uid = "1.2.3.4"
    messages: list[commands.Message] = [
        commands.CEchoRQ(message_id=1, affected_sop_class_uid=sop.VERIFICATION),
        commands.CEchoRSP(message_id_being_responded_to=1, affected_sop_class_uid=sop.VERIFICATION, status=0),
        commands.CStoreRQ(message_id=2, affected_sop_class_uid=sop.CT_IMAGE_STORAGE, affected_sop_instance_uid=uid),
        commands.CFindRQ(message_id=3, affected_sop_class_uid=sop.STUDY_ROOT_FIND),
        commands.CFindRSP(message_id_being_responded_to=3, status=0xFF00, error_comment="comment"),
        commands.CMoveRQ(message_id=4, affected_sop_class_uid=sop.STUDY_ROOT_MOVE, move_destination="DEST"),
        commands.CGetRSP(message_id_being_responded_to=5, status=0xB000, number_of_failed_suboperations=3),
        commands.CCancelRQ(message_id_being_responded_to=3),
        commands.NActionRQ(message_id=6, requested_sop_class_uid=uid, requested_sop_instance_uid=uid, action_type_id=1),
    ]
    return [commands.encode(message, has_data_set=False) for message in messages]


def seeds(target: str) -> Iterator[bytes]:
    """Yield the seeds of a target."""
    layout = Layout(16384)
    streams = [bytes(layout.command(1, encoded)) for encoded in _commands()]
    if target == "pdu":
        yield b"\1" + _REQUEST[6:]
        for item in (pdu.AssociateRJ(result=1, source=1, reason=1), pdu.Abort(source=2, reason=6), pdu.ReleaseRQ()):
            encoded = pdu.encode(item)
            yield encoded[:1] + encoded[6:]
    elif target == "commands":
        yield from _commands()
    elif target in ("framing", "dimse"):
        for stream in streams:
            yield b"\x40" + stream
        yield b"\x40" + b"".join(streams)
    elif target == "states":
        yield b"\0" + b"".join(b"\xff" + _REQUEST[start : start + 255] for start in range(0, len(_REQUEST), 255))
        yield bytes((1, 64)) + streams[0][:64] + b"\0\1\2\3\4"
    elif target == "session":
        for stream in streams:
            yield b"\x41" + stream
        yield b"\x41" + b"".join(streams) + pdu.encode(pdu.ReleaseRQ())
    else:
        yield b"\1" + bytes.fromhex("10001000504e0800446f655e4a6f686e")
        yield b"\0" + bytes.fromhex("1000100008000000446f655e4a6f686e")
