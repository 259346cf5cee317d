"""An archive that the commands talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..interop.material import Archive, study
from .program import serving


@pytest.fixture
def archive() -> Archive:
    """Give an archive with two patients, several studies, 31 CR, CT and MR instances."""
    return Archive(study())


@pytest.fixture
def address(archive: Archive) -> Iterator[str]:
    """Serve the archive; gives its address."""
    with serving(archive.services()) as (address, _):
        yield str(address)
