"""Statuses: every code has a category and a meaning, and the tables hold the codes of PS3.4 and PS3.7."""

from __future__ import annotations

import copy
import pickle

import pytest

from asyncdicom import status
from asyncdicom.status import TABLES, Category, Status

#: The codes that any service may answer (PS3.7 Annex C).
GENERAL = [
    (0x0000, Category.SUCCESS),
    *((code, Category.FAILURE) for code in (0x0105, 0x0106)),
    (0x0107, Category.WARNING),
    *((code, Category.FAILURE) for code in range(0x0110, 0x0116)),
    (0x0116, Category.WARNING),
    *((code, Category.FAILURE) for code in (0x0117, 0x0118, 0x0119)),
    *((code, Category.FAILURE) for code in range(0x0120, 0x0125)),
    *((code, Category.FAILURE) for code in range(0x0210, 0x0214)),
    (0xFE00, Category.CANCEL),
]

#: (first, last) of what each service adds to them (PS3.4).
ADDED: dict[str, list[tuple[int, int]]] = {
    "GENERAL": [],
    "VERIFICATION": [],
    "STORAGE_COMMITMENT": [],
    "PROCEDURE_STEP": [(0x0001, 0x0001)],
    "STORAGE_MANAGEMENT": [(0xB010, 0xB010)],
    "NON_PATIENT": [(0xA700, 0xA700), (0xA900, 0xA900), (0xC000, 0xC000)],
    "STORAGE": [
        *((0xA700, 0xA7FF), (0xA900, 0xA9FF), (0xB000, 0xB000), (0xB006, 0xB006), (0xB007, 0xB007)),
        (0xC000, 0xCFFF),
    ],
    "QR_FIND": [
        *((0xA700, 0xA700), (0xA710, 0xA710), (0xA900, 0xA900), (0xB001, 0xB001), (0xC000, 0xCFFF)),
        *((0xFF00, 0xFF00), (0xFF01, 0xFF01)),
    ],
    "QR_GET": [
        *((0xA701, 0xA701), (0xA702, 0xA702), (0xA900, 0xA900)),
        *((code, code) for code in range(0xAA00, 0xAA05)),
        *((0xB000, 0xB000), (0xC000, 0xCFFF), (0xFF00, 0xFF00)),
    ],
    "QR_MOVE": [
        *((0xA701, 0xA701), (0xA702, 0xA702), (0xA801, 0xA801), (0xA900, 0xA900)),
        *((code, code) for code in range(0xAA00, 0xAA05)),
        *((0xB000, 0xB000), (0xC000, 0xCFFF), (0xFF00, 0xFF00)),
    ],
    "MODALITY_WORKLIST": [
        *((0xA700, 0xA700), (0xA900, 0xA900), (0xC000, 0xCFFF), (0xFF00, 0xFF00), (0xFF01, 0xFF01)),
    ],
    "SUBSTANCE_ADMINISTRATION": [
        *((0xA700, 0xA700), (0xA900, 0xA900), (0xC000, 0xCFFF), (0xFF00, 0xFF00), (0xFF01, 0xFF01)),
    ],
    "RELEVANT_PATIENT": [
        *((0xA700, 0xA700), (0xA900, 0xA900), (0xC000, 0xC000), (0xC100, 0xC100), (0xC200, 0xC200)),
        (0xFF00, 0xFF00),
    ],
    "PRINT_JOB_MANAGEMENT": [
        *((code, code) for code in (*range(0xB600, 0xB606), 0xB609, 0xB60A)),
        *((code, code) for code in (*range(0xC600, 0xC604), 0xC605, 0xC613, 0xC616)),
    ],
    "MEDIA_CREATION_MANAGEMENT": [(code, code) for code in (0x0001, 0xA510, 0xC201, 0xC202, 0xC203)],
    "RT_MACHINE_VERIFICATION": [(code, code) for code in (0xC112, *range(0xC221, 0xC228))],
    "APPLICATION_EVENT_LOGGING": [
        *((code, code) for code in (0xB101, 0xB102, 0xB104)),
        *((code, code) for code in (0xC101, 0xC102, 0xC103, 0xC104, 0xC10E, 0xC110, 0xC111)),
    ],
    "UNIFIED_PROCEDURE_STEP": [
        *((0x0001, 0x0001), (0xA700, 0xA700), (0xA900, 0xA900)),
        *((code, code) for code in (0xB300, 0xB301, 0xB304, 0xB305, 0xB306)),
        (0xC000, 0xC2FF),
        *((code, code) for code in range(0xC300, 0xC305)),
        (0xC305, 0xC306),
        *((code, code) for code in (0xC307, 0xC308, 0xC309)),
        (0xC30A, 0xC30F),
        *((code, code) for code in range(0xC310, 0xC316)),
        *((0xC316, 0xCFFF), (0xFF00, 0xFF00), (0xFF01, 0xFF01)),
    ],
}

