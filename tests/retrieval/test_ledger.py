"""The counters of several requests, and what is known to be missing."""

from __future__ import annotations

from typing import Any

import pytest

from asyncdicom import Progress, Response, sop
from asyncdicom.identifiers import encode_failed_list
from asyncdicom.protocol.commands import CGetRSP
from asyncdicom.protocol.negotiation import AcceptedContext
from asyncdicom.retrieval.ledger import Ledger
from asyncdicom.retrieval.query import Part, Query

CONTEXT = AcceptedContext(
    context_id=1,
    abstract_syntax=sop.STUDY_ROOT_GET,
    transfer_syntax=sop.EXPLICIT_VR_LITTLE_ENDIAN,
    requestor_is_scu=True,
    requestor_is_scp=False,
)


def response(status: int, listed: list[str] | bytes = b"", /, **counters: int) -> Response:
    """Make a final response."""
    fields: dict[str, Any] = {f"number_of_{name}_suboperations": value for name, value in counters.items()}
    data = listed if isinstance(listed, bytes) else encode_failed_list(listed, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    return Response(CGetRSP(message_id_being_responded_to=1, status=status, **fields), CONTEXT, data or None)


def part(*uids: str) -> Part:
    """Make a request for a study, or for instances."""
    if not uids:
        return Part(Query({"StudyInstanceUID": "1"}, {}, None).split()[0].identifier)
    return Query({"SOPInstanceUID": list(uids)}, {}, None).split()[0]


@pytest.mark.parametrize(
    ("answer", "asked", "judged", "missing", "unnamed"),
    [
        (response(0x0000, completed=3), part(), True, [], 0),
        (response(0x0000), part("1", "2"), True, [], 0),
        (response(0xB000, ["2", "3"], completed=1, failed=2), part(), True, ["2", "3"], 0),
        (response(0xB000, ["1", "3"], completed=1, failed=2), part(), True, ["3"], 0),
        (response(0xB000, completed=1, failed=2), part(), True, [], 2),
        (response(0xB000, ["2"], completed=1, failed=3), part(), True, ["2"], 2),
        (response(0xB000, completed=1, failed=2), part("1", "2", "3"), True, ["2", "3"], 0),
        (response(0xB000, completed=1, warning=2), part(), True, [], 0),
        (response(0xA702, ["2"], failed=1), part(), True, ["2"], 0),
        (response(0xA702), part("2", "3"), True, ["2", "3"], 0),
        (response(0xA702, b"\x08\0\x58\0UI\x10\0too"), part(), True, [], 0),
        (response(0xB000, ["../../x", "2"], failed=2), part(), True, ["2"], 1),
        (response(0xC000), part("2", "3"), False, [], 0),
        (response(0xA900), part(), False, [], 0),
        (response(0xFE00), part(), False, [], 0),
    ],
)
def test_a_final_response_says_what_is_missing_or_that_the_request_failed(
    answer: Response, asked: Part, judged: bool, missing: list[str], unnamed: int
) -> None:
    ledger = Ledger()
    ledger.plan([asked])
    ledger.begin(asked)
    ledger.deliver("1")
    assert ledger.finish(answer, asked) is judged
    assert (list(ledger.missing), ledger.unnamed) == (missing, unnamed)
    assert ledger.responses == [answer]


def test_counters_add_up_over_requests() -> None:
    ledger = Ledger()
    parts = [part("1", "2"), part("3", "4", "5")]
    assert ledger.progress == Progress()
    ledger.plan(parts)
    ledger.begin(parts[0])
    ledger.pending(Progress(1, 1, 0, 0))
    assert ledger.progress == Progress(4, 1, 0, 0)
    ledger.finish(response(0xB000, ["2"], completed=1, failed=1, warning=0), parts[0])
    assert ledger.progress == Progress(3, 1, 1, 0)
    ledger.begin(parts[1])
    ledger.pending(Progress(1, 1, 0, 1))
    assert ledger.progress == Progress(1, 2, 1, 1)
    ledger.finish(response(0x0000, completed=2, failed=0, warning=1), parts[1])
    assert ledger.progress == Progress(0, 3, 1, 1)
    # The one that failed is asked for again.
    again = part("2")
    ledger.plan([again], again=1)
    ledger.begin(again)
    assert ledger.progress == Progress(1, 3, 0, 1)
    ledger.deliver("2")
    ledger.finish(response(0x0000, completed=1), again)
    assert ledger.progress == Progress(0, 4, 0, 1)
    assert not ledger.missing


def test_counters_that_a_response_lacks_are_those_of_the_one_before() -> None:
    ledger = Ledger()
    ledger.begin(part())
    ledger.pending(Progress(2, 1, 0, 0))
    ledger.pending(Progress())
    assert ledger.progress == Progress(2, 1, 0, 0)
    ledger.finish(response(0x0000), part())
    assert ledger.progress == Progress(0, 1, 0, 0)


def test_what_there_is_and_has_not_come_is_missing() -> None:
    ledger = Ledger()
    ledger.begin(part())
    ledger.deliver("1")
    ledger.finish(response(0xB000, completed=1, failed=2), part())
    assert ledger.unnamed == 2
    ledger.compare(["1", "2", "3", "4"])
    assert (list(ledger.missing), ledger.unnamed) == (["2", "3", "4"], 0)
