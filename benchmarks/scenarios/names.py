"""Names of contenders that several scenarios share: who asks → who answers."""

from __future__ import annotations

__all__ = [
    "DCMTK",
    "DCMTK_LONG",
    "DCMTK_STOCK",
    "DCMTK_TLS",
    "FROM_DCMTK",
    "FROM_PYNETDICOM",
    "OURS",
    "OURS_ASYNCIO",
    "OURS_TLS",
    "OURS_TRIO",
    "PLAIN",
    "PYNETDICOM",
    "TO_DCMTK",
    "TO_PYNETDICOM",
]

#: Both sides ours, on uvloop where it is installed.
OURS = "asyncdicom → asyncdicom"
OURS_ASYNCIO = "asyncdicom → asyncdicom (asyncio)"
OURS_TRIO = "asyncdicom → asyncdicom (trio)"
OURS_TLS = "asyncdicom → asyncdicom (TLS)"
#: DCMTK without Nagle's algorithm, by ``TCP_NODELAY=1``.
DCMTK = "DCMTK → DCMTK"
DCMTK_LONG = "DCMTK → DCMTK (128 KiB PDUs)"
DCMTK_STOCK = "DCMTK → DCMTK (stock)"
DCMTK_TLS = "DCMTK → DCMTK (TLS)"
TO_DCMTK = "asyncdicom → DCMTK"
FROM_DCMTK = "DCMTK → asyncdicom"
PYNETDICOM = "pynetdicom → pynetdicom"
TO_PYNETDICOM = "asyncdicom → pynetdicom"
FROM_PYNETDICOM = "pynetdicom → asyncdicom"
PLAIN = "plain socket"
