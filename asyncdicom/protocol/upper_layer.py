"""The DICOM Upper Layer protocol machine of one transport connection (PS3.8 section 9), without IO.

Theory of operation
-------------------
:class:`UpperLayer` interprets the tables of :mod:`asyncdicom.protocol.states`. Local primitives are methods; they raise
:class:`~asyncdicom.exceptions.LocalProtocolError` before anything changes when Table 9-10 has no cell for them. The
transport's side is :meth:`~UpperLayer.receive_data`, :meth:`~UpperLayer.receive_eof` and
:meth:`~UpperLayer.artim_expired`; these never raise. What a peer does wrong becomes the A-ABORT that the standard asks
for, and an event.

The owner of the IO does three things after any call: send what :meth:`~UpperLayer.data_to_send` gives, run the ARTIM
timer while :attr:`~UpperLayer.artim_running` (a new deadline each time :attr:`~UpperLayer.artim_serial` changes), and
close the transport once :attr:`~UpperLayer.should_close`. Events are pulled one by one with
:meth:`~UpperLayer.next_event`: received bytes are not parsed before somebody asks for what they hold.
"""

from __future__ import annotations

import enum
from typing import NoReturn

from ..exceptions import LocalProtocolError
from . import pdu
from .framing import Buffer, ControlPDU, ForeignProtocol, Fragment, Framer
from .pdu import AbortReason, InvalidPDU
from .states import ACTIONS, TRANSITIONS, Action, Artim, Indicate, Input, Row, Send, State
from .values import frozen

__all__ = [
    "AbortIndication",
    "AssociateConfirmation",
    "AssociateIndication",
    "AssociateRejection",
    "Pause",
    "ProviderAbort",
    "ReleaseConfirmation",
    "ReleaseIndication",
    "Role",
    "TransportLost",
    "UpperLayer",
    "UpperLayerEvent",
]


class Role(enum.Enum):
    """Who asked for the association (PS3.8 section 3)."""

    REQUESTOR = "requestor"
    ACCEPTOR = "acceptor"


@frozen
class AssociateIndication:
    """A-ASSOCIATE indication: the peer asks for an association (PS3.8 7.1.1)."""

    request: pdu.AssociateRQ


@frozen
class AssociateConfirmation:
    """A-ASSOCIATE confirmation: the peer accepted."""

    accept: pdu.AssociateAC


@frozen
class AssociateRejection:
    """A-ASSOCIATE confirmation: the peer rejected."""

    reject: pdu.AssociateRJ


@frozen
class ReleaseIndication:
    """A-RELEASE indication (PS3.8 7.2); ``collision`` when both sides asked at once."""

    collision: bool = False


@frozen
class ReleaseConfirmation:
    """A-RELEASE confirmation: the peer agreed to end the association."""


@frozen
class AbortIndication:
    """A-ABORT or A-P-ABORT indication: an A-ABORT PDU came (PS3.8 7.3, 7.4)."""

    source: int
    reason: int


@frozen
class ProviderAbort:
    """A-P-ABORT indication: the peer broke a rule and we sent A-ABORT."""

    source: int
    reason: int
    message: str


@frozen
class TransportLost:
    """A-P-ABORT indication: the transport connection closed."""


@frozen
class Pause:
    """No event of the protocol: many fragments meant nothing, and more may have come. Let others run, and ask again."""


#: After so many fragments that mean nothing there is a pause. A chunk of 256 KiB can hold 40 000.
PAUSE_AFTER = 256


UpperLayerEvent = (
    AssociateIndication
    | AssociateConfirmation
    | AssociateRejection
    | Fragment
    | ReleaseIndication
    | ReleaseConfirmation
    | AbortIndication
    | ProviderAbort
    | TransportLost
    | Pause
)

#: A-ASSOCIATE-RQ, -AC, -RJ, A-RELEASE-RQ, -RP, A-ABORT (PS3.8 9.3.1).
_PDU_INPUTS = {1: Input.EVT6, 2: Input.EVT3, 3: Input.EVT4, 5: Input.EVT12, 6: Input.EVT13, 7: Input.EVT16}

# The states that fragments are asked for, each time; looking up a member of an enum costs more than the comparison.
_STA6, _STA7, _STA8, _STA13 = State.STA6, State.STA7, State.STA8, State.STA13


