"""Instrumentation: who listens gets each event, and no listener can harm what it listens to."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import asyncdicom
from asyncdicom import instrument, sop

from .harness import CONTEXTS, VERIFICATION_ID, request_elements, served

OPENED = instrument.AssociationOpened(
    association=1, requestor=True, peer_ae_title="PEER", peer_address=("127.0.0.1", 104), contexts=2
)
REJECTED = instrument.AssociationRejected(result=1, source=1, reason=7, peer_address=None)
ENDED = instrument.AssociationEnded(association=1, requestor=True, how="released", seconds=0.5)
DONE = instrument.OperationDone(
    association=1, operation="C-ECHO", sop_class_uid=sop.VERIFICATION, status=0, responses=0, seconds=0.5
)
EVENTS: list[instrument.Event] = [OPENED, REJECTED, ENDED, DONE]


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nobody listen but who subscribes in the test."""
    monkeypatch.setattr(instrument, "_listeners", {})
    yield
    assert not instrument.enabled()


def test_who_subscribes_gets_each_event_until_it_ends_that() -> None:
    seen: list[instrument.Event] = []
    assert not instrument.enabled()
    unsubscribe = instrument.subscribe(seen.append)
    assert instrument.enabled()
    for event in EVENTS:
        instrument.emit(event)
    unsubscribe()
    instrument.emit(OPENED)
    assert seen == EVENTS


def test_ending_a_subscription_twice_is_harmless() -> None:
    unsubscribe = instrument.subscribe(print)
    unsubscribe()
    unsubscribe()


def test_listeners_are_called_in_their_order_and_end_one_by_one() -> None:
    seen: list[str] = []
    first = instrument.subscribe(lambda event: seen.append("first"))
    second = instrument.subscribe(lambda event: seen.append("second"))
    instrument.emit(OPENED)
    first()
    instrument.emit(OPENED)
    second()
    assert seen == ["first", "second", "second"]


def test_who_subscribes_twice_ends_each_subscription_by_itself() -> None:
    seen: list[instrument.Event] = []
    first, second = instrument.subscribe(seen.append), instrument.subscribe(seen.append)
    instrument.emit(OPENED)
    first()
    first()
    instrument.emit(ENDED)
    second()
    assert seen == [OPENED, OPENED, ENDED]


def test_a_listener_may_end_its_subscription_while_it_is_called() -> None:
    seen: list[str] = []

    def once(event: instrument.Event) -> None:
        seen.append("once")
        unsubscribe()

    unsubscribe = instrument.subscribe(once)
    other = instrument.subscribe(lambda event: seen.append("other"))
    instrument.emit(OPENED)
    instrument.emit(OPENED)
    other()
    assert seen == ["once", "other", "other"]


def test_the_error_of_a_listener_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: instrument.Event) -> None:
        raise ValueError("no")

    seen: list[instrument.Event] = []
    ends = [instrument.subscribe(fail), instrument.subscribe(seen.append)]
    with caplog.at_level(logging.ERROR, "asyncdicom.instrument"):
        instrument.emit(OPENED)
    for end in ends:
        end()
    assert seen == [OPENED]
    (record,) = caplog.records
    assert record.name == "asyncdicom.instrument"
    assert record.exc_info is not None


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_values(event: Any) -> None:
    assert event == dataclasses.replace(event)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, 2)


@pytest.mark.anyio
async def test_an_association_of_a_server_is_told_from_its_beginning_to_its_end() -> None:
    seen: list[Any] = []
    unsubscribe = instrument.subscribe(seen.append)
    async with served(asyncdicom.Services()) as peer:
        await peer.send_message(VERIFICATION_ID, request_elements(0x0030, 7, sop.VERIFICATION))
        await peer.expect_message(0x8030)
        await peer.release()
    unsubscribe()
    opened, done, ended = seen
    assert (type(opened), type(done), type(ended)) == (type(OPENED), type(DONE), type(ENDED))
    assert opened.association == done.association == ended.association
    assert (opened.requestor, ended.requestor) == (False, False)
    assert 1 <= opened.contexts <= len(CONTEXTS)
    assert (done.operation, done.sop_class_uid, done.status, done.responses) == ("C-ECHO", sop.VERIFICATION, 0, 0)
    assert ended.how == "released"
    assert 0 <= done.seconds <= ended.seconds
