"""The registry of handlers: which of them performs what, and what is negotiated because of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import asyncdicom
from asyncdicom import Address, Services, sop
from asyncdicom.protocol.commands import (
    CEchoRQ,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    Message,
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
)
from asyncdicom.protocol.negotiation import Support
from asyncdicom.services.registry import call, resolve_address

PRIVATE = "1.2.826.0.1.3680043.8.498.1"
NATIVE = (
    sop.EXPLICIT_VR_LITTLE_ENDIAN,
    sop.IMPLICIT_VR_LITTLE_ENDIAN,
    sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_BIG_ENDIAN,
)


async def handler(request: Any) -> None:
    """A handler."""


async def other(request: Any) -> None:
    """Another handler."""


# Which handler performs what.

#: Decorator, a SOP class -> the messages that it is for.
DECORATORS: list[tuple[str, str, tuple[type[Message], ...]]] = [
    ("store", sop.CT_IMAGE_STORAGE, (CStoreRQ,)),
    ("find", sop.STUDY_ROOT_FIND, (CFindRQ,)),
    ("retrieve", sop.STUDY_ROOT_GET, (CGetRQ, CMoveRQ)),
    ("get", sop.STUDY_ROOT_GET, (CGetRQ,)),
    ("move", sop.STUDY_ROOT_MOVE, (CMoveRQ,)),
    ("n_event_report", sop.STORAGE_COMMITMENT_PUSH_MODEL, (NEventReportRQ,)),
    ("n_get", sop.MODALITY_PERFORMED_PROCEDURE_STEP, (NGetRQ,)),
    ("n_set", sop.MODALITY_PERFORMED_PROCEDURE_STEP, (NSetRQ,)),
    ("n_action", sop.STORAGE_COMMITMENT_PUSH_MODEL, (NActionRQ,)),
    ("n_create", sop.MODALITY_PERFORMED_PROCEDURE_STEP, (NCreateRQ,)),
    ("n_delete", PRIVATE, (NDeleteRQ,)),
]
MESSAGES = {message for _, _, messages in DECORATORS for message in messages} | {CEchoRQ}

decorators = pytest.mark.parametrize(("name", "uid", "messages"), DECORATORS, ids=[row[0] for row in DECORATORS])


@decorators
def test_a_handler_is_found_for_its_operation_and_class_alone(
    name: str, uid: str, messages: tuple[type[Message], ...]
) -> None:
    services = Services()
    assert not services.has_class(uid)
    assert getattr(services, name)(uid)(handler) is handler
    assert {message for message in MESSAGES if services.handler(message, uid) is handler} == set(messages)
    assert all(services.handler(message, "1.2.3") is None for message in MESSAGES)
    assert services.has_class(uid)
    assert not services.has_class("1.2.3")


@decorators
def test_registering_again_replaces(name: str, uid: str, messages: tuple[type[Message], ...]) -> None:
    services = Services()
    for each in (handler, other):
        getattr(services, name)(uid)(each)
    assert all(services.handler(message, uid) is other for message in messages)


@decorators
def test_one_handler_may_serve_several_classes(name: str, uid: str, messages: tuple[type[Message], ...]) -> None:
    services = Services()
    getattr(services, name)(uid, "1.2.3")(handler)
    assert all(services.handler(message, each) is handler for message in messages for each in (uid, "1.2.3"))


@decorators
@pytest.mark.parametrize("classes", [(), (handler,), (None,), (1,)])
def test_a_class_has_to_be_named(
    name: str, uid: str, messages: tuple[type[Message], ...], classes: tuple[Any, ...]
) -> None:
    with pytest.raises(asyncdicom.LocalProtocolError, match="name at least one SOP class"):
        getattr(Services(), name)(*classes)


@decorators
@pytest.mark.parametrize("wrong", [None, "handler", 1])
def test_what_cannot_be_called_is_no_handler(
    name: str, uid: str, messages: tuple[type[Message], ...], wrong: Any
) -> None:
    services = Services()
    with pytest.raises(TypeError, match="is not a handler"):
        getattr(services, name)(uid)(wrong)
    assert not services.has_class(uid)
    with pytest.raises(TypeError, match="is not a handler"):
        services.store("*")(wrong)


def test_an_echo_is_answered_also_without_a_handler() -> None:
    services = Services()
    assert services.handler(CEchoRQ, sop.VERIFICATION) is not None
    assert services.handler(CEchoRQ, sop.CT_IMAGE_STORAGE) is None
    services.echo()(handler)
    assert services.handler(CEchoRQ, sop.VERIFICATION) is handler


def test_the_handlers_of_associations_and_policies_are_kept() -> None:
    services = Services()
    assert (services.policy, services.association_handler, services.authorise) == (None, None, None)
    assert services.on_associate(handler) is handler
    assert services.on_association(handler) is handler
    assert services.on_request(handler) is handler
    assert (services.policy, services.association_handler, services.authorise) == (handler, handler, handler)


#: unknown=, SOP class -> whether a handler of "*" takes it.
ANY: list[tuple[bool, str, bool]] = [
    (False, sop.CT_IMAGE_STORAGE, True),
    (False, PRIVATE, False),
    (False, sop.VERIFICATION, False),
    (False, sop.STUDY_ROOT_FIND, False),
    (True, sop.CT_IMAGE_STORAGE, True),
    (True, PRIVATE, True),
    (True, sop.VERIFICATION, False),
    (True, sop.STUDY_ROOT_FIND, False),
]


@pytest.mark.parametrize(("unknown", "uid", "taken"), ANY)
def test_a_handler_of_any_class_takes_storage_and_if_asked_what_is_unknown(
    unknown: bool, uid: str, taken: bool
) -> None:
    services = Services()
    services.store("*", unknown=unknown)(handler)
    assert (services.handler(CStoreRQ, uid) is handler) is taken
    support = services.support(uid)
    assert (support is not None and support.prefer_proposed_order) is taken


def test_the_handler_of_a_class_goes_before_that_of_any() -> None:
    services = Services()
    services.store("*")(other)
    services.store(sop.CT_IMAGE_STORAGE)(handler)
    assert services.handler(CStoreRQ, sop.CT_IMAGE_STORAGE) is handler
    assert services.handler(CStoreRQ, sop.MR_IMAGE_STORAGE) is other


# What is negotiated because of them.

Register = Callable[[Services], object]

#: What is registered, SOP class -> what is supported for it.
SUPPORT: list[tuple[str, Register, str, Support | None]] = [
    ("nothing", lambda s: None, sop.CT_IMAGE_STORAGE, None),
    ("verification alone", lambda s: None, sop.VERIFICATION, Support(transfer_syntaxes=NATIVE)),
    (
        "a storage class with any transfer syntax",
        lambda s: s.store(sop.CT_IMAGE_STORAGE)(handler),
        sop.CT_IMAGE_STORAGE,
        Support(transfer_syntaxes=None, prefer_proposed_order=True),
    ),
    (
        "a storage class with one",
        lambda s: s.store(sop.CT_IMAGE_STORAGE, transfer_syntaxes=iter([sop.RLE_LOSSLESS]))(handler),
        sop.CT_IMAGE_STORAGE,
        Support(transfer_syntaxes=(sop.RLE_LOSSLESS,), prefer_proposed_order=True),
    ),
    ("another", lambda s: s.store(sop.CT_IMAGE_STORAGE)(handler), sop.MR_IMAGE_STORAGE, None),
    (
        "any with one",
        lambda s: s.store("*", transfer_syntaxes=[sop.RLE_LOSSLESS])(handler),
        sop.MR_IMAGE_STORAGE,
        Support(transfer_syntaxes=(sop.RLE_LOSSLESS,), prefer_proposed_order=True),
    ),
    (
        "queries",
        lambda s: s.find(sop.STUDY_ROOT_FIND)(handler),
        sop.STUDY_ROOT_FIND,
        Support(transfer_syntaxes=NATIVE),
    ),
    (
        "queries in one",
        lambda s: s.find(sop.STUDY_ROOT_FIND, transfer_syntaxes=[sop.IMPLICIT_VR_LITTLE_ENDIAN])(handler),
        sop.STUDY_ROOT_FIND,
        Support(transfer_syntaxes=(sop.IMPLICIT_VR_LITTLE_ENDIAN,)),
    ),
    (
        "moves, which need no storage",
        lambda s: s.move(sop.STUDY_ROOT_MOVE)(handler),
        sop.CT_IMAGE_STORAGE,
        None,
    ),
    (
        "gets, whose instances the requestor takes",
        lambda s: s.get(sop.STUDY_ROOT_GET)(handler),
        sop.CT_IMAGE_STORAGE,
        Support(transfer_syntaxes=None, requestor_scp=True, prefer_proposed_order=True),
    ),
    (
        "gets do not take what is no storage",
        lambda s: s.get(sop.STUDY_ROOT_GET)(handler),
        PRIVATE,
        None,
    ),
    (
        "gets and storage",
        lambda s: (s.get(sop.STUDY_ROOT_GET)(handler), s.store(sop.CT_IMAGE_STORAGE)(handler)),
        sop.CT_IMAGE_STORAGE,
        Support(transfer_syntaxes=None, requestor_scp=True, prefer_proposed_order=True),
    ),
]


@pytest.mark.parametrize(("register", "uid", "support"), [row[1:] for row in SUPPORT], ids=[row[0] for row in SUPPORT])
def test_what_is_supported_follows_from_the_handlers(register: Register, uid: str, support: Support | None) -> None:
    services = Services()
    register(services)
    assert services.support(uid) == support
    assert services.serves_get is services.has_class(sop.STUDY_ROOT_GET)


class Claimant:
    """Claims every request, or none."""

    def __init__(self, claims: Any) -> None:
        self._claims = claims

    def claim(self, request: Any) -> Any:
        return self._claims


def test_claimants_are_asked_in_turn_and_have_every_storage_class_accepted() -> None:
    services = Services()
    request: Any = object()
    assert services.claimed(request) is None
    services.claims += [Claimant(None), Claimant(handler), Claimant(other)]
    assert services.claimed(request) is handler
    support = services.support(sop.CT_IMAGE_STORAGE)
    assert support == Support(transfer_syntaxes=None, prefer_proposed_order=True)
    assert services.support(PRIVATE) is None


def test_extended_negotiation_is_answered_by_bytes_or_by_a_function() -> None:
    services = Services()
    services.extended_negotiation = {
        sop.STUDY_ROOT_FIND: b"\x01",
        sop.STUDY_ROOT_MOVE: lambda proposed: proposed[:1],
        sop.STUDY_ROOT_GET: lambda proposed: None,
    }
    proposed = {
        str(uid): b"\x01\x02" for uid in (sop.STUDY_ROOT_FIND, sop.STUDY_ROOT_MOVE, sop.STUDY_ROOT_GET, PRIVATE)
    }
    assert services.extended(proposed) == {sop.STUDY_ROOT_FIND: b"\x01", sop.STUDY_ROOT_MOVE: b"\x01"}
    assert services.extended({}) == {}


# What resolvers return.

ADDRESS = Address("PACS", "pacs", 104)


@pytest.mark.parametrize(("found", "address"), [(None, None), (ADDRESS, ADDRESS), ("PACS@pacs:104", ADDRESS)])
def test_a_resolver_returns_an_address_a_text_or_nothing(found: Any, address: Address | None) -> None:
    assert resolve_address(found) == address


@pytest.mark.parametrize("found", ["pacs", "", 104, ("pacs", 104), b"PACS@pacs:104"])
def test_what_is_no_address_is_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="not an address"):
        resolve_address(found)


@pytest.mark.anyio
async def test_a_function_may_be_async_or_not() -> None:
    async def later(value: int) -> int:
        return value + 1

    assert await call(later, 1) == 2
    assert await call(lambda value: value + 1, 1) == 2
    with pytest.raises(ZeroDivisionError):
        await call(lambda: 1 / 0)
