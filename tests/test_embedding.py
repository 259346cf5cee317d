"""In plain asyncio programs: their timeouts, task groups, fixtures, threads and signals, over real connections."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
import pytest_asyncio

import asyncdicom
from asyncdicom import sop

from .harness import ct_instance, identifier

CONTEXTS = [sop.VERIFICATION, sop.STUDY_ROOT_FIND, sop.STUDY_ROOT_GET, sop.CT_IMAGE_STORAGE]


@dataclass
class Archive:
    """Services, and what they saw."""

    services: asyncdicom.Services = field(default_factory=asyncdicom.Services)
    stored: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)


def make_archive() -> Archive:
    """Make services with an endless C-FIND for the patient ID "endless", and three matches for any other."""
    archive = Archive()

    @archive.services.store(sop.CT_IMAGE_STORAGE)
    async def store(request: asyncdicom.StoreRequest) -> None:
        await request.discard()
        archive.stored.append(request.sop_instance_uid)

    @archive.services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        try:
            for number in range(3):
                yield identifier(str(number))
            if request.identifier.PatientID == "endless":
                await asyncio.Event().wait()
        finally:
            archive.ended.append(request.identifier.PatientID)

    @archive.services.get(sop.STUDY_ROOT_GET)
    async def get(request: asyncdicom.RetrieveRequest) -> AsyncIterator[object]:
        request.total = 3
        for number in range(3):
            yield ct_instance(50_000, f"1.2.{number}")

    return archive


@pytest.fixture
def archive() -> Archive:
    return make_archive()


@pytest_asyncio.fixture
async def server(archive: Archive) -> AsyncIterator[asyncdicom.Server]:
    """A server that is entered and left in different tasks."""
    async with asyncdicom.Server(archive.services, "ARCHIVE@127.0.0.1:0", drain=0.2) as server:
        yield server


@pytest_asyncio.fixture
async def assoc(server: asyncdicom.Server) -> AsyncIterator[asyncdicom.Association]:
    """An association that is entered and left in different tasks."""
    async with asyncdicom.connect(server.addresses[0], contexts=CONTEXTS, async_operations=(8, 8)) as association:
        yield association


@pytest.mark.asyncio
async def test_fixtures_may_hold_associations_and_servers(assoc: asyncdicom.Association) -> None:
    assert (await assoc.echo()).status == 0
    assert [match.PatientID async for match in assoc.find(PatientID="")] == ["0", "1", "2"]
    assert [len(await instance.read()) > 50_000 async for instance in assoc.get(PatientID="")] == [True] * 3


@pytest.mark.asyncio
async def test_a_fixture_may_be_left_with_an_operation_open(assoc: asyncdicom.Association) -> None:
    matches = assoc.find(PatientID="endless")
    assert (await anext(matches)).PatientID == "0"


@pytest.mark.asyncio
async def test_a_timeout_around_a_loop_cancels_it(assoc: asyncdicom.Association, archive: Archive) -> None:
    found = []
    with pytest.raises(TimeoutError) as caught:  # noqa: PT012
        async with asyncio.timeout(None) as timeout:
            async for match in assoc.find(PatientID="endless"):
                found.append(match.PatientID)
                if len(found) == 3:
                    timeout.reschedule(asyncio.get_running_loop().time() + 0.05)
    assert not isinstance(caught.value, asyncdicom.DicomNetworkError)
    assert found == ["0", "1", "2"]
    assert archive.ended == ["endless"]
    assert (await assoc.echo()).status == 0


@pytest.mark.asyncio
async def test_wait_for_cancels_a_verb_and_leaves_the_association(assoc: asyncdicom.Association) -> None:
    async def endless() -> int:
        return len([match async for match in assoc.find(PatientID="endless")])

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(endless(), 0.05)
    assert (await asyncio.wait_for(assoc.echo(), 10)).status == 0


@pytest.mark.asyncio
async def test_a_task_group_stores_at_the_same_time(assoc: asyncdicom.Association, archive: Archive) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(assoc.store(ct_instance(100_000, f"1.2.{number}")))
    assert sorted(archive.stored) == sorted(f"1.2.{number}" for number in range(20))


@pytest.mark.asyncio
async def test_gather_runs_verbs_at_the_same_time(assoc: asyncdicom.Association) -> None:
    responses = await asyncio.gather(*(assoc.echo() for _ in range(20)))
    assert {int(response.status) for response in responses} == {0}
    assert len({response.message_id for response in responses}) == 20


@pytest.mark.asyncio
async def test_a_task_group_whose_sibling_fails_cancels_its_operations(
    assoc: asyncdicom.Association, archive: Archive
) -> None:
    started = asyncio.Event()

    async def endless() -> None:
        async with assoc.find(PatientID="endless") as matches:
            async for _ in matches:
                started.set()

    async def fail() -> None:
        await started.wait()
        raise ValueError("a sibling failed")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(endless())
            tasks.create_task(fail())
    assert [str(exc) for exc in caught.value.exceptions] == ["a sibling failed"]
    assert archive.ended == ["endless"]
    assert (await assoc.echo()).status == 0


class ProgramError(Exception):
    """Of the user's program."""


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [ProgramError, asyncio.CancelledError, KeyError])
async def test_an_exception_of_the_program_arrives_as_it_is(archive: Archive, error: type[BaseException]) -> None:
    raised = error("of the program")
    with pytest.raises(error) as caught:  # noqa: PT012
        async with asyncdicom.Server(archive.services, "ARCHIVE@127.0.0.1:0") as server:
            async with asyncdicom.connect(server.addresses[0], contexts=CONTEXTS) as assoc:
                async with assoc.find(PatientID="endless") as matches:
                    async for _ in matches:
                        raise raised
    assert caught.value is raised
    assert archive.ended == ["endless"]


