"""``kill -9`` while instances are being stored; see :mod:`.crash`."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import crash


@pytest.mark.parametrize(
    ("policy", "sync", "rounds"), [("refuse", "batch", 2), ("replace", "batch", 2), ("replace", "never", 1)]
)
def test_nothing_acknowledged_is_lost_nothing_torn_is_seen_and_nothing_is_left(
    tmp_path: Path, policy: str, sync: str, rounds: int
) -> None:
    ledger = crash.run(tmp_path / "archive", rounds, seed=1, policy=policy, sync=sync)
    assert ledger.answers >= rounds
    assert len(ledger.acknowledged) >= rounds


@pytest.mark.parametrize(("policy", "sync"), [("refuse", "batch"), ("replace", "never")])
def test_nothing_is_lost_or_torn_when_one_of_several_workers_is_killed(tmp_path: Path, policy: str, sync: str) -> None:
    ledger = crash.run(tmp_path / "archive", 1, seed=2, policy=policy, sync=sync, workers=2)
    assert ledger.answers >= 1
