"""The page that the project began with, as tables: SOP classes, DIMSE services and statuses of the Query/Retrieve service.

Its statuses are those of PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4 and Y.4, of PS3.7 Annex C, and those that an SCP of pynetdicom
gives within 0xC000 to 0xCFFF. Two modules drive every row over an association: :mod:`tests.interop.test_seed_page` against our
SCP, :mod:`tests.test_seed_page` against our SCU. Both check by :func:`undriven` that they have left none out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asyncdicom import Category, sop

__all__ = [
    "CLASSES",
    "FIND",
    "GET",
    "MOVE",
    "REQUESTS",
    "ROWS",
    "TABLES",
    "Row",
    "models",
    "names",
    "row_of",
    "undriven",
]

FIND, GET, MOVE = "C-FIND", "C-GET", "C-MOVE"

# UID, name, the DIMSE service that is mandatory for both its SCU and its SCP.
_CLASSES = """
    1.2.840.10008.5.1.4.1.2.1.1  PATIENT_ROOT_FIND                          C-FIND
    1.2.840.10008.5.1.4.1.2.2.1  STUDY_ROOT_FIND                            C-FIND
    1.2.840.10008.5.1.4.1.2.3.1  PATIENT_STUDY_ONLY_FIND                    C-FIND
    1.2.840.10008.5.1.4.1.2.1.2  PATIENT_ROOT_MOVE                          C-MOVE
    1.2.840.10008.5.1.4.1.2.2.2  STUDY_ROOT_MOVE                            C-MOVE
    1.2.840.10008.5.1.4.1.2.3.2  PATIENT_STUDY_ONLY_MOVE                    C-MOVE
    1.2.840.10008.5.1.4.1.2.4.2  COMPOSITE_INSTANCE_ROOT_MOVE               C-MOVE
    1.2.840.10008.5.1.4.1.2.1.3  PATIENT_ROOT_GET                           C-GET
    1.2.840.10008.5.1.4.1.2.2.3  STUDY_ROOT_GET                             C-GET
    1.2.840.10008.5.1.4.1.2.3.3  PATIENT_STUDY_ONLY_GET                     C-GET
    1.2.840.10008.5.1.4.1.2.5.3  COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET   C-GET
    1.2.840.10008.5.1.4.1.2.4.3  COMPOSITE_INSTANCE_ROOT_GET                C-GET
"""

# Code or codes, category; for each service the statuses of PS3.7, those of PS3.4, those of an SCP of pynetdicom.
_STATUSES = {
    FIND: """
        0000       success
        0122       failure
        FE00       cancel

        A700       failure
        A900       failure
        C000-CFFF  failure
        FF00       pending
        FF01       pending

        C001       failure
        C002       failure
        C310       failure
        C311       failure
        C312       failure
    """,
    GET: """
        0000       success
        0122       failure
        0124       failure
        0210       failure
        0212       failure
        FE00       cancel

        A701       failure
        A702       failure
        A900       failure
        AA00       failure
        AA01       failure
        AA02       failure
        AA03       failure
        AA04       failure
        B000       warning
        C000-CFFF  failure
        FF00       pending

        C001       failure
        C002       failure
        C410       failure
        C411       failure
        C413       failure
    """,
    MOVE: """
        0000       success
        0122       failure
        0124       failure
        0210       failure
        0211       failure
        0212       failure
        FE00       cancel

        A701       failure
        A702       failure
        A801       failure
        A900       failure
        AA00       failure
        AA01       failure
        AA02       failure
        AA03       failure
        AA04       failure
        B000       warning
        C000-CFFF  failure
        FF00       pending

        C001       failure
        C002       failure
        C510       failure
        C511       failure
        C513       failure
        C514       failure
        C515       failure
    """,
}

#: The SOP classes of the page in its order, and their DIMSE services.
CLASSES: tuple[tuple[sop.SOPClass, str], ...] = tuple(
    (sop.lookup(uid), service) for uid, _, service in (line.split() for line in _CLASSES.split("\n") if line.strip())
)

#: The Command Field of the request of each service (PS3.7 E.1).
REQUESTS = {FIND: 0x0020, GET: 0x0010, MOVE: 0x0021}

#: The keys of our own tables of statuses.
TABLES = {FIND: "QR_FIND", GET: "QR_GET", MOVE: "QR_MOVE"}


@dataclass(frozen=True, slots=True)
class Row:
    """One status of one service, or a range of them."""

    service: str
    first: int
    last: int
    category: Category

    def __str__(self) -> str:
        return f"{self.service} 0x{self.first:04X}" + (f" to 0x{self.last:04X}" if self.last > self.first else "")


def _row(service: str, codes: str, category: str) -> Row:
    first, _, last = codes.partition("-")
    return Row(service, int(first, 16), int(last or first, 16), Category(category))


#: The statuses of the page in its order.
ROWS: tuple[Row, ...] = tuple(
    _row(service, *line.split()) for service, text in _STATUSES.items() for line in text.split("\n") if line.strip()
)


def names() -> dict[str, str]:
    """Return the UIDs of the page by their names in :mod:`asyncdicom.sop`."""
    return {name: uid for uid, name, _ in (line.split() for line in _CLASSES.split("\n") if line.strip())}


def models(service: str) -> tuple[sop.SOPClass, ...]:
    """Return the SOP classes of a service."""
    return tuple(uid for uid, theirs in CLASSES if theirs == service)


def row_of(service: str, code: int) -> Row | None:
    """Return the row of a status: its own before that of a range."""
    fitting = [row for row in ROWS if row.service == service and row.first <= code <= row.last]
    return min(fitting, key=lambda row: row.last - row.first, default=None)


def undriven(driven: Iterable[tuple[str, int]]) -> list[str]:
    """Return the rows that no case drives; a range wants its first code and its last.

    :param driven: the service and the status of every case.
    """
    cases = set(driven)
    return [str(row) for row in ROWS if not {(row.service, row.first), (row.service, row.last)} <= cases]
