"""Hundreds of connections that say nothing, or half of what they should, against an archive with its usual deadlines."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from ..interop.conftest import Certificates
from .crowd import half_handshakes, half_open
from .process import archive_process

pytest.importorskip("sqlalchemy")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_a_crowd_keeps_nobody_out(tmp_path: Path, certificates: Certificates, kind: str, loop: str) -> None:
    tls = certificates if kind == "tls" else None
    with archive_process(tmp_path / "archive", certificates=tls, loop=loop) as archive:
        with archive.unharmed("a crowd", None), ExitStack() as held:
            held.callback(half_open(archive, 500))
            if tls is not None:
                held.callback(half_handshakes(archive, tls, 200))
            for _ in range(5):
                archive.echo()
            # All who came before were accepted, and are held.
            assert archive.figures()["descriptors"] >= (500 if tls is None else 700)
