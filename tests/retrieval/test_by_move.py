"""Retrieving by C-MOVE to a storage SCP of our own: which instances are ours, and what becomes of those of others."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trustme

import asyncdicom
from asyncdicom import (
    Instance,
    LocalProtocolError,
    NoPresentationContext,
    RetrieveRequest,
    Server,
    Services,
    StatusError,
    StoreRequest,
    sop,
)

from .pacs import CT, MR, Item, Pacs, item, study

pytestmark = pytest.mark.anyio

HERE = "HERE@127.0.0.1:0"


async def collect(instances: asyncdicom.Retrieval) -> dict[str, bytes]:
    """Read every instance."""
    async with instances:
        return {instance.sop_instance_uid: await instance.read() async for instance in instances}


def data_of(items: list[Item]) -> dict[str, bytes]:
    return {one.uid: one.data for one in items}


def move(pacs: Pacs, address: asyncdicom.Address, **options: Any) -> asyncdicom.Retrieval:
    """Retrieve a study by C-MOVE to a server of the retrieval's own."""
    options = {"StudyInstanceUID": "1.2.1", "listen": HERE, "via": "move", **options}
    retrieval = asyncdicom.retrieve(address, **options)
    pacs.knows("HERE", retrieval)
    return retrieval


ITEMS = [*study(2), *study(2, series=2, sop_class=MR, syntax=sop.JPEG_2000), item(9, size=300_000)]


@pytest.mark.parametrize("bare", [True, False])
async def test_what_is_asked_for_comes(bare: bool) -> None:
    pacs = Pacs([*ITEMS, *study(2, study=2)])
    async with pacs.serve() as address:
        retrieval = move(pacs, address)
        if bare:
            received = {instance.sop_instance_uid: await instance.read() async for instance in retrieval}
        else:
            received = await collect(retrieval)
        assert not pacs.server.associations
    assert received == data_of(ITEMS)
    assert (retrieval.via, retrieval.model, retrieval.received) == ("move", sop.STUDY_ROOT_MOVE, 5)
    assert retrieval.progress == asyncdicom.Progress(0, 5, 0, 0)
    assert retrieval.response is not None
    assert retrieval.response.status == 0x0000
    assert retrieval.server is not None
    assert not retrieval.server.associations
    assert [kind for kind, *_ in pacs.asked] == ["move"]


async def test_an_instance_is_like_one_of_a_c_get() -> None:
    pacs = Pacs(study(1, syntax=sop.JPEG_2000))
    async with pacs.serve() as address:
        async with move(pacs, address) as instances:
            async for instance in instances:
                assert isinstance(instance, Instance)
                assert (instance.sop_class_uid, instance.transfer_syntax_uid) == (CT, sop.JPEG_2000)
                assert not instance.bulk_data_removed
                pieces = [piece async for piece in instance.iter_data()]
                assert b"".join(pieces) == study(1)[0].data


async def test_long_lists_of_uids_are_divided() -> None:
    uids = [f"1.2.1.1.{number:055}" for number in range(1, 2001)]
    pacs = Pacs([item(number) for number in (1, 2)])
    keys = {"SeriesInstanceUID": "1.2.1.1", "SOPInstanceUID": ["1.2.1.1.1", *uids, "1.2.1.1.2"]}
    async with pacs.serve() as address:
        retrieval = move(pacs, address, **keys)
        assert await collect(retrieval) == data_of(study(2))
    assert len(retrieval.responses) == 2
    assert retrieval.progress == asyncdicom.Progress(0, 2, 0, 0)


async def test_nothing_that_matches_is_no_error() -> None:
    pacs = Pacs(ITEMS)
    async with pacs.serve() as address:
        assert await collect(move(pacs, address, StudyInstanceUID="1.2.3")) == {}


# Which way is chosen.


@pytest.mark.parametrize(
    ("gets", "moves", "options", "expected"),
    [
        (True, True, {"listen": HERE}, "get"),
        (True, True, {"listen": HERE, "via": "move"}, "move"),
        (True, True, {"listen": HERE, "model": sop.STUDY_ROOT_MOVE}, "move"),
        (True, True, {"listen": HERE, "model": sop.STUDY_ROOT_FIND}, "get"),
        (True, False, {"listen": HERE}, "get"),
        (True, True, {}, "get"),
        (False, True, {"listen": HERE}, "move"),
    ],
)
async def test_what_the_peer_supports_is_chosen_and_c_get_is_preferred(
    gets: bool, moves: bool, options: dict[str, Any], expected: str
) -> None:
    pacs = Pacs(study(), gets=gets, moves=moves)
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", **options)
        pacs.knows("HERE", retrieval)
        assert await collect(retrieval) == data_of(study())
    assert retrieval.via == expected