@pytest.mark.asyncio
async def test_a_server_and_a_client_are_entered_and_left_in_different_tasks(archive: Archive) -> None:
    server = asyncdicom.Server(archive.services, "ARCHIVE@127.0.0.1:0")
    await asyncio.create_task(server.__aenter__())
    client = asyncdicom.connect(server.addresses[0], contexts=CONTEXTS)
    assoc = await asyncio.create_task(client.__aenter__())
    assert (await asyncio.create_task(assoc.echo())).status == 0
    await asyncio.create_task(client.__aexit__(None, None, None))
    await asyncio.create_task(server.__aexit__(None, None, None))
    assert assoc.ended


@pytest.mark.asyncio
async def test_an_exit_stack_holds_a_server_and_its_clients(archive: Archive) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(asyncdicom.Server(archive.services, "ARCHIVE@127.0.0.1:0"))
        clients = [
            await stack.enter_async_context(asyncdicom.connect(server.addresses[0], contexts=CONTEXTS))
            for _ in range(5)
        ]
        responses = await asyncio.gather(*(client.echo() for client in clients))
        assert [int(response.status) for response in responses] == [0] * 5
        assert len(server.associations) == 5


@pytest.mark.asyncio
async def test_a_web_application_holds_a_server_for_its_lifespan(archive: Archive) -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[asyncdicom.Server]:
        async with asyncdicom.Server(archive.services, "ARCHIVE@127.0.0.1:0", drain=0.2) as server:
            yield server

    async def handle_request(server: asyncdicom.Server) -> list[str]:
        async with asyncdicom.connect(server.addresses[0], contexts=CONTEXTS) as assoc:
            return [match.PatientID async for match in assoc.find(PatientID="")]

    started: asyncio.Future[asyncdicom.Server] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    async def run_lifespan() -> None:
        async with lifespan() as server:
            started.set_result(server)
            await stop.wait()

    running = asyncio.create_task(run_lifespan())
    server = await started
    requests = [asyncio.create_task(handle_request(server)) for _ in range(5)]
    assert await asyncio.gather(*requests) == [["0", "1", "2"]] * 5
    # A client of the web application goes away in the middle of its request.
    gone = asyncio.create_task(handle_request(server))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    stop.set()
    await running


