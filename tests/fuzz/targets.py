"""What is fuzzed: each target takes bytes and raises only if asyncdicom is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from asyncdicom import sop
from asyncdicom.dataset import decode_data_set, scan
from asyncdicom.exceptions import DataSetError, LocalProtocolError
from asyncdicom.protocol import negotiation, pdu, recurring
from asyncdicom.protocol.commands import InvalidCommandSet
from asyncdicom.protocol.dimse import Dimse
from asyncdicom.protocol.framing import ControlPDU, Framer
from asyncdicom.protocol.negotiation import PresentationContext, Support
from asyncdicom.protocol.pdu import InvalidPDU
from asyncdicom.protocol.states import State
from asyncdicom.protocol.upper_layer import AssociateIndication, Role, UpperLayer

__all__ = ["TARGETS", "Target"]

Target = Callable[[bytes], None]

_SUPPORT = Support(transfer_syntaxes=None, requestor_scp=True)
_CONTEXTS = {1: None, 3: None, 5: None}


def fuzz_pdu(data: bytes) -> None:
    """Decode a PDU; what decodes encodes again, to something that decodes to the same."""
    if not data:
        return
    try:
        decoded = pdu.decode(data[0] % 8, data[1:])
    except InvalidPDU:
        return
    pdu.summary(decoded)
    try:
        encoded = pdu.encode(decoded)
    except LocalProtocolError:
        return  # tolerated on receipt, never sent
    again = pdu.decode(encoded[0], encoded[6:])
    assert pdu.encode(again) == encoded
    if isinstance(decoded, pdu.AssociateRQ):
        negotiation.answer(decoded, support=lambda _: _SUPPORT, maximum_length=16384)


def fuzz_commands(data: bytes) -> None:
    """Decode a command set; what decodes survives a round trip."""
    try:
        message, has_data_set = recurring.decode(data)
    except InvalidCommandSet:
        return
    try:
        encoded = recurring.encode(message, has_data_set=has_data_set)
    except LocalProtocolError:
        return
    recurring.decode(encoded)


def fuzz_framing(data: bytes) -> None:
    """Frame a stream that arrives in pieces; the payload never exceeds what came."""
    if not data:
        return
    framer = Framer(associate_pdu=4096, maximum_length=1024)
    step = data[0] + 1
    total = 0
    try:
        for start in range(1, len(data), step):
            framer.receive_data(data[start : start + step])
            while (item := framer.next()) is not None:
                total += len(item.body if isinstance(item, ControlPDU) else item.data)
    except InvalidPDU:
        pass
    assert total <= len(data)


def _machine(role: Role) -> UpperLayer:
    machine = UpperLayer(role, associate_pdu=4096, maximum_length=1024)
    if role is Role.REQUESTOR:
        machine.associate(
            negotiation.request(
                called="A",
                calling="B",
                contexts=[PresentationContext(abstract_syntax=sop.VERIFICATION)],
                maximum_length=16384,
            )
        )
    machine.transport_connected()
    return machine


def fuzz_states(data: bytes) -> None:
    """Drive both roles of the state machine with local primitives and received bytes; it never raises for a peer."""
    if len(data) < 2:
        return
    machine = _machine(Role.REQUESTOR if data[0] & 1 else Role.ACCEPTOR)
    primitives: tuple[Callable[[], None], ...] = (
        machine.release,
        machine.confirm_release,
        machine.abort,
        machine.artim_expired,
        machine.receive_eof,
        partial(machine.send_data, b"\4\0\0\0\0\6\0\0\0\2\1\2"),
    )
    position = 1
    for _ in range(64):
        if position >= len(data):
            break
        choice = data[position]
        if choice < 32:
            try:
                primitives[choice % len(primitives)]()
            except LocalProtocolError:
                pass
            position += 1
        else:
            machine.receive_data(data[position + 1 : position + 1 + choice])
            position += 1 + choice
        while (event := machine.next_event()) is not None:
            if isinstance(event, AssociateIndication) and machine.state is State.STA3:
                answer = negotiation.answer(event.request, support=lambda _: _SUPPORT, maximum_length=16384)
                if isinstance(answer, pdu.AssociateRJ):
                    machine.reject(answer)
                else:
                    machine.accept(answer[0])
        machine.data_to_send()


def fuzz_dimse(data: bytes) -> None:
    """Assemble messages of an established association from fragments; it never raises for a peer."""
    if not data:
        return
    machine = _machine(Role.ACCEPTOR)
    machine.receive_data(_REQUEST)
    event = machine.next_event()
    assert isinstance(event, AssociateIndication)
    answer = negotiation.answer(event.request, support=lambda _: _SUPPORT, maximum_length=1024)
    assert not isinstance(answer, pdu.AssociateRJ)
    machine.accept(answer[0])
    core = Dimse(machine, command_set=2048)
    core.establish(_CONTEXTS, 1024)
    step = data[0] + 1
    for start in range(1, len(data), step):
        machine.receive_data(data[start : start + step])
        while core.next_event() is not None:
            pass


_REQUEST = pdu.encode(
    negotiation.request(
        called="A",
        calling="B",
        contexts=[
            PresentationContext(abstract_syntax=uid)
            for uid in (sop.VERIFICATION, sop.STUDY_ROOT_FIND, sop.CT_IMAGE_STORAGE)
        ],
        maximum_length=16384,
    )
)

_SYNTAXES = (
    sop.IMPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_BIG_ENDIAN,
    sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


def fuzz_data_set(data: bytes) -> None:
    """Scan and decode a data set; nothing but ``DataSetError`` comes out."""
    if not data:
        return
    syntax = _SYNTAXES[data[0] % 4]
    for read in (scan, decode_data_set):
        try:
            read(data[1:], syntax)
        except DataSetError:
            pass


TARGETS: Mapping[str, Target] = {
    "pdu": fuzz_pdu,
    "commands": fuzz_commands,
    "framing": fuzz_framing,
    "states": fuzz_states,
    "dimse": fuzz_dimse,
    "data_set": fuzz_data_set,
}
