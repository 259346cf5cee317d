"""Traces and metrics for OpenTelemetry (extra ``opentelemetry``): ``unsubscribe = export()``.

Each operation that was performed as SCP becomes a span and a measurement. Attributes hold nothing of a data set.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider

from .. import Status, instrument

__all__ = ["export"]


def export(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Callable[[], None]:
    """Make spans and measurements of events; return the function that ends that.

    :param tracer_provider: where spans go; the global one by default.
    :param meter_provider: where measurements go; the global one by default.
    """
    tracer = trace.get_tracer("asyncdicom", tracer_provider=tracer_provider)
    meter = metrics.get_meter("asyncdicom", meter_provider=meter_provider)
    active = meter.create_up_down_counter("asyncdicom.associations", description="associations that are open")
    rejected = meter.create_counter("asyncdicom.associations.rejected", description="associations that were rejected")
    duration = meter.create_histogram("asyncdicom.operation.duration", unit="s", description="operations as SCP")

    def listen(event: instrument.Event) -> None:
        match event:
            case instrument.AssociationOpened():
                active.add(1)
            case instrument.AssociationEnded():
                active.add(-1)
            case instrument.AssociationRejected(result=result, source=source, reason=reason):
                rejected.add(1, {"dicom.reject": f"{result},{source},{reason}"})
            case instrument.OperationDone(operation=operation, status=code, seconds=seconds):
                status = Status(code)
                attributes = {"dicom.operation": operation, "dicom.status.category": status.category.value}
                duration.record(seconds, attributes)
                end = time.time_ns()
                span = tracer.start_span(
                    operation,
                    kind=SpanKind.SERVER,
                    start_time=end - int(seconds * 1e9),
                    attributes={
                        **attributes,
                        "dicom.status": code,
                        "dicom.sop_class": event.sop_class_uid,
                        "dicom.association": event.association,
                        "dicom.responses": event.responses,
                    },
                )
                if status.is_failure:
                    span.set_status(StatusCode.ERROR)
                span.end(end)

    return instrument.subscribe(listen)
