"""Metrics for Prometheus (extra ``prometheus``): ``unsubscribe = export()``, then serve the registry as you like.

No label holds anything that a peer can choose: operations and kinds of ends are closed sets, statuses are told by category.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from .. import Status, instrument

__all__ = ["export"]


def export(registry: CollectorRegistry = REGISTRY) -> Callable[[], None]:
    """Register the metrics and keep them up to date; return the function that ends that.

    - ``asyncdicom_associations``: open now;
    - ``asyncdicom_associations_opened_total``, ``asyncdicom_associations_ended_total{how}``,
      ``asyncdicom_associations_rejected_total{reason}``;
    - ``asyncdicom_operation_seconds{operation,category}``: a histogram.
    """
    now = Gauge("asyncdicom_associations", "Associations that are open", registry=registry)
    opened = Counter("asyncdicom_associations_opened", "Associations that were established", registry=registry)
    ended = Counter("asyncdicom_associations_ended", "Associations that ended", ["how"], registry=registry)
    rejected = Counter(
        "asyncdicom_associations_rejected", "Associations that were rejected", ["reason"], registry=registry
    )
    operations = Histogram(
        "asyncdicom_operation_seconds", "Operations performed as SCP", ["operation", "category"], registry=registry
    )

    def listen(event: instrument.Event) -> None:
        match event:
            case instrument.AssociationOpened():
                now.inc()
                opened.inc()
            case instrument.AssociationEnded(how=how):
                now.dec()
                ended.labels(how).inc()
            case instrument.AssociationRejected(result=result, source=source, reason=reason):
                rejected.labels(f"{result},{source},{reason}").inc()
            case instrument.OperationDone(operation=operation, status=status, seconds=seconds):
                operations.labels(operation, Status(status).category.value).observe(seconds)

    unsubscribe = instrument.subscribe(listen)
    collectors = (now, opened, ended, rejected, operations)

    def end() -> None:
        unsubscribe()
        for collector in collectors:
            registry.unregister(collector)

    return end
