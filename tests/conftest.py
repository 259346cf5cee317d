"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pydicom
import pytest

#: The real DICOM files that ship inside pydicom; its own helper functions would reach for the network.
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run two workers on each processor: a third of the time is spent waiting for deadlines of hostile peers."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the collected tests, a million objects, out of the way of the garbage collector."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run an async test once on each backend."""
    return str(request.param)


@pytest.fixture(scope="session")
def test_files() -> Path:
    """Give the folder of pydicom's own DICOM files."""
    return TEST_FILES