class UpperLayer:
    """The protocol machine of one transport connection.

    :param role: whether this side requests or accepts the association.
    :param associate_pdu: the longest A-ASSOCIATE PDU in bytes that is collected.
    :param maximum_length: the maximum P-DATA-TF length in bytes that we announce; 0 is unlimited.
    :param slack: bytes over it that are tolerated.
    :ivar idle: :meth:`next_event` has nothing to return before something else happens, so that it need not be asked.
    """

    def __init__(self, role: Role, *, associate_pdu: int = 1 << 20, maximum_length: int = 0, slack: int = 64) -> None:
        self.role = role
        self.state = State.STA1
        self.artim_running = False
        self.artim_serial = 0
        self.should_close = False
        self._framer = Framer(associate_pdu=associate_pdu, maximum_length=maximum_length, slack=slack)
        self._outgoing: list[Buffer] = []
        self._events: list[UpperLayerEvent] = []
        self.idle = True
        self._eof = False
        self._deaf = False  # the stream cannot or need not be parsed any further
        self._request = b""

    # The local user's primitives.

    def associate(self, request: pdu.AssociateRQ) -> None:
        """Ask for an association (Evt1); the PDU goes out once the transport is connected."""
        if self.role is not Role.REQUESTOR or self.should_close:
            raise LocalProtocolError("A-ASSOCIATE request is possible once and for the requestor only")
        encoded = pdu.encode(request)
        self._local(Input.EVT1)
        self._request = encoded

    def accept(self, answer: pdu.AssociateAC) -> None:
        """Accept the association that was asked for (Evt7)."""
        self._local(Input.EVT7, answer)

    def reject(self, answer: pdu.AssociateRJ) -> None:
        """Reject the association that was asked for (Evt8)."""
        self._local(Input.EVT8, answer)

    def send_data(self, buffer: Buffer) -> None:
        """Send a buffer of whole P-DATA-TF PDUs (Evt9)."""
        if self.state is not _STA6 and self.state is not _STA8:
            self._refuse(Input.EVT9)
        self._outgoing.append(buffer)

    def check_can_send(self) -> None:
        """Raise unless Table 9-10 allows a P-DATA request now.

        :raises LocalProtocolError: it does not.
        """
        if self.state is not _STA6 and self.state is not _STA8:
            self._refuse(Input.EVT9)

    def release(self) -> None:
        """Ask for the end of the association (Evt11)."""
        self._local(Input.EVT11)

    def confirm_release(self) -> None:
        """Agree to end the association (Evt14)."""
        self._local(Input.EVT14)

    def abort(self) -> None:
        """Abort the association as its user (Evt15)."""
        self._local(Input.EVT15)

    def protocol_error(self, reason: AbortReason, message: str) -> None:
        """Treat what the upper layer's user found wrong in the P-DATA as an invalid PDU (Evt19)."""
        if not self._deaf:
            self._peer(Input.EVT19, reason=reason, message=message)

    @property
    def can_abort(self) -> bool:
        """Whether Table 9-10 allows an A-ABORT request now."""
        return (Input.EVT15, self.state) in TRANSITIONS

    # The transport's side.

    def transport_connected(self) -> None:
        """Tell that the transport connection is open (Evt2 for the requestor, Evt5 for the acceptor)."""
        if self.should_close:
            raise LocalProtocolError("the transport connection has ended; another one needs another UpperLayer")
        self._local(Input.EVT2 if self.role is Role.REQUESTOR else Input.EVT5)

    def receive_data(self, data: bytes | memoryview) -> None:
        """Take bytes that were received. ``data`` must not change afterwards: fragments are slices of it."""
        if not self._deaf:
            self.idle = False
            self._framer.receive_data(data)

    def receive_eof(self) -> None:
        """Tell that the transport connection was closed or lost; what was received before is still delivered."""
        self.idle = False
        self._eof = True

    def artim_expired(self) -> None:
        """Tell that the ARTIM timer ran out (Evt18)."""
        if self.artim_running:
            self._peer(Input.EVT18)

    @property
    def mid_pdu(self) -> bool:
        """Whether the bytes received so far end inside a PDU, once :meth:`next_event` has returned ``None``."""
        return not self._deaf and self._framer.mid_pdu

    # What comes out.

    def data_to_send(self) -> list[Buffer]:
        """Return the buffers to send, in order, and forget them."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_event(self) -> UpperLayerEvent | None:
        """Return the next event, or ``None`` when more bytes are needed (or none will come: :attr:`should_close`)."""
        if self.idle:
            return None
        ignored = 0
        framer = self._framer
        while True:
            if self._events:
                return self._events.pop(0)
            if not self._deaf:
                try:
                    item = framer.next()
                except InvalidPDU as exc:
                    self._lose_track(exc)
                    continue
                if type(item) is Fragment:
                    # DT-2 and AR-6: the cells of Evt10 that every fragment of a working association passes.
                    if self.state is _STA6 or self.state is _STA7:
                        self.idle = not (framer.chunk or self._eof)
                        return item
                    # AA-6 ignores what a peer that was aborted goes on sending, perhaps in a million fragments.
                    if self.state is not _STA13:
                        self._peer(Input.EVT10)
                    ignored += 1
                    if ignored == PAUSE_AFTER:
                        return Pause()
                    continue
                if type(item) is ControlPDU:
                    self._receive_pdu(item)
                    continue
            if self._eof and self.state is not State.STA1:
                self._deaf = True
                self.should_close = True
                self._peer(Input.EVT17)
                continue
            self.idle = True
            return None

    def _receive_pdu(self, item: ControlPDU) -> None:
        try:
            body = pdu.decode(item.type, item.body)
        except InvalidPDU as exc:
            self._peer(Input.EVT19, reason=exc.reason, message=str(exc))
        else:
            self._peer(_PDU_INPUTS[item.type], body)

    def _lose_track(self, error: InvalidPDU) -> None:
        """Answer bytes that no PDU is framed by; where the next PDU begins cannot be known."""
        self._deaf = True
        foreign = isinstance(error, ForeignProtocol) and self.state is State.STA2
        self._peer(Input.EVT19, reason=error.reason, message=str(error))
        if foreign:
            # Our one shortcut: whoever speaks another protocol gets no ARTIM period to talk in.
            self._finish()

    # The interpreter.

    def _local(self, event: Input, body: pdu.PDU | None = None) -> None:
        cell = _CELLS.get((event, self.state))
        if cell is None:
            self._refuse(event)
        action, row, _ = cell
        self._perform(action, row, body)

    def _refuse(self, event: Input) -> NoReturn:
        raise LocalProtocolError(f"{_PRIMITIVES[event]} is not possible in state {self.state.name.title()}")

    def _peer(
        self,
        event: Input,
        body: pdu.PDU | None = None,
        *,
        reason: AbortReason = AbortReason.UNEXPECTED_PDU,
        message: str = "",
    ) -> None:
        cell = _CELLS.get((event, self.state))
        if cell is None:
            return
        action, row, fault = cell
        self._perform(action, row, body, reason, message or fault)

    def _perform(
        self,
        action: Action,
        row: Row,
        body: pdu.PDU | None = None,
        reason: AbortReason = AbortReason.NOT_SPECIFIED,
        message: str = "",
    ) -> None:
        self.idle = False
        if row.alternative is not None:
            row, body = self._choose(action, row, body)
        if row.send is not None:
            self._send(row.send, body, reason)
        if row.indicate is not None:
            self._indicate(row.indicate, body, action, reason, message)
        artim = row.artim
        if artim is not None:
            if artim is Artim.START:
                self.artim_running = True
                self.artim_serial += 1
            else:
                self.artim_running = False
        self.state = row.next
        if message:
            if action is Action.AA1:
                # It issues no indication in Sta2, as there is no user yet; whoever owns the connection wants to know why.
                self._events.append(ProviderAbort(source=0, reason=int(AbortReason.NOT_SPECIFIED), message=message))
            elif action is Action.AA7:
                # A peer that answers each A-ABORT with another invalid PDU gets one answer.
                self._deaf = True
        if row.close:
            self._finish()

    def _choose(self, action: Action, row: Row, body: pdu.PDU | None) -> tuple[Row, pdu.PDU | None]:
        """Return the row of an action with two outcomes that is the case, and what it sends."""
        if action is Action.AE6:
            assert isinstance(body, pdu.AssociateRQ)
            # "if the A-ASSOCIATE-RQ is not acceptable by the service-provider": bit 0 of the protocol version (9.3.2).
            if not body.protocol_version & 1:
                return _AE6_NOT_ACCEPTABLE, pdu.AssociateRJ(result=1, source=2, reason=2)
        elif self.role is Role.ACCEPTOR:
            return _AR8_ACCEPTOR, body
        return row, body

    def _finish(self) -> None:
        self.state = State.STA1
        self.artim_running = False
        self.should_close = True
        self._deaf = True

    def _send(self, send: Send, body: pdu.PDU | None, reason: AbortReason) -> None:
        encoded = _FIXED.get(send)
        if encoded is None:
            match send:
                case Send.ASSOCIATE_RQ:
                    encoded = self._request
                case Send.ASSOCIATE_AC | Send.ASSOCIATE_RJ:
                    assert body is not None
                    encoded = pdu.encode(body)
                case Send.ABORT_PROVIDER:
                    encoded = pdu.encode(pdu.Abort(source=2, reason=int(reason)))
                case _:
                    return  # P-DATA: send_data() has the buffer
        self._outgoing.append(encoded)

    def _indicate(
        self, indicate: Indicate, body: pdu.PDU | None, action: Action, reason: AbortReason, message: str
    ) -> None:
        event: UpperLayerEvent
        match indicate:
            case Indicate.ASSOCIATE:
                assert isinstance(body, pdu.AssociateRQ)
                event = AssociateIndication(request=body)
            case Indicate.ACCEPTED:
                assert isinstance(body, pdu.AssociateAC)
                event = AssociateConfirmation(accept=body)
            case Indicate.REJECTED:
                assert isinstance(body, pdu.AssociateRJ)
                event = AssociateRejection(reject=body)
            case Indicate.RELEASE:
                event = ReleaseIndication(collision=action is Action.AR8)
            case Indicate.RELEASED:
                event = ReleaseConfirmation()
            case Indicate.ABORTED:
                assert isinstance(body, pdu.Abort)
                event = AbortIndication(source=body.source, reason=body.reason)
            case Indicate.PROVIDER_ABORT:
                event = ProviderAbort(source=2, reason=int(reason), message=message)
            case Indicate.TRANSPORT_LOST:
                event = TransportLost()
            case Indicate.DATA:
                return  # next_event() returns the fragment itself
        self._events.append(event)


_PRIMITIVES = {
    Input.EVT1: "A-ASSOCIATE request",
    Input.EVT2: "transport connection confirmation",
    Input.EVT3: "A-ASSOCIATE-AC PDU",
    Input.EVT4: "A-ASSOCIATE-RJ PDU",
    Input.EVT5: "transport connection indication",
    Input.EVT6: "A-ASSOCIATE-RQ PDU",
    Input.EVT7: "A-ASSOCIATE response (accept)",
    Input.EVT8: "A-ASSOCIATE response (reject)",
    Input.EVT9: "P-DATA request",
    Input.EVT10: "P-DATA-TF PDU",
    Input.EVT11: "A-RELEASE request",
    Input.EVT12: "A-RELEASE-RQ PDU",
    Input.EVT13: "A-RELEASE-RP PDU",
    Input.EVT14: "A-RELEASE response",
    Input.EVT15: "A-ABORT request",
    Input.EVT16: "A-ABORT PDU",
    Input.EVT17: "transport connection closed",
    Input.EVT18: "ARTIM timer expiry",
    Input.EVT19: "invalid PDU",
}

#: The actions that answer a fault of the peer.
_FAULTS = frozenset({Action.AA1, Action.AA7, Action.AA8})

#: Table 9-10 with the rows of its actions, and which fault of the peer it is that leads there, if it is one.
_CELLS = {
    (event, state): (
        action,
        ACTIONS[action],
        f"{_PRIMITIVES[event]} in state {state.name.title()}" if action in _FAULTS else "",
    )
    for (event, state), action in TRANSITIONS.items()
}

# The rows of the actions that have two outcomes, for the other one.
_AE6_NOT_ACCEPTABLE = Row(send=Send.ASSOCIATE_RJ, artim=Artim.START, next=State.STA13)
_AR8_ACCEPTOR = Row(indicate=Indicate.RELEASE, next=State.STA10)

#: PDUs without anything that varies.
_FIXED = {
    Send.RELEASE_RQ: pdu.encode(pdu.ReleaseRQ()),
    Send.RELEASE_RP: pdu.encode(pdu.ReleaseRP()),
    Send.ABORT_USER: pdu.encode(pdu.Abort(source=0, reason=0)),
}
