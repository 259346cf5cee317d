"""The DICOM Upper Layer state machine of PS3.8 as data: Tables 9-1 to 9-10.

Theory of operation
-------------------
Nothing here does anything. ``TRANSITIONS`` is Table 9-10, a mapping from (input, state) to the name of an action;
``ACTIONS`` is Tables 9-6 to 9-9, what each of the 28 actions sends and indicates, what it does to the ARTIM timer and to
the transport, and the state that follows. :class:`asyncdicom.protocol.upper_layer.UpperLayer` is the interpreter.

Two actions have two next states. They are told apart by ``Row.alternative``: AE-6 goes to Sta13 when the service
provider refuses the request, AR-8 to Sta10 on the acceptor's side.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from .values import frozen

__all__ = ["ACTIONS", "TRANSITIONS", "Action", "Artim", "Indicate", "Input", "Row", "Send", "State"]


class State(enum.IntEnum):
    """The states of one transport connection (PS3.8 Tables 9-1 to 9-5)."""

    STA1 = 1  #: Idle
    STA2 = 2  #: Transport connection open (awaiting A-ASSOCIATE-RQ PDU)
    STA3 = 3  #: Awaiting local A-ASSOCIATE response primitive
    STA4 = 4  #: Awaiting transport connection opening to complete
    STA5 = 5  #: Awaiting A-ASSOCIATE-AC or A-ASSOCIATE-RJ PDU
    STA6 = 6  #: Association established and ready for data transfer
    STA7 = 7  #: Awaiting A-RELEASE-RP PDU
    STA8 = 8  #: Awaiting local A-RELEASE response primitive
    STA9 = 9  #: Release collision requestor side; awaiting A-RELEASE response primitive
    STA10 = 10  #: Release collision acceptor side; awaiting A-RELEASE-RP PDU
    STA11 = 11  #: Release collision requestor side; awaiting A-RELEASE-RP PDU
    STA12 = 12  #: Release collision acceptor side; awaiting A-RELEASE response primitive
    STA13 = 13  #: Awaiting transport connection close indication


class Input(enum.IntEnum):
    """The events of PS3.8 Table 9-10: local primitives, received PDUs, and the transport's."""

    EVT1 = 1  #: A-ASSOCIATE request (local user)
    EVT2 = 2  #: Transport connection confirmation
    EVT3 = 3  #: A-ASSOCIATE-AC PDU received
    EVT4 = 4  #: A-ASSOCIATE-RJ PDU received
    EVT5 = 5  #: Transport connection indication
    EVT6 = 6  #: A-ASSOCIATE-RQ PDU received
    EVT7 = 7  #: A-ASSOCIATE response primitive (accept)
    EVT8 = 8  #: A-ASSOCIATE response primitive (reject)
    EVT9 = 9  #: P-DATA request primitive
    EVT10 = 10  #: P-DATA-TF PDU received
    EVT11 = 11  #: A-RELEASE request primitive
    EVT12 = 12  #: A-RELEASE-RQ PDU received
    EVT13 = 13  #: A-RELEASE-RP PDU received
    EVT14 = 14  #: A-RELEASE response primitive
    EVT15 = 15  #: A-ABORT request primitive
    EVT16 = 16  #: A-ABORT PDU received
    EVT17 = 17  #: Transport connection closed indication
    EVT18 = 18  #: ARTIM timer expired
    EVT19 = 19  #: Unrecognized or invalid PDU received


class Action(enum.Enum):
    """The 28 actions of PS3.8 Tables 9-6 to 9-9."""

    AE1 = "AE-1"
    AE2 = "AE-2"
    AE3 = "AE-3"
    AE4 = "AE-4"
    AE5 = "AE-5"
    AE6 = "AE-6"
    AE7 = "AE-7"
    AE8 = "AE-8"
    DT1 = "DT-1"
    DT2 = "DT-2"
    AR1 = "AR-1"
    AR2 = "AR-2"
    AR3 = "AR-3"
    AR4 = "AR-4"
    AR5 = "AR-5"
    AR6 = "AR-6"
    AR7 = "AR-7"
    AR8 = "AR-8"
    AR9 = "AR-9"
    AR10 = "AR-10"
    AA1 = "AA-1"
    AA2 = "AA-2"
    AA3 = "AA-3"
    AA4 = "AA-4"
    AA5 = "AA-5"
    AA6 = "AA-6"
    AA7 = "AA-7"
    AA8 = "AA-8"