@pytest.mark.parametrize(
    ("gets", "moves", "options", "match"),
    [
        (False, True, {}, "C-MOVE alone"),
        (False, True, {"via": "get", "listen": HERE}, "GET.*not accepted"),
        (True, False, {"via": "move", "listen": HERE}, "MOVE.*not accepted"),
        (False, False, {"listen": HERE}, "GET.*not accepted"),
    ],
)
async def test_a_peer_that_supports_no_way_is_an_error(
    gets: bool, moves: bool, options: dict[str, Any], match: str
) -> None:
    async with Pacs(study(), gets=gets, moves=moves).serve() as address:
        with pytest.raises(NoPresentationContext, match=match):
            async with asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", **options):
                raise AssertionError


async def test_a_peer_that_accepts_nothing_for_c_get_is_asked_by_c_move() -> None:
    pacs = Pacs(study(), accepts=lambda *_: False)
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", listen=HERE)
        pacs.knows("HERE", retrieval)
        assert await collect(retrieval) == data_of(study())
    assert retrieval.via == "move"


@pytest.mark.parametrize("status", [0x0122, 0x0211])
async def test_a_peer_whose_c_get_does_not_work_is_asked_by_c_move(status: int) -> None:
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        if not request.is_move:
            yield status, None
            return
        request.total = 3
        for one in study():
            yield one.instance()

    pacs = Pacs(study(), retrieve=retrieve)
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", listen=HERE)
        pacs.knows("HERE", retrieval)
        assert await collect(retrieval) == data_of(study())
        with pytest.raises(StatusError):
            await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1"))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"via": "move"}, LocalProtocolError, "listen= or server="),
        ({"destination": "HERE"}, LocalProtocolError, "destination="),
        ({"via": "fetch"}, LocalProtocolError, "'fetch'"),
        ({"via": "get", "model": sop.STUDY_ROOT_MOVE}, LocalProtocolError, "C-MOVE class"),
        ({"model": sop.VERIFICATION}, LocalProtocolError, "no class"),
        ({"listen": HERE, "server": Server(Services())}, LocalProtocolError, "exclude"),
        ({"server": Server(Services())}, LocalProtocolError, "not running"),
        ({"listen": "nowhere"}, ValueError, "AET@HOST:PORT"),
        ({"listen": HERE, "destination": "SEVENTEEN CHARACTE"}, ValueError, "AE title"),
        ({"calling": ""}, ValueError, "AE title"),
        ({"limit": 0}, LocalProtocolError, "limit"),
        ({"level": "ROOM"}, LocalProtocolError, "ROOM"),
        ({"level": "PATIENT", "model": sop.STUDY_ROOT_GET}, LocalProtocolError, "Study Root model has no level"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_sent(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        asyncdicom.retrieve("PACS@127.0.0.1:104", StudyInstanceUID="1.2.1", **options)


async def test_an_address_that_is_taken_is_an_error_and_closes_everything() -> None:
    async with Server(Services()) as other:
        taken = f"HERE@127.0.0.1:{other.addresses[0].port}"
        async with Pacs(study(), gets=False).serve() as address:
            with pytest.raises(asyncdicom.ConnectError, match="cannot listen"):
                await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", listen=taken))


async def test_a_destination_that_the_peer_does_not_know_is_its_failure() -> None:
    async with Pacs(study(), gets=False).serve() as address:
        with pytest.raises(StatusError) as caught:
            await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", listen=HERE))
    assert caught.value.status == 0xA801


async def test_what_the_peer_has_lost_is_missing() -> None:
    pacs = Pacs([*study(2), item(3, is_gone=True)], gets=False)
    async with pacs.serve() as address:
        retrieval = move(pacs, address)
        assert await collect(retrieval) == data_of(study(2))
    assert retrieval.missing_sop_instance_uids == ["1.2.1.1.3"]
    assert retrieval.progress == asyncdicom.Progress(0, 2, 1, 0)


# Whose sub-operations they are.


OURS = object()


class Sender:
    """A peer that sends instances in a way of its own.

    :param title: the Move Originator AE Title that it names, or ``OURS``.
    :param number: the Move Originator Message ID that it names, or ``OURS``.
    :param calling: how it calls itself.
    :ivar statuses: how we answered.
    """

    def __init__(self, title: Any, number: Any, calling: str = "PACS") -> None:
        self.pacs = Pacs(study(), retrieve=self.retrieve)
        self.statuses: list[int] = []
        self._title = title
        self._number = number
        self._calling = calling

    async def retrieve(self, request: RetrieveRequest) -> AsyncIterator[Any]:
        self.pacs.note(request)
        await self.send(request)
        yield 0x0000, None

    async def send(self, request: RetrieveRequest) -> None:
        address = self.pacs.resolve(request.destination or "")
        assert address is not None
        title = request.association.peer.ae_title if self._title is OURS else self._title
        number = request.message_id if self._number is OURS else self._number
        async with asyncdicom.connect(address, calling=self._calling, contexts=[CT]) as association:
            for one in study():
                response = await association.store(one.instance(), move_originator=(title, number), check=False)
                self.statuses.append(int(response.status))


@pytest.mark.parametrize(
    ("title", "number", "calling"),
    [
        (OURS, OURS, "PACS"),
        (OURS, OURS, "OTHER"),
        ("PACS", OURS, "PACS"),
        ("", OURS, "PACS"),
        (None, OURS, "OTHER"),
        (OURS, None, "OTHER"),
        (None, None, "PACS"),
        (None, None, "OTHER"),
    ],
)
async def test_peers_that_name_the_originator_badly_or_not_at_all_are_understood(
    title: Any, number: Any, calling: str
) -> None:
    sender = Sender(title, number, calling)
    async with sender.pacs.serve() as address:
        assert await collect(move(sender.pacs, address)) == data_of(study())
    assert sender.statuses == [0x0000] * 3


@pytest.mark.parametrize(("title", "number"), [(OURS, 4), ("STRANGER", OURS), ("STRANGER", None), (None, 4)])
async def test_what_belongs_to_others_is_refused(title: Any, number: Any) -> None:
    sender = Sender(title, number)
    async with sender.pacs.serve() as address:
        assert await collect(move(sender.pacs, address)) == {}
    assert sender.statuses == [0x0124] * 3


async def test_a_uid_that_is_none_never_reaches_the_loop() -> None:
    bad = Instance.from_bytes(study()[0].data, CT, "../../etc", sop.EXPLICIT_VR_LITTLE_ENDIAN)

    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        request.total = 2
        yield bad
        yield study()[1].instance()

    pacs = Pacs(study(), retrieve=retrieve)
    async with pacs.serve() as address:
        retrieval = move(pacs, address)
        assert await collect(retrieval) == data_of(study()[1:2])
    assert retrieval.progress.failed == 1


# A server that is running is used by others, too.


class Shared:
    """A server that stores what others send."""

    def __init__(self, *, stores: bool = True) -> None:
        self.services = Services()
        self.stored: list[str] = []
        if stores:
            self.services.store(CT)(self._store)

    async def _store(self, request: StoreRequest) -> None:
        self.stored.append(request.sop_instance_uid)


def through(pacs: Pacs, address: asyncdicom.Address, server: Server, **options: Any) -> asyncdicom.Retrieval:
    options = {"StudyInstanceUID": "1.2.1", "via": "move", **options}
    retrieval = asyncdicom.retrieve(address, server=server, **options)
    pacs.knows(options.get("destination", "SHARED"), retrieval)
    return retrieval


@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize("options", [{}, {"destination": "ALIAS"}])
async def test_a_running_server_receives_for_a_retrieval(stores: bool, options: dict[str, Any]) -> None:
    shared = Shared(stores=stores)
    pacs = Pacs(ITEMS)
    async with pacs.serve() as address, Server(shared.services, "SHARED@127.0.0.1:0", drain=0) as server:
        retrieval = through(pacs, address, server, **options)
        assert await collect(retrieval) == data_of(ITEMS)
        assert retrieval.server is server
        assert server.addresses
        assert not shared.services.claims
    assert shared.stored == []


async def test_it_goes_on_storing_what_others_send() -> None:
    shared = Shared()
    pacs = Pacs(study())
    async with pacs.serve() as address, Server(shared.services, "SHARED@127.0.0.1:0", drain=0) as server:
        async with through(pacs, address, server) as instances:
            received = [(await anext(instances)).sop_instance_uid]
            async with asyncdicom.connect(server.addresses[0], calling="MODALITY", contexts=[CT]) as association:
                await association.store(item(77).instance())
                await association.store(item(78).instance(), move_originator=("STRANGER", 1))
            received += [instance.sop_instance_uid async for instance in instances]
    assert sorted(received) == list(pacs.items)
    assert shared.stored == ["1.2.1.1.77", "1.2.1.1.78"]


@pytest.mark.parametrize(
    ("title", "number", "calling", "expected"),
    [
        (None, None, "PACS", "retrieved"),
        (None, OURS, "OTHER", "retrieved"),
        (None, None, "OTHER", "stored"),
        (None, 4, "PACS", "stored"),
    ],
)
async def test_on_it_an_unnamed_origin_is_that_of_whom_was_asked(
    title: Any, number: Any, calling: str, expected: str
) -> None:
    shared = Shared()
    sender = Sender(title, number, calling)
    async with sender.pacs.serve() as address, Server(shared.services, "SHARED@127.0.0.1:0", drain=0) as server:
        received = await collect(through(sender.pacs, address, server))
    assert sender.statuses == [0x0000] * 3
    assert (len(received), len(shared.stored)) == ((3, 0) if expected == "retrieved" else (0, 3))


async def test_retrievals_at_once_get_what_is_theirs() -> None:
    shared = Shared()
    first, second = Pacs(study()), Pacs(study(2, study=2))
    received: dict[str, dict[str, bytes]] = {}

    async def one(pacs: Pacs, address: asyncdicom.Address, uid: str) -> None:
        received[uid] = await collect(through(pacs, address, server, StudyInstanceUID=uid))

    async with first.serve() as one_address, second.serve() as other_address:
        async with Server(shared.services, "SHARED@127.0.0.1:0", drain=0) as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one, first, one_address, "1.2.1")
                tasks.start_soon(one, second, other_address, "1.2.2")
            assert not shared.services.claims
    assert received == {"1.2.1": data_of(study()), "1.2.2": data_of(study(2, study=2))}


class Patient(Sender):
    """A peer that sends when it is told to."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self.asked = anyio.Event()
        self.go = anyio.Event()

    async def send(self, request: RetrieveRequest) -> None:
        self.asked.set()
        await self.go.wait()
        await super().send(request)


async def test_with_two_outstanding_an_unnamed_origin_is_nobodys() -> None:
    shared = Shared()
    first, second = Patient(), Patient()
    received: list[dict[str, bytes]] = []

    async def one(sender: Patient, address: asyncdicom.Address) -> None:
        received.append(await collect(through(sender.pacs, address, server)))

    async with first.pacs.serve() as one_address, second.pacs.serve() as other_address:
        async with Server(shared.services, "SHARED@127.0.0.1:0", drain=0) as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one, first, one_address)
                tasks.start_soon(one, second, other_address)
                await first.asked.wait()
                await second.asked.wait()
                first.go.set()
                while len(first.statuses) < 3:
                    await anyio.lowlevel.checkpoint()
                second.go.set()
    assert len(received) == 2
    assert len(shared.stored) >= 3


async def test_connections_may_be_secured_in_both_directions() -> None:
    authority = trustme.CA()
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client_tls = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    pacs = Pacs(study())
    async with pacs.serve(ssl=server_tls, peer_ssl=client_tls) as address:
        assert await collect(move(pacs, address, ssl=client_tls, listen_ssl=server_tls)) == data_of(study())
        assert await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", ssl=client_tls)) == data_of(study())
        with pytest.raises(asyncdicom.ConnectError):
            await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", ssl=ssl.create_default_context()))


# Failures on the way.


class Breaking(Sender):
    """A peer that aborts in the middle of its first sub-operation."""

    def __init__(self) -> None:
        super().__init__(OURS, OURS)
        self.reading = anyio.Event()

    async def send(self, request: RetrieveRequest) -> None:
        address = self.pacs.resolve(request.destination or "")
        assert address is not None
        origin = (request.association.peer.ae_title, request.message_id)

        async def abort() -> None:
            await self.reading.wait()
            await association.abort()

        async with asyncdicom.connect(address, contexts=[CT]) as association:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(abort)
                with pytest.raises(asyncdicom.AssociationError):
                    await association.store(item(5, size=50_000_000).instance(), move_originator=origin)
        await super().send(request)


async def test_a_sub_operation_that_breaks_off_is_an_error_of_that_instance_only() -> None:
    sender = Breaking()
    received = []
    async with sender.pacs.serve() as address:
        async with move(sender.pacs, address) as instances:
            async for instance in instances:
                try:
                    async for _ in instance.iter_data():
                        sender.reading.set()
                except asyncdicom.AssociationError:
                    received.append("broken")
                else:
                    received.append(instance.sop_instance_uid)
    assert received == ["broken", *(one.uid for one in study())]


async def test_an_abort_of_the_peer_ends_it() -> None:
    async def before(request: RetrieveRequest) -> None:
        await request.association.abort()

    pacs = Pacs(study(), before=before)
    async with pacs.serve() as address:
        retrieval = move(pacs, address)
        with pytest.raises(asyncdicom.AssociationAborted):
            await collect(retrieval)
    assert retrieval.server is not None
    assert not retrieval.server.associations


async def test_a_peer_that_says_nothing_for_too_long_is_given_up() -> None:
    async def before(request: RetrieveRequest) -> None:
        await anyio.sleep_forever()

    pacs = Pacs(study(), before=before)
    async with pacs.serve() as address:
        retrieval = move(pacs, address, timeouts=asyncdicom.Timeouts(retrieve=0.05, cancel=0.05))
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await collect(retrieval)
    assert caught.value.kind == "retrieve"