@pytest.mark.asyncio
async def test_a_thread_uses_an_association_through_its_loop(assoc: asyncdicom.Association) -> None:
    loop = asyncio.get_running_loop()

    def work() -> int:
        return int(asyncio.run_coroutine_threadsafe(assoc.echo(), loop).result(10).status)

    assert await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4))) == [0] * 4


@pytest.mark.asyncio
async def test_an_anyio_program_on_asyncio_mixes_both(assoc: asyncdicom.Association, archive: Archive) -> None:
    with anyio.move_on_after(10):
        async with asyncio.timeout(10):
            assert (await assoc.echo()).status == 0
    async with asyncio.timeout(10):
        with anyio.CancelScope() as scope:
            async for match in assoc.find(PatientID="endless"):
                if match.PatientID == "2":
                    scope.cancel()
    assert scope.cancelled_caught
    assert archive.ended == ["endless"]
    assert (await assoc.echo()).status == 0


@pytest.mark.asyncio
async def test_cancelling_again_and_again_at_once_leaves_a_known_state(server: asyncdicom.Server) -> None:
    for count in range(1, 6):
        async with asyncdicom.connect(server.addresses[0], contexts=CONTEXTS) as assoc:
            started = asyncio.Event()

            async def endless(assoc: asyncdicom.Association, started: asyncio.Event) -> None:
                async for _ in assoc.find(PatientID="endless"):
                    started.set()

            task = asyncio.create_task(endless(assoc, started))
            await started.wait()
            for _ in range(count):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            if not assoc.ended:
                assert (await assoc.echo()).status == 0
            else:
                with pytest.raises(asyncdicom.AssociationError):
                    await assoc.echo()


def test_one_association_is_used_in_several_runs_of_a_loop(archive: Archive) -> None:
    with asyncio.Runner() as runner:
        server = asyncdicom.Server(archive.services, "ARCHIVE@127.0.0.1:0")
        runner.run(server.__aenter__())
        client = asyncdicom.connect(server.addresses[0], contexts=CONTEXTS)
        assoc = runner.run(client.__aenter__())
        for _ in range(3):
            assert runner.run(assoc.echo()).status == 0
        runner.run(client.__aexit__(None, None, None))
        runner.run(server.__aexit__(None, None, None))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt, whatever the shell that runs the tests did with it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_ends_a_program_in_the_middle_of_a_query(archive: Archive, interruptible: None) -> None:
    left: list[str] = []

    async def main() -> None:
        async with asyncdicom.Server(archive.services, "ARCHIVE@127.0.0.1:0") as server:
            async with asyncdicom.connect(server.addresses[0], contexts=CONTEXTS) as assoc:
                async with assoc.find(PatientID="endless") as matches:
                    try:
                        async for match in matches:
                            if match.PatientID == "2":
                                os.kill(os.getpid(), signal.SIGINT)
                    finally:
                        left.append("loop")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert left == ["loop"]
    assert archive.ended == ["endless"]


@pytest.mark.asyncio
async def test_a_handler_may_use_asyncio_as_it_likes(tmp_path: Path) -> None:
    services = asyncdicom.Services()
    done: list[str] = []

    @services.store(sop.CT_IMAGE_STORAGE)
    async def store(request: asyncdicom.StoreRequest) -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(request.save(tmp_path / "a.dcm"))
        done.append(await asyncio.to_thread(lambda: "thread"))

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def produce() -> None:
            for number in range(3):
                await queue.put(identifier(str(number)))
            await queue.put(None)

        producer = asyncio.create_task(produce())
        try:
            async with asyncio.timeout(10):
                while (match := await queue.get()) is not None:
                    yield match
        finally:
            producer.cancel()

    async with asyncdicom.Server(services, "ARCHIVE@127.0.0.1:0") as server:
        async with asyncdicom.connect(server.addresses[0], contexts=CONTEXTS) as assoc:
            assert (await assoc.store(ct_instance(2 << 20))).status == 0
            assert [match.PatientID async for match in assoc.find(PatientID="")] == ["0", "1", "2"]
            async with assoc.find(PatientID="") as matches:
                await anext(matches)
            assert (await assoc.echo()).status == 0
    assert done == ["thread"]
    assert os.listdir(tmp_path) == ["a.dcm"]