#: The codes of our own SCP.
OWN = {
    "STORAGE": [0xC001, 0xC002, 0xC210, 0xC211],
    "QR_FIND": [0xC001, 0xC002, 0xC310, 0xC311, 0xC312],
    "QR_GET": [0xC001, 0xC002, 0xC410, 0xC411, 0xC413, 0xC416],
    "QR_MOVE": [0xC001, 0xC002, 0xC510, 0xC511, 0xC513, 0xC514, 0xC515, 0xC516],
    "MODALITY_WORKLIST": [0xC001, 0xC002, 0xC310, 0xC311, 0xC312],
}


def expected_category(code: int) -> Category:
    """Restate the rule of PS3.7 Annex C as a chain of cases."""
    match code:
        case 0x0000:
            return Category.SUCCESS
        case 0xFF00 | 0xFF01:
            return Category.PENDING
        case 0xFE00:
            return Category.CANCEL
        case 0x0001 | 0x0107 | 0x0116:
            return Category.WARNING
        case _ if 0xB000 <= code <= 0xBFFF:
            return Category.WARNING
        case _:
            return Category.FAILURE


def test_every_16_bit_code_has_a_category_a_flag_and_a_meaning() -> None:
    for code in range(0x10000):
        value = Status(code)
        category = value.category
        assert category is expected_category(code)
        assert value.meaning
        flags = {
            Category.SUCCESS: value.is_success,
            Category.PENDING: value.is_pending,
            Category.CANCEL: value.is_cancel,
            Category.WARNING: value.is_warning,
            Category.FAILURE: value.is_failure,
        }
        assert [kind for kind, flag in flags.items() if flag] == [category]


@pytest.mark.parametrize("code", [-1, 0x10000, 1 << 40])
def test_a_code_that_does_not_fit_16_bits_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match="16 bits"):
        Status(code)


def test_a_status_is_an_int() -> None:
    value = Status(0xFE00)
    assert value == 0xFE00
    assert hash(value) == hash(0xFE00)
    assert repr(value) == str(value) == "Status(0xFE00)"
    assert repr(Status(0)) == "Status(0x0000)"
    assert f"{value:#06x}" == "0xfe00"
    assert Status(value) == value


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_of_a_status_is_a_status(copied: object) -> None:
    assert callable(copied)
    value = copied(status.OUT_OF_RESOURCES)
    assert value == 0xA700
    assert isinstance(value, Status)


def test_the_tables_cover_exactly_the_services_of_the_standard() -> None:
    assert set(TABLES) == set(ADDED)


@pytest.mark.parametrize("service", ADDED)
def test_a_table_holds_the_general_codes_its_own_and_nothing_else(service: str) -> None:
    rows = {(row.first, row.last) for row in TABLES[service]}
    expected = {(code, code) for code, _ in GENERAL} | set(ADDED[service])
    expected |= {(code, code) for code in OWN.get(service, [])}
    assert rows == expected
    assert len(rows) == len(TABLES[service]), "a row is there twice"


@pytest.mark.parametrize("service", TABLES)
def test_a_row_has_the_category_of_all_its_codes_and_a_text_that_fits_an_error_comment_or_a_line(service: str) -> None:
    for row in TABLES[service]:
        assert row.first <= row.last
        assert {Status(code).category for code in range(row.first, row.last + 1)} == {row.category}
        assert 0 < len(row.meaning) <= 100
        assert row.meaning.isprintable()


