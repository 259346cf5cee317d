"""PS3.8 Table 9-10 and its actions, written down a second time as what the tests expect.

The module under test has a line for each event; here is a line for each state, with the next states that the standard
prints in each cell, so that a slip of the pen in one shows against the other.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EFFECTS", "EXPECTED", "Effect"]

#: State -> its column of Table 9-10: ``events:action>next state``; AE-6 and AR-8 have two next states.
_COLUMNS = {
    1: "1:AE-1>4 5:AE-5>2",
    2: "3,4:AA-1>13 6:AE-6>3/13 10,12,13:AA-1>13 16:AA-2>1 17:AA-5>1 18:AA-2>1 19:AA-1>13",
    3: "3,4,6:AA-8>13 7:AE-7>6 8:AE-8>13 10,12,13:AA-8>13 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    4: "2:AE-2>5 15:AA-2>1 17:AA-4>1",
    5: "3:AE-3>6 4:AE-4>1 6,10,12,13:AA-8>13 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    6: "3,4,6:AA-8>13 9:DT-1>6 10:DT-2>6 11:AR-1>7 12:AR-2>8 13:AA-8>13 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    7: "3,4,6:AA-8>13 10:AR-6>7 12:AR-8>9/10 13:AR-3>1 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    8: "3,4,6:AA-8>13 9:AR-7>8 10,12,13:AA-8>13 14:AR-4>13 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    9: "3,4,6,10,12,13:AA-8>13 14:AR-9>11 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    10: "3,4,6,10,12:AA-8>13 13:AR-10>12 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    11: "3,4,6,10,12:AA-8>13 13:AR-3>1 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    12: "3,4,6,10,12,13:AA-8>13 14:AR-4>13 15:AA-1>13 16:AA-3>1 17:AA-4>1 19:AA-8>13",
    13: "3,4:AA-6>13 6:AA-7>13 10,12,13:AA-6>13 16:AA-2>1 17:AR-5>1 18:AA-2>1 19:AA-7>13",
}


def _read(columns: dict[int, str]) -> dict[tuple[int, int], tuple[str, tuple[int, ...]]]:
    cells = {}
    for state, column in columns.items():
        for entry in column.split():
            events, cell = entry.split(":")
            action, following = cell.split(">")
            for event in events.split(","):
                assert (int(event), state) not in cells
                cells[int(event), state] = (action, tuple(map(int, following.split("/"))))
    return cells


#: (event, state) -> (action, next states); a cell that is not here is empty.
EXPECTED = _read(_COLUMNS)


class Effect(NamedTuple):
    """What an action does (PS3.8 Tables 9-6 to 9-9), by the names of the module's enums."""

    sends: str | None = None
    indicates: str | None = None
    artim: str | None = None
    closes: bool = False


#: The first of two outcomes where there are two (AE-6: acceptable; AR-8: both indicate).
EFFECTS = {
    # Table 9-6: association establishment.
    "AE-1": Effect(),
    "AE-2": Effect(sends="ASSOCIATE_RQ"),
    "AE-3": Effect(indicates="ACCEPTED"),
    "AE-4": Effect(indicates="REJECTED", closes=True),
    "AE-5": Effect(artim="START"),
    "AE-6": Effect(indicates="ASSOCIATE", artim="STOP"),
    "AE-7": Effect(sends="ASSOCIATE_AC"),
    "AE-8": Effect(sends="ASSOCIATE_RJ", artim="START"),
    # Table 9-7: data transfer.
    "DT-1": Effect(sends="DATA"),
    "DT-2": Effect(indicates="DATA"),
    # Table 9-8: association release.
    "AR-1": Effect(sends="RELEASE_RQ"),
    "AR-2": Effect(indicates="RELEASE"),
    "AR-3": Effect(indicates="RELEASED", closes=True),
    "AR-4": Effect(sends="RELEASE_RP", artim="START"),
    "AR-5": Effect(artim="STOP"),
    "AR-6": Effect(indicates="DATA"),
    "AR-7": Effect(sends="DATA"),
    "AR-8": Effect(indicates="RELEASE"),
    "AR-9": Effect(sends="RELEASE_RP"),
    "AR-10": Effect(indicates="RELEASED"),
    # Table 9-9: association abort.
    "AA-1": Effect(sends="ABORT_USER", artim="START"),
    "AA-2": Effect(artim="STOP", closes=True),
    "AA-3": Effect(indicates="ABORTED", closes=True),
    "AA-4": Effect(indicates="TRANSPORT_LOST"),
    "AA-5": Effect(artim="STOP"),
    "AA-6": Effect(),
    "AA-7": Effect(sends="ABORT_PROVIDER"),
    "AA-8": Effect(sends="ABORT_PROVIDER", indicates="PROVIDER_ABORT", artim="START"),
}
