"""DIMSE status codes: what each code means, service by service.

A status is 16 bits wide (PS3.7 C). Its category follows from the code alone, for any code, also one that no table
knows; its meaning depends on the service that sent it, and :data:`TABLES` says what is known. Where a code that we
send ourselves lies in a range that the standard leaves to implementations (0xC000 to 0xCFFF), it has its own row.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

__all__ = [
    "ATTRIBUTE_LIST_ERROR",
    "ATTRIBUTE_VALUE_OUT_OF_RANGE",
    "CANCEL",
    "CANNOT_CREATE_OBJECT",
    "CANNOT_EXTRACT_FRAMES",
    "CANNOT_UNDERSTAND",
    "CLASS_INSTANCE_CONFLICT",
    "COERCION_OF_DATA_ELEMENTS",
    "DATA_SET_MISMATCH_WARNING",
    "DUPLICATE_INVOCATION",
    "DUPLICATE_SOP_INSTANCE",
    "ELEMENTS_DISCARDED",
    "FIND_HANDLER_FAILED",
    "FIND_IDENTIFIER_UNDECODABLE",
    "FIND_MATCH_UNENCODABLE",
    "FRAMES_NOT_FOUND",
    "GET_HANDLER_FAILED",
    "GET_IDENTIFIER_UNDECODABLE",
    "GET_TOTAL_INVALID",
    "GET_TOTAL_TOO_LARGE",
    "HANDLER_STATUS_INVALID",
    "HANDLER_STATUS_MISSING",
    "IDENTIFIER_MISMATCH",
    "INVALID_ARGUMENT_VALUE",
    "INVALID_ATTRIBUTE_VALUE",
    "INVALID_FRAME_REQUEST",
    "INVALID_OBJECT_INSTANCE",
    "MATCHING_LIMIT_REACHED",
    "MISSING_ATTRIBUTE",
    "MISSING_ATTRIBUTE_VALUE",
    "MISTYPED_ARGUMENT",
    "MOVE_ADDRESS_INVALID",
    "MOVE_DESTINATION_UNKNOWN",
    "MOVE_HANDLER_FAILED",
    "MOVE_IDENTIFIER_UNDECODABLE",
    "MOVE_RESOLUTION_FAILED",
    "MOVE_TOTAL_INVALID",
    "MOVE_TOTAL_TOO_LARGE",
    "NOT_AUTHORISED",
    "NOT_TIME_BASED",
    "NO_SUCH_ACTION",
    "NO_SUCH_ARGUMENT",
    "NO_SUCH_ATTRIBUTE",
    "NO_SUCH_EVENT_TYPE",
    "NO_SUCH_SOP_CLASS",
    "NO_SUCH_SOP_INSTANCE",
    "OPTIONAL_ATTRIBUTES_NOT_SUPPORTED",
    "OUT_OF_RESOURCES",
    "OUT_OF_RESOURCES_MATCHES",
    "OUT_OF_RESOURCES_SUBOPERATIONS",
    "PENDING",
    "PENDING_OPTIONAL_KEYS",
    "PROCESSING_FAILURE",
    "RESOURCE_LIMITATION",
    "SOP_CLASS_NOT_SUPPORTED",
    "STORE_DATA_SET_UNDECODABLE",
    "STORE_HANDLER_FAILED",
    "SUBOPERATIONS_WARNING",
    "SUCCESS",
    "TABLES",
    "UNABLE_TO_PROCESS",
    "UNRECOGNISED_OPERATION",
    "Category",
    "Status",
    "StatusRow",
]


class Category(enum.Enum):
    """The five kinds of status (PS3.7 C)."""

    SUCCESS = "success"
    PENDING = "pending"
    CANCEL = "cancel"
    WARNING = "warning"
    FAILURE = "failure"


#: The codes whose category does not follow from their first digits (PS3.7 Annex C).
_CATEGORIES = {
    0x0000: Category.SUCCESS,
    0x0001: Category.WARNING,
    0x0107: Category.WARNING,
    0x0116: Category.WARNING,
    0xFE00: Category.CANCEL,
    0xFF00: Category.PENDING,
    0xFF01: Category.PENDING,
}


def _category(code: int) -> Category:
    """Give the category of any code: 0xBxxx is a warning, whatever nothing else claims a failure (PS3.7 Annex C)."""
    return _CATEGORIES.get(code) or (Category.WARNING if code >> 12 == 0xB else Category.FAILURE)


class Status(int):
    """A DIMSE status: an ``int`` of 16 bits that knows its category and its meaning (PS3.7 C).

    Any code from 0 to 0xFFFF can be one, whether a table knows it or not.

    :raises ValueError: the code does not fit 16 bits.
    """

    __slots__ = ()

    def __new__(cls, code: int) -> Self:
        if not 0 <= code <= 0xFFFF:
            raise ValueError(f"a status has 16 bits, not {code:#x}")
        return int.__new__(cls, code)

    def __repr__(self) -> str:
        return f"Status(0x{int(self):04X})"

    @property
    def category(self) -> Category:
        """The category, which every code has."""
        return _category(self)

    @property
    def meaning(self) -> str:
        """What the code means when the service is not known: a short English text, never empty."""
        return self.describe()

    def describe(self, service: str | None = None) -> str:
        """Say what the code means when this service sent it.

        :param service: a key of :data:`TABLES` such as ``"QR_FIND"`` or ``"STORAGE"``; ``None`` if it is not known.
        :returns: a short English text, never empty.
        :raises KeyError: no such service.
        """
        tables = (_ANY_SERVICE,) if service is None else (TABLES[service], _ANY_SERVICE)
        for table in tables:
            for row in table:
                if row.first <= self <= row.last:
                    return row.meaning
        return f"Unknown {self.category.value} status"

    @property
    def is_success(self) -> bool:
        """Whether the operation succeeded."""
        return self == 0

    @property
    def is_pending(self) -> bool:
        """Whether more responses follow."""
        return self == 0xFF00 or self == 0xFF01

    @property
    def is_cancel(self) -> bool:
        """Whether the operation ended because of a C-CANCEL."""
        return self == 0xFE00

    @property
    def is_warning(self) -> bool:
        """Whether the operation was done, but not quite as it was asked for."""
        return _category(self) is Category.WARNING

    @property
    def is_failure(self) -> bool:
        """Whether the operation was not done."""
        return _category(self) is Category.FAILURE


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """One row of a status table: the codes from ``first`` to ``last``, both included, and what they mean."""

    first: int
    last: int
    category: Category
    meaning: str


def _row(code: int, meaning: str, last: int | None = None) -> StatusRow:
    return StatusRow(first=code, last=code if last is None else last, category=_category(code), meaning=meaning)


#: PS3.7 Annex C: what any service may answer.
_GENERAL = (
    _row(0x0000, "Success"),
    _row(0x0105, "No such attribute"),
    _row(0x0106, "Invalid attribute value"),
    _row(0x0107, "Attribute list error"),
    _row(0x0110, "Processing failure"),
    _row(0x0111, "Duplicate SOP instance"),
    _row(0x0112, "No such SOP instance"),
    _row(0x0113, "No such event type"),
    _row(0x0114, "No such argument"),
    _row(0x0115, "Invalid argument value"),
    _row(0x0116, "Attribute value out of range"),
    _row(0x0117, "Invalid object instance"),
    _row(0x0118, "No such SOP class"),
    _row(0x0119, "Class-instance conflict"),
    _row(0x0120, "Missing attribute"),
    _row(0x0121, "Missing attribute value"),
    _row(0x0122, "SOP class not supported"),
    _row(0x0123, "No such action"),
    _row(0x0124, "Not authorised"),
    _row(0x0210, "Duplicate invocation"),
    _row(0x0211, "Unrecognised operation"),
    _row(0x0212, "Mistyped argument"),
    _row(0x0213, "Resource limitation"),
    _row(0xFE00, "Cancelled"),
)

_OPTIONAL_ATTRIBUTES = _row(0x0001, "Requested optional attributes are not supported")
_NO_RESOURCES = _row(0xA700, "Out of resources")
_NO_RESOURCES_MATCHES = _row(0xA701, "Out of resources: unable to calculate the number of matches")
_NO_RESOURCES_SUBOPERATIONS = _row(0xA702, "Out of resources: unable to perform sub-operations")
_MISMATCH = _row(0xA900, "Data set does not match SOP class")
_UNABLE = _row(0xC000, "Unable to process", 0xCFFF)
_MATCHES = (
    _row(0xFF00, "Matches are continuing"),
    _row(0xFF01, "Matches are continuing; one or more optional keys were not supported"),
)
#: Codes of our own that C-STORE, C-FIND, C-GET and C-MOVE handlers have in common.
_OWN = (
    _row(0xC001, "Unable to process: the handler gave a status data set without a status"),
    _row(0xC002, "Unable to process: the handler gave something that is no status"),
)
#: PS3.4 Y.4: statuses of Composite Instance Root Retrieve.
_FRAMES = (
    _row(0xAA00, "None of the requested frames were found in the SOP instance"),
    _row(0xAA01, "Unable to create a new object for this SOP class"),
    _row(0xAA02, "Unable to extract frames"),
    _row(0xAA03, "Time-based request for an original SOP instance that is not time-based"),
    _row(0xAA04, "Invalid request"),
)
_SUBOPERATIONS = (
    _row(0xB000, "Sub-operations complete: one or more failures or warnings"),
    _row(0xFE00, "Sub-operations terminated because of a cancel"),
    _row(0xFF00, "Sub-operations are continuing"),
)

#: What each service adds to the general statuses, and where it words them differently.
_SERVICES: dict[str, tuple[StatusRow, ...]] = {
    "GENERAL": (),
    "VERIFICATION": (),  # PS3.4 A
    "STORAGE": (  # PS3.4 B.2.3
        _row(0xA700, "Out of resources", 0xA7FF),
        _row(0xA900, "Data set does not match SOP class", 0xA9FF),
        _row(0xB000, "Coercion of data elements"),
        _row(0xB006, "Elements discarded"),
        _row(0xB007, "Data set does not match SOP class, stored nevertheless"),
        *_OWN,
        _row(0xC210, "Cannot understand: the data set cannot be decoded"),
        _row(0xC211, "Cannot understand: unhandled exception in the handler"),
        _row(0xC000, "Cannot understand", 0xCFFF),
    ),
    "QR_FIND": (  # PS3.4 C.4.1.1.4
        _NO_RESOURCES,
        _row(0xA710, "Invalid prior record key"),
        _MISMATCH,
        _row(0xB001, "Matching reached the response limit; a further request may ask for more matches"),
        *_OWN,
        _row(0xC310, "Unable to process: the identifier cannot be decoded"),
        _row(0xC311, "Unable to process: unhandled exception in the handler"),
        _row(0xC312, "Unable to process: the handler gave an identifier that cannot be encoded"),
        _UNABLE,
        _row(0xFE00, "Matching terminated because of a cancel"),
        *_MATCHES,
    ),
    "QR_GET": (  # PS3.4 C.4.3.1.4
        _NO_RESOURCES_MATCHES,
        _NO_RESOURCES_SUBOPERATIONS,
        _MISMATCH,
        *_FRAMES,
        *_OWN,
        _row(0xC410, "Unable to process: the identifier cannot be decoded"),
        _row(0xC411, "Unable to process: unhandled exception in the handler"),
        _row(0xC413, "Unable to process: the handler gave an invalid number of sub-operations or none"),
        _row(0xC416, "Unable to process: more than 65535 sub-operations"),
        _UNABLE,
        *_SUBOPERATIONS,
    ),
    "QR_MOVE": (  # PS3.4 C.4.2.1.5
        _NO_RESOURCES_MATCHES,
        _NO_RESOURCES_SUBOPERATIONS,
        _row(0xA801, "Move destination unknown"),
        _MISMATCH,
        *_FRAMES,
        *_OWN,
        _row(0xC510, "Unable to process: the identifier cannot be decoded"),
        _row(0xC511, "Unable to process: unhandled exception in the handler"),
        _row(0xC513, "Unable to process: the handler gave an invalid number of sub-operations or none"),
        _row(0xC514, "Unable to process: resolving the move destination failed"),
        _row(0xC515, "Unable to process: the move destination resolves to an invalid address"),
        _row(0xC516, "Unable to process: more than 65535 sub-operations"),
        _UNABLE,
        *_SUBOPERATIONS,
    ),
    "PROCEDURE_STEP": (_OPTIONAL_ATTRIBUTES,),  # PS3.4 F
    "PRINT_JOB_MANAGEMENT": (  # PS3.4 H
        _row(0xB600, "Memory allocation not supported"),
        _row(0xB601, "Film session printing (collation) is not supported"),
        _row(0xB602, "The film session has no image box with an image (empty page)"),
        _row(0xB603, "The film box has no image box with an image (empty page)"),
        _row(0xB604, "The image is larger than the image box and was demagnified"),
        _row(0xB605, "Requested minimum or maximum density is outside of the range of the printer"),
        _row(0xB609, "The image is larger than the image box and was cropped to fit"),
        _row(0xB60A, "The image or combined print image is larger than the image box and was decimated to fit"),
        _row(0xC600, "The film session has no film box"),
        _row(0xC601, "Unable to create a print job for the film session: the print queue is full"),
        _row(0xC602, "Unable to create a print job for the film box: the print queue is full"),
        _row(0xC603, "The image is larger than the image box"),
        _row(0xC605, "Insufficient memory in the printer to store the image"),
        _row(0xC613, "The combined print image is larger than the image box"),
        _row(0xC616, "There is a film box that has not been printed yet"),
    ),
    "STORAGE_COMMITMENT": (),  # PS3.4 J
    "MODALITY_WORKLIST": (  # PS3.4 K.4.1.1.4
        _NO_RESOURCES,
        _MISMATCH,
        *_OWN,
        _row(0xC310, "Unable to process: the identifier cannot be decoded"),
        _row(0xC311, "Unable to process: unhandled exception in the handler"),
        _row(0xC312, "Unable to process: the handler gave an identifier that cannot be encoded"),
        _UNABLE,
        _row(0xFE00, "Matching terminated because of a cancel"),
        *_MATCHES,
    ),
    "APPLICATION_EVENT_LOGGING": (  # PS3.4 P
        _row(0xB101, "The synchronization frame of reference does not match that of the SCP"),
        _row(0xB102, "The event was logged under a different Study Instance UID"),
        _row(0xB104, "Identifiers are inconsistent in matching a current study; the event was logged"),
        _row(0xC101, "Procedural logging is not available for the Study Instance UID"),
        _row(0xC102, "The event information does not match the template"),
        _row(0xC103, "The event cannot be matched to a current study"),
        _row(0xC104, "Identifiers are inconsistent in matching a current study; the event was not logged"),
        _row(0xC10E, "The operator may not add an entry to the medication administration record"),
        _row(0xC110, "The patient cannot be identified from Patient ID or Admission ID"),
        _row(0xC111, "The medication administration record could not be updated"),
    ),
    "RELEVANT_PATIENT": (  # PS3.4 Q.2.1.1.4
        _NO_RESOURCES,
        _MISMATCH,
        _row(0xC000, "Unable to process"),
        _row(0xC100, "More than one match was found"),
        _row(0xC200, "The requested template is not supported"),
        _row(0xFF00, "Matching is continuing: the current match is given"),
    ),
    "MEDIA_CREATION_MANAGEMENT": (  # PS3.4 S
        _OPTIONAL_ATTRIBUTES,
        _row(0xA510, "Media creation was already initiated for this SOP instance"),
        _row(0xC201, "The media creation request is already completed"),
        _row(0xC202, "The media creation request is in progress and cannot be interrupted"),
        _row(0xC203, "Cancellation was denied for an unspecified reason"),
    ),
    "SUBSTANCE_ADMINISTRATION": (  # PS3.4 V
        _NO_RESOURCES,
        _MISMATCH,
        _UNABLE,
        _row(0xFE00, "Matching terminated because of a cancel"),
        *_MATCHES,
    ),
    "UNIFIED_PROCEDURE_STEP": (  # PS3.4 CC.2
        _OPTIONAL_ATTRIBUTES,
        _NO_RESOURCES,
        _MISMATCH,
        _row(0xB300, "The UPS was created with modifications"),
        _row(0xB301, "The deletion lock was not granted"),
        _row(0xB304, "The UPS is already CANCELED"),
        _row(0xB305, "Invalid values were coerced to valid ones"),
        _row(0xB306, "The UPS is already COMPLETED"),
        _row(0xC000, "Unable to process", 0xC2FF),
        _row(0xC300, "The UPS may no longer be updated"),
        _row(0xC301, "The correct Transaction UID was not given"),
        _row(0xC302, "The UPS is already IN PROGRESS"),
        _row(0xC303, "A UPS becomes SCHEDULED only by N-CREATE, not by N-SET or N-ACTION"),
        _row(0xC304, "The UPS does not meet the final state requirements of the requested change"),
        _row(0xC305, "Unable to process", 0xC306),
        _row(0xC307, "The SOP instance does not exist or is no UPS of this SCP"),
        _row(0xC308, "The receiving AE title is unknown to this SCP"),
        _row(0xC309, "The given UPS state was not SCHEDULED"),
        _row(0xC30A, "Unable to process", 0xC30F),
        _row(0xC310, "The UPS is not yet IN PROGRESS"),
        _row(0xC311, "The UPS is already COMPLETED"),
        _row(0xC312, "The performer cannot be contacted"),
        _row(0xC313, "The performer chooses not to cancel"),
        _row(0xC314, "The action is not appropriate for the instance"),
        _row(0xC315, "The SCP does not support event reports"),
        _row(0xC316, "Unable to process", 0xCFFF),
        _row(0xFE00, "Matching terminated because of a cancel"),
        *_MATCHES,
    ),
    "RT_MACHINE_VERIFICATION": (  # PS3.4 DD
        _row(0xC112, "The machine verification instance was not found"),
        _row(0xC221, "The fraction group does not exist in the referenced plan"),
        _row(0xC222, "No beams exist within the fraction group"),
        _row(0xC223, "The SCU is already verifying and cannot process this request now"),
        _row(0xC224, "The beam was not found within the fraction group"),
        _row(0xC225, "The device or accessory is not supported"),
        _row(0xC226, "The device or accessory was not found within the beam"),
        _row(0xC227, "No such object instance: the referenced RT plan was not found"),
    ),
    "NON_PATIENT": (  # PS3.4 GG.4.2
        _NO_RESOURCES,
        _MISMATCH,
        _row(0xC000, "Cannot understand"),
    ),
    "STORAGE_MANAGEMENT": (  # PS3.4 KK
        _row(0xB010, "Attribute list error: one or more key attributes are not supported for matching"),
    ),
}


def _table(rows: tuple[StatusRow, ...]) -> tuple[StatusRow, ...]:
    """Put the general statuses that the service does not word itself in front of its own."""
    worded = {row.first for row in rows}
    return (*(row for row in _GENERAL if row.first not in worded), *rows)


#: The statuses of each service, by name. Where a single code lies in a range its row comes first: the first row counts.
TABLES: Mapping[str, tuple[StatusRow, ...]] = MappingProxyType(
    {service: _table(rows) for service, rows in _SERVICES.items()}
)

#: What a code means when the service is not known: the general statuses, then what most services agree on.
_ANY_SERVICE = (
    *_GENERAL,
    _OPTIONAL_ATTRIBUTES,
    _NO_RESOURCES_MATCHES,
    _NO_RESOURCES_SUBOPERATIONS,
    _row(0xA700, "Out of resources", 0xA7FF),
    _row(0xA801, "Move destination unknown"),
    _row(0xA900, "Data set does not match SOP class", 0xA9FF),
    *_FRAMES,
    _row(0xB000, "Coercion of data elements, or sub-operations with failures or warnings"),
    _row(0xB001, "Matching reached the response limit"),
    _row(0xB006, "Elements discarded"),
    _row(0xB007, "Data set does not match SOP class, stored nevertheless"),
    _UNABLE,
    _row(0xFF00, "Pending"),
    _row(0xFF01, "Pending; one or more optional keys were not supported"),
)

# PS3.7 Annex C.
SUCCESS = Status(0x0000)
OPTIONAL_ATTRIBUTES_NOT_SUPPORTED = Status(0x0001)
NO_SUCH_ATTRIBUTE = Status(0x0105)
INVALID_ATTRIBUTE_VALUE = Status(0x0106)
ATTRIBUTE_LIST_ERROR = Status(0x0107)
PROCESSING_FAILURE = Status(0x0110)
DUPLICATE_SOP_INSTANCE = Status(0x0111)
NO_SUCH_SOP_INSTANCE = Status(0x0112)
NO_SUCH_EVENT_TYPE = Status(0x0113)
NO_SUCH_ARGUMENT = Status(0x0114)
INVALID_ARGUMENT_VALUE = Status(0x0115)
ATTRIBUTE_VALUE_OUT_OF_RANGE = Status(0x0116)
INVALID_OBJECT_INSTANCE = Status(0x0117)
NO_SUCH_SOP_CLASS = Status(0x0118)
CLASS_INSTANCE_CONFLICT = Status(0x0119)
MISSING_ATTRIBUTE = Status(0x0120)
MISSING_ATTRIBUTE_VALUE = Status(0x0121)
SOP_CLASS_NOT_SUPPORTED = Status(0x0122)
NO_SUCH_ACTION = Status(0x0123)
NOT_AUTHORISED = Status(0x0124)
DUPLICATE_INVOCATION = Status(0x0210)
UNRECOGNISED_OPERATION = Status(0x0211)
MISTYPED_ARGUMENT = Status(0x0212)
RESOURCE_LIMITATION = Status(0x0213)
CANCEL = Status(0xFE00)
PENDING = Status(0xFF00)
PENDING_OPTIONAL_KEYS = Status(0xFF01)

# PS3.4: Storage and Query/Retrieve.
OUT_OF_RESOURCES = Status(0xA700)
OUT_OF_RESOURCES_MATCHES = Status(0xA701)
OUT_OF_RESOURCES_SUBOPERATIONS = Status(0xA702)
MOVE_DESTINATION_UNKNOWN = Status(0xA801)
IDENTIFIER_MISMATCH = Status(0xA900)
FRAMES_NOT_FOUND = Status(0xAA00)
CANNOT_CREATE_OBJECT = Status(0xAA01)
CANNOT_EXTRACT_FRAMES = Status(0xAA02)
NOT_TIME_BASED = Status(0xAA03)
INVALID_FRAME_REQUEST = Status(0xAA04)
COERCION_OF_DATA_ELEMENTS = Status(0xB000)
SUBOPERATIONS_WARNING = Status(0xB000)
MATCHING_LIMIT_REACHED = Status(0xB001)
ELEMENTS_DISCARDED = Status(0xB006)
DATA_SET_MISMATCH_WARNING = Status(0xB007)
CANNOT_UNDERSTAND = Status(0xC000)
UNABLE_TO_PROCESS = Status(0xC000)

# What our own SCP answers within 0xC000 to 0xCFFF.
HANDLER_STATUS_MISSING = Status(0xC001)
HANDLER_STATUS_INVALID = Status(0xC002)
STORE_DATA_SET_UNDECODABLE = Status(0xC210)
STORE_HANDLER_FAILED = Status(0xC211)
FIND_IDENTIFIER_UNDECODABLE = Status(0xC310)
FIND_HANDLER_FAILED = Status(0xC311)
FIND_MATCH_UNENCODABLE = Status(0xC312)
GET_IDENTIFIER_UNDECODABLE = Status(0xC410)
GET_HANDLER_FAILED = Status(0xC411)
GET_TOTAL_INVALID = Status(0xC413)
GET_TOTAL_TOO_LARGE = Status(0xC416)
MOVE_IDENTIFIER_UNDECODABLE = Status(0xC510)
MOVE_HANDLER_FAILED = Status(0xC511)
MOVE_TOTAL_INVALID = Status(0xC513)
MOVE_RESOLUTION_FAILED = Status(0xC514)
MOVE_ADDRESS_INVALID = Status(0xC515)
MOVE_TOTAL_TOO_LARGE = Status(0xC516)
