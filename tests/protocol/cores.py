"""Protocol cores in known states, and two of them back to back."""

from __future__ import annotations

from struct import pack

from asyncdicom.protocol import pdu
from asyncdicom.protocol.dimse import Dimse, DimseEvent
from asyncdicom.protocol.upper_layer import Pause, Role, UpperLayer, UpperLayerEvent

__all__ = [
    "AC",
    "RJ",
    "RQ",
    "acceptor",
    "associated",
    "data_tf",
    "events",
    "messages",
    "outgoing",
    "pair",
    "pdu_bytes",
    "pdv",
    "receive",
    "requestor",
    "stacked",
    "transfer",
]

_CONTEXT = "1.2.840.10008.3.1.1.1"
_INFORMATION = pdu.UserInformation(maximum_length=16384, implementation_class_uid="1.2.3")

RQ = pdu.AssociateRQ(
    called_ae_title="ARCHIVE",
    calling_ae_title="WORKSTATION",
    application_context=_CONTEXT,
    presentation_contexts=(
        pdu.PresentationContextRQ(
            context_id=1, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=("1.2.840.10008.1.2",)
        ),
    ),
    user_information=_INFORMATION,
)
AC = pdu.AssociateAC(
    called_ae_title="ARCHIVE",
    calling_ae_title="WORKSTATION",
    application_context=_CONTEXT,
    presentation_contexts=(pdu.PresentationContextAC(context_id=1, result=0, transfer_syntax="1.2.840.10008.1.2"),),
    user_information=_INFORMATION,
)
RJ = pdu.AssociateRJ(result=1, source=1, reason=7)


def pdu_bytes(kind: int, body: bytes) -> bytes:
    """Give a PDU with its header."""
    return pack(">BxI", kind, len(body)) + body


def pdv(data: bytes, *, command: bool = False, last: bool = False, context_id: int = 1, reserved: int = 0) -> bytes:
    """Give a presentation data value; ``reserved`` is added to its message control header."""
    return pack(">IBB", len(data) + 2, context_id, command | last << 1 | reserved) + data


def data_tf(*pdvs: bytes) -> bytes:
    """Give a P-DATA-TF PDU."""
    return pdu_bytes(4, b"".join(pdvs))


def outgoing(core: UpperLayer) -> bytes:
    """Take what a core has to send."""
    return b"".join(core.data_to_send())


def events(core: UpperLayer) -> list[UpperLayerEvent]:
    """Pull the events of a core until it needs more bytes, also where it says that there is nothing to be asked for."""
    found = []
    while (event := _ask(core)) is not None:
        found.append(event)
    assert core.idle
    assert _ask(core) is None
    return found


def _ask(core: UpperLayer) -> UpperLayerEvent | None:
    if not core.idle:
        return core.next_event()
    core.idle = False
    event = core.next_event()
    assert event is None
    return event


def receive(core: UpperLayer, data: bytes) -> list[UpperLayerEvent]:
    """Give bytes to a core and pull its events."""
    core.receive_data(data)
    return events(core)


def transfer(sender: UpperLayer, receiver: UpperLayer) -> list[UpperLayerEvent]:
    """Carry what one core has to send to the other, and pull the events of that one."""
    return receive(receiver, outgoing(sender))


def requestor() -> UpperLayer:
    """Make a requestor's core in Sta1."""
    return UpperLayer(Role.REQUESTOR)


def acceptor() -> UpperLayer:
    """Make an acceptor's core in Sta1."""
    return UpperLayer(Role.ACCEPTOR)


def associated(role: Role, *, maximum_length: int = 0) -> UpperLayer:
    """Make a core in Sta6."""
    core = UpperLayer(role, maximum_length=maximum_length)
    if role is Role.REQUESTOR:
        core.associate(RQ)
        core.transport_connected()
        receive(core, pdu.encode(AC))
    else:
        core.transport_connected()
        receive(core, pdu.encode(RQ))
        core.accept(AC)
    outgoing(core)
    return core


def pair() -> tuple[UpperLayer, UpperLayer]:
    """Make a requestor and an acceptor that are associated with each other."""
    first, second = requestor(), acceptor()
    first.associate(RQ)
    first.transport_connected()
    second.transport_connected()
    transfer(first, second)
    second.accept(AC)
    transfer(second, first)
    return first, second


def stacked(
    role: Role = Role.ACCEPTOR,
    *,
    contexts: frozenset[int] = frozenset({1, 3}),
    maximum_length: int = 0,
    command_set: int = 1 << 16,
) -> Dimse:
    """Make a DIMSE core over a core in Sta6; ``maximum_length`` is the peer's."""
    core = Dimse(associated(role), command_set=command_set)
    core.establish(contexts, maximum_length)
    return core


def messages(core: Dimse, data: bytes) -> list[DimseEvent]:
    """Give bytes to a DIMSE core and pull its events, without pauses."""
    core.upper_layer.receive_data(data)
    received: list[DimseEvent] = list(iter(core.next_event, None))
    return [event for event in received if not isinstance(event, Pause)]
