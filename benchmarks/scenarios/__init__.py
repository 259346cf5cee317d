"""The scenarios, in the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping

from ..bench import Scenario
from . import archive, delay, latency, many, memory, micro, query, store

__all__ = ["SCENARIOS"]

_ALL = (
    *store.SCENARIOS,
    *delay.SCENARIOS,
    *query.SCENARIOS,
    *latency.SCENARIOS,
    *many.SCENARIOS,
    *archive.SCENARIOS,
    *memory.SCENARIOS,
    *micro.SCENARIOS,
)

#: By name.
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