@pytest.mark.parametrize("service", TABLES)
def test_no_row_is_hidden_by_a_range_before_it(service: str) -> None:
    for row in TABLES[service]:
        assert Status(row.last).describe(service) == row.meaning


@pytest.mark.parametrize(("code", "category"), GENERAL)
def test_a_general_code_means_the_same_in_a_service_without_words_of_its_own(code: int, category: Category) -> None:
    value = Status(code)
    assert value.category is category
    assert value.describe("VERIFICATION") == value.describe("GENERAL") == value.meaning


@pytest.mark.parametrize(
    ("code", "service", "meaning"),
    [
        (0x0000, None, "Success"),
        (0x0122, "QR_FIND", "SOP class not supported"),
        (0xA700, None, "Out of resources"),
        (0xA7FE, "STORAGE", "Out of resources"),
        (0xA801, "QR_MOVE", "Move destination unknown"),
        (0xB000, "STORAGE", "Coercion of data elements"),
        (0xB000, "QR_GET", "Sub-operations complete: one or more failures or warnings"),
        (0xC311, None, "Unable to process"),
        (0xC311, "QR_FIND", "Unable to process: unhandled exception in the handler"),
        (0xC311, "UNIFIED_PROCEDURE_STEP", "The UPS is already COMPLETED"),
        (0xC3AB, "QR_FIND", "Unable to process"),
        (0xC3AB, "STORAGE", "Cannot understand"),
        (0xFE00, "QR_MOVE", "Sub-operations terminated because of a cancel"),
        (0xFF01, "QR_FIND", "Matches are continuing; one or more optional keys were not supported"),
        (0xA801, "STORAGE", "Move destination unknown"),
        (0x1234, "STORAGE", "Unknown failure status"),
        (0xB999, None, "Unknown warning status"),
    ],
)
def test_the_meaning_of_a_code_depends_on_its_service(code: int, service: str | None, meaning: str) -> None:
    assert Status(code).describe(service) == meaning


def test_a_service_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        status.SUCCESS.describe("LAUNDRY")


def test_every_constant_is_a_status_with_a_meaning_of_its_own() -> None:
    constants = {name: value for name, value in vars(status).items() if name.isupper() and name[0] != "_"}
    del constants["TABLES"]
    assert set(constants) <= set(status.__all__)
    for value in constants.values():
        assert isinstance(value, Status)
        assert not value.meaning.startswith("Unknown")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (status.SUCCESS, 0x0000),
        (status.PENDING, 0xFF00),
        (status.PENDING_OPTIONAL_KEYS, 0xFF01),
        (status.CANCEL, 0xFE00),
        (status.SUBOPERATIONS_WARNING, 0xB000),
        (status.PROCESSING_FAILURE, 0x0110),
        (status.DUPLICATE_SOP_INSTANCE, 0x0111),
        (status.INVALID_OBJECT_INSTANCE, 0x0117),
        (status.SOP_CLASS_NOT_SUPPORTED, 0x0122),
        (status.NOT_AUTHORISED, 0x0124),
        (status.DUPLICATE_INVOCATION, 0x0210),
        (status.UNRECOGNISED_OPERATION, 0x0211),
        (status.MISTYPED_ARGUMENT, 0x0212),
        (status.OUT_OF_RESOURCES, 0xA700),
        (status.OUT_OF_RESOURCES_MATCHES, 0xA701),
        (status.OUT_OF_RESOURCES_SUBOPERATIONS, 0xA702),
        (status.MOVE_DESTINATION_UNKNOWN, 0xA801),
        (status.IDENTIFIER_MISMATCH, 0xA900),
        (status.MATCHING_LIMIT_REACHED, 0xB001),
        (status.ELEMENTS_DISCARDED, 0xB006),
        (status.DATA_SET_MISMATCH_WARNING, 0xB007),
    ],
)
def test_a_constant_has_the_code_of_the_standard(value: Status, code: int) -> None:
    assert value == code