class Send(enum.Enum):
    """What an action sends."""

    ASSOCIATE_RQ = enum.auto()
    ASSOCIATE_AC = enum.auto()
    ASSOCIATE_RJ = enum.auto()
    DATA = enum.auto()
    RELEASE_RQ = enum.auto()
    RELEASE_RP = enum.auto()
    ABORT_USER = enum.auto()  #: A-ABORT with source 0, service-user
    ABORT_PROVIDER = enum.auto()  #: A-ABORT with source 2, service-provider


class Indicate(enum.Enum):
    """The primitive that an action issues to the local user."""

    ASSOCIATE = enum.auto()  #: A-ASSOCIATE indication
    ACCEPTED = enum.auto()  #: A-ASSOCIATE confirmation (accept)
    REJECTED = enum.auto()  #: A-ASSOCIATE confirmation (reject)
    DATA = enum.auto()  #: P-DATA indication
    RELEASE = enum.auto()  #: A-RELEASE indication
    RELEASED = enum.auto()  #: A-RELEASE confirmation
    ABORTED = enum.auto()  #: A-ABORT or A-P-ABORT indication, from a received A-ABORT
    PROVIDER_ABORT = enum.auto()  #: A-P-ABORT indication: the peer broke a rule
    TRANSPORT_LOST = enum.auto()  #: A-P-ABORT indication: the transport closed


class Artim(enum.Enum):
    """What an action does to the ARTIM timer (PS3.8 9.1.5)."""

    START = enum.auto()
    STOP = enum.auto()


@frozen
class Row:
    """One action: what it does, in the order of its fields, and what follows."""

    next: State
    send: Send | None = None
    indicate: Indicate | None = None
    artim: Artim | None = None
    close: bool = False
    alternative: State | None = None


_S = State

#: PS3.8 Tables 9-6 (association establishment), 9-7 (data transfer), 9-8 (release) and 9-9 (abort).
ACTIONS: Mapping[Action, Row] = MappingProxyType(
    {
        # Issue TRANSPORT CONNECT request primitive to the local transport service.
        Action.AE1: Row(next=_S.STA4),
        Action.AE2: Row(send=Send.ASSOCIATE_RQ, next=_S.STA5),
        Action.AE3: Row(indicate=Indicate.ACCEPTED, next=_S.STA6),
        Action.AE4: Row(indicate=Indicate.REJECTED, close=True, next=_S.STA1),
        Action.AE5: Row(artim=Artim.START, next=_S.STA2),
        # "Stop ARTIM timer and if A-ASSOCIATE-RQ acceptable by service-provider: issue A-ASSOCIATE indication primitive;
        # otherwise issue A-ASSOCIATE-RJ-PDU and start ARTIM timer"
        Action.AE6: Row(indicate=Indicate.ASSOCIATE, artim=Artim.STOP, next=_S.STA3, alternative=_S.STA13),
        Action.AE7: Row(send=Send.ASSOCIATE_AC, next=_S.STA6),
        Action.AE8: Row(send=Send.ASSOCIATE_RJ, artim=Artim.START, next=_S.STA13),
        Action.DT1: Row(send=Send.DATA, next=_S.STA6),
        Action.DT2: Row(indicate=Indicate.DATA, next=_S.STA6),
        Action.AR1: Row(send=Send.RELEASE_RQ, next=_S.STA7),
        Action.AR2: Row(indicate=Indicate.RELEASE, next=_S.STA8),
        Action.AR3: Row(indicate=Indicate.RELEASED, close=True, next=_S.STA1),
        Action.AR4: Row(send=Send.RELEASE_RP, artim=Artim.START, next=_S.STA13),
        Action.AR5: Row(artim=Artim.STOP, next=_S.STA1),
        Action.AR6: Row(indicate=Indicate.DATA, next=_S.STA7),
        Action.AR7: Row(send=Send.DATA, next=_S.STA8),
        # "Issue A-RELEASE indication (release collision): if association-requestor, next state is Sta9; if not, Sta10"
        Action.AR8: Row(indicate=Indicate.RELEASE, next=_S.STA9, alternative=_S.STA10),
        Action.AR9: Row(send=Send.RELEASE_RP, next=_S.STA11),
        Action.AR10: Row(indicate=Indicate.RELEASED, next=_S.STA12),
        # "... and start (or restart if already started) ARTIM timer"
        Action.AA1: Row(send=Send.ABORT_USER, artim=Artim.START, next=_S.STA13),
        Action.AA2: Row(artim=Artim.STOP, close=True, next=_S.STA1),
        Action.AA3: Row(indicate=Indicate.ABORTED, close=True, next=_S.STA1),
        Action.AA4: Row(indicate=Indicate.TRANSPORT_LOST, next=_S.STA1),
        Action.AA5: Row(artim=Artim.STOP, next=_S.STA1),
        Action.AA6: Row(next=_S.STA13),
        Action.AA7: Row(send=Send.ABORT_PROVIDER, next=_S.STA13),
        Action.AA8: Row(send=Send.ABORT_PROVIDER, indicate=Indicate.PROVIDER_ABORT, artim=Artim.START, next=_S.STA13),
    }
)

