"""Events become metrics and traces, with the real packages."""

from __future__ import annotations

import pytest

import asyncdicom
from asyncdicom import instrument, sop, testing

pytestmark = pytest.mark.anyio


async def _work() -> None:
    services = asyncdicom.Services()

    @services.echo()
    async def echo(request: asyncdicom.EchoRequest) -> int:
        return 0x0110 if request.message_id == 2 else 0

    async with testing.connected(services, [sop.VERIFICATION]) as assoc:
        await assoc.echo()
        assert (await assoc.echo(check=False)).status == 0x0110


async def test_listeners_get_events_until_they_unsubscribe_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    events: list[instrument.Event] = []

    def fail(event: instrument.Event) -> None:
        raise ValueError("a listener's own")

    ends = [instrument.subscribe(fail), instrument.subscribe(events.append)]
    await _work()
    for end in ends:
        end()
    assert not instrument.enabled()
    await _work()
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["AssociationOpened", "OperationDone", "OperationDone", "AssociationEnded"]
    assert isinstance(events[3], instrument.AssociationEnded)
    assert events[3].how == "released"
    assert isinstance(events[2], instrument.OperationDone)
    assert (events[2].operation, events[2].status) == ("C-ECHO", 0x0110)
    assert "a listener failed" in caplog.text


async def test_prometheus_counts_associations_and_times_operations() -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    from asyncdicom.exporters import prometheus

    registry = prometheus_client.CollectorRegistry()
    end = prometheus.export(registry)
    await _work()
    value = registry.get_sample_value
    assert value("asyncdicom_associations") == 0
    assert value("asyncdicom_associations_opened_total") == 1
    assert value("asyncdicom_associations_ended_total", {"how": "released"}) == 1
    for category in ("success", "failure"):
        assert value("asyncdicom_operation_seconds_count", {"operation": "C-ECHO", "category": category}) == 1
    end()
    assert value("asyncdicom_associations") is None
    assert not instrument.enabled()


async def test_opentelemetry_gets_a_span_per_operation() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from asyncdicom.exporters import opentelemetry

    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    end = opentelemetry.export(provider)
    await _work()
    end()
    spans = memory.get_finished_spans()
    assert [span.name for span in spans] == ["C-ECHO", "C-ECHO"]
    assert [span.status.is_ok for span in spans] == [True, False]
    assert spans[1].attributes is not None
    assert spans[1].attributes["dicom.status"] == 0x0110
