"""The fuzz targets hold for their seeds, and for what Hypothesis makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .fuzz.corpus import seeds
from .fuzz.targets import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_holds_for_its_seeds_and_their_parts(name: str) -> None:
    count = 0
    for seed in seeds(name):
        for end in range(len(seed) + 1):
            TARGETS[name](seed[:end])
            count += 1
    assert count > 10


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(data=st.data())
def test_a_target_holds_for_damaged_seeds(name: str, data: st.DataObject) -> None:
    seed = bytearray(data.draw(st.sampled_from(list(seeds(name)))))
    for _ in range(data.draw(st.integers(0, 4))):
        seed[data.draw(st.integers(0, len(seed) - 1))] = data.draw(st.integers(0, 255))
    TARGETS[name](bytes(seed) + data.draw(st.binary(max_size=16)))