# Table 9-10, a line per event and a column per state Sta1 to Sta13, as printed in the standard; "-" is an empty cell.
_TABLE_9_10 = """
        Sta1   Sta2   Sta3   Sta4   Sta5   Sta6   Sta7   Sta8   Sta9   Sta10  Sta11  Sta12  Sta13
Evt1    AE-1   -      -      -      -      -      -      -      -      -      -      -      -
Evt2    -      -      -      AE-2   -      -      -      -      -      -      -      -      -
Evt3    -      AA-1   AA-8   -      AE-3   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-6
Evt4    -      AA-1   AA-8   -      AE-4   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-6
Evt5    AE-5   -      -      -      -      -      -      -      -      -      -      -      -
Evt6    -      AE-6   AA-8   -      AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-7
Evt7    -      -      AE-7   -      -      -      -      -      -      -      -      -      -
Evt8    -      -      AE-8   -      -      -      -      -      -      -      -      -      -
Evt9    -      -      -      -      -      DT-1   -      AR-7   -      -      -      -      -
Evt10   -      AA-1   AA-8   -      AA-8   DT-2   AR-6   AA-8   AA-8   AA-8   AA-8   AA-8   AA-6
Evt11   -      -      -      -      -      AR-1   -      -      -      -      -      -      -
Evt12   -      AA-1   AA-8   -      AA-8   AR-2   AR-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-6
Evt13   -      AA-1   AA-8   -      AA-8   AA-8   AR-3   AA-8   AA-8   AR-10  AR-3   AA-8   AA-6
Evt14   -      -      -      -      -      -      -      AR-4   AR-9   -      -      AR-4   -
Evt15   -      -      AA-1   AA-2   AA-1   AA-1   AA-1   AA-1   AA-1   AA-1   AA-1   AA-1   -
Evt16   -      AA-2   AA-3   -      AA-3   AA-3   AA-3   AA-3   AA-3   AA-3   AA-3   AA-3   AA-2
Evt17   -      AA-5   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AR-5
Evt18   -      AA-2   -      -      -      -      -      -      -      -      -      -      AA-2
Evt19   -      AA-1   AA-8   -      AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-7
"""


def _read_table(text: str) -> dict[tuple[Input, State], Action]:
    header, *lines = text.strip().splitlines()
    states = [State[name.upper()] for name in header.split()]
    table: dict[tuple[Input, State], Action] = {}
    for line in lines:
        event, *cells = line.split()
        for state, cell in zip(states, cells, strict=True):
            if cell != "-":
                table[Input[event.upper()], state] = Action(cell)
    return table


#: PS3.8 Table 9-10: (event, state) -> action. A missing key is an empty cell of the table.
TRANSITIONS: Mapping[tuple[Input, State], Action] = MappingProxyType(_read_table(_TABLE_9_10))
