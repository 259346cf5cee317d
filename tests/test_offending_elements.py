"""Offending Element, Error Comment and Error ID (PS3.7 C.5) reach the wire, however a handler gives them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from struct import pack
from typing import Any

import pytest
from pydicom import Dataset

import asyncdicom
from asyncdicom import Response, Services, StatusError, sop
from asyncdicom.testing import connected

from .harness import C_FIND_RQ, C_FIND_RSP, ct_instance, identifier, request_elements, served

pytestmark = pytest.mark.anyio

LEVEL, STUDY = 0x00080052, 0x0020000D
CONTEXTS = [sop.STUDY_ROOT_FIND, sop.STUDY_ROOT_GET, sop.STUDY_ROOT_MOVE, sop.CT_IMAGE_STORAGE]
#: A status for each operation, and how it is asked for.
OPERATIONS: dict[str, tuple[int, Callable[[asyncdicom.Association], Any]]] = {
    "find": (0xA900, lambda assoc: assoc.find(PatientID="1", check=False)),
    "get": (0xAA04, lambda assoc: assoc.get(PatientID="1", check=False)),
    "move": (0xAA04, lambda assoc: assoc.move(PatientID="1", destination="DEST", check=False)),
    "store": (0xA900, lambda assoc: assoc.store(ct_instance(), check=False)),
}


def status_data_set(status: int, offending: int | list[int] | None, error_id: int | None = None) -> Dataset:
    found = Dataset()
    found.Status = status
    found.ErrorComment = "what is wrong"
    if offending is not None:
        found.OffendingElement = offending
    if error_id is not None:
        found.ErrorID = error_id
    return found


def serving(verb: str, handler: Callable[..., Any]) -> Services:
    """Serve an operation by a handler."""
    services = Services()
    classes = {"find": sop.STUDY_ROOT_FIND, "get": sop.STUDY_ROOT_GET, "move": sop.STUDY_ROOT_MOVE, "store": "*"}
    getattr(services, verb)(classes[verb])(handler)
    return services


async def answered(verb: str, handler: Callable[..., Any]) -> Response:
    """Return the final response to an operation that a handler performs."""
    peers = {"DEST": "DEST@127.0.0.1:9"}
    async with connected(serving(verb, handler), CONTEXTS, server_options={"peers": peers}) as assoc:
        asked = OPERATIONS[verb][1](assoc)
        if verb == "store":
            response = await asked
        else:
            assert [item async for item in asked] == []
            response = asked.response
    assert isinstance(response, Response)
    return response


@pytest.mark.parametrize("offending", [LEVEL, [LEVEL, STUDY], None], ids=["one", "two", "none"])
@pytest.mark.parametrize("verb", OPERATIONS)
async def test_those_of_a_status_data_set_are_sent(verb: str, offending: int | list[int] | None) -> None:
    status = OPERATIONS[verb][0]

    async def store(request: Any) -> Dataset:
        return status_data_set(status, offending, 7)

    async def several(request: Any) -> AsyncIterator[Any]:
        yield status_data_set(status, offending, 7), None

    response = await answered(verb, store if verb == "store" else several)
    assert (response.status, response.error_comment, response.error_id) == (status, "what is wrong", 7)
    expected = () if offending is None else (offending,) if isinstance(offending, int) else tuple(offending)
    assert response.offending_element == expected
    assert response.data_set_bytes is None


@pytest.mark.parametrize("verb", OPERATIONS)
async def test_those_of_an_error_are_sent(verb: str) -> None:
    status = OPERATIONS[verb][0]

    async def store(request: Any) -> None:
        raise StatusError(status, "what is wrong", offending_elements=[LEVEL, STUDY])

    async def several(request: Any) -> AsyncIterator[Any]:
        raise StatusError(status, "what is wrong", offending_elements=iter([LEVEL, STUDY]))
        yield

    response = await answered(verb, store if verb == "store" else several)
    assert (response.status, response.error_comment) == (status, "what is wrong")
    assert response.offending_element == (LEVEL, STUDY)


async def test_those_of_a_pending_status_go_with_the_match() -> None:
    match = Dataset()
    match.PatientID = "1"

    def find(request: asyncdicom.FindRequest) -> Iterator[Any]:
        yield status_data_set(0xFF01, STUDY), match

    async with served(serving("find", find), sop.STUDY_ROOT_FIND) as peer:
        await peer.send_message(1, request_elements(C_FIND_RQ, 5, sop.STUDY_ROOT_FIND), identifier())
        pending, last = await peer.expect_message(C_FIND_RSP), await peer.expect_message(C_FIND_RSP)
        await peer.release()
    assert (pending.status, pending.text(0x00000902)) == (0xFF01, "what is wrong")
    assert pending.command[0x00000901] == pack("<HH", STUDY >> 16, STUDY & 0xFFFF)
    assert last.status == 0
    assert not {0x00000901, 0x00000902} & set(last.command)


async def test_whoever_asked_finds_them_in_the_error() -> None:
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[Any]:
        yield status_data_set(0xA900, [LEVEL]), None

    async with connected(serving("find", find), CONTEXTS) as assoc:
        with pytest.raises(StatusError, match="what is wrong") as caught:
            await anext(assoc.find(PatientID="1"))
    assert caught.value.offending_elements == (LEVEL,)
