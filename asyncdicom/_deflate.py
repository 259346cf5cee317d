"""Inflate and deflate data sets (PS3.5 A.5), never further than the limits allow.

Deflate can make a thousand bytes out of one, so a few KiB of a peer could fill the memory. Zeros in an image do
compress well, so the ratio alone proves nothing: it counts only once a data set is large.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from .exceptions import DataSetError

__all__ = ["DEFAULT_LIMITS", "DataSetLimits", "deflate", "deflated", "inflate", "inflate_head", "inflated"]

#: A deflated data set may inflate to this many bytes whatever its ratio.
_FREELY = 16 << 20

#: How many bytes of a deflated data set are inflated for a look at its head.
_HEAD = 1 << 20

#: Bytes that come out of the inflater at a time.
_CHUNK = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetLimits:
    """How much a data set of a peer may ask of us before it is refused.

    :ivar nesting: how deep sequences may be nested. The deepest of the standard's own go about ten levels.
    :ivar elements: how many elements there may be in all; an item counts as four. One takes about 1 KiB when decoded.
    :ivar inflated: bytes that a deflated data set may inflate to; ``None`` is no limit.
    :ivar inflate_ratio: how many times its size a deflated data set may inflate to, once that is over 16 MiB; ``None``
        is no limit. Deflate cannot do more than 1032 times; images rarely do more than 20.
    """

    nesting: int = 64
    elements: int = 500_000
    inflated: int | None = 512 << 20
    inflate_ratio: int | None = 100

    def most(self, deflated: int) -> int:
        """Return how many bytes *deflated* bytes may inflate to."""
        most = deflated * 1040 + 1024  # more than deflate can do
        if self.inflate_ratio is not None:
            most = max(_FREELY, min(most, deflated * self.inflate_ratio))
        return most if self.inflated is None else min(most, self.inflated)


DEFAULT_LIMITS = DataSetLimits()


def inflated(chunks: Iterator[bytes], limits: DataSetLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """Inflate a stream; what follows the end of the deflated data is padding.

    :raises DataSetError: from the generator: it is damaged, incomplete or inflates too much.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    consumed = produced = 0
    for chunk in chunks:
        consumed += len(chunk)
        most = limits.most(consumed)
        rest: bytes = chunk
        while not inflater.eof:
            try:
                piece = inflater.decompress(rest, _CHUNK)
            except zlib.error as exc:
                raise DataSetError(f"the deflated data set is damaged: {exc}") from None
            rest = inflater.unconsumed_tail
            produced += len(piece)
            if produced > most:
                raise DataSetError(f"the deflated data set inflates to more than {most} bytes ({consumed} read)")
            if piece:
                yield piece
            elif not rest:
                break
    if not inflater.eof:
        raise DataSetError(f"the deflated data set of {consumed} bytes is incomplete")


def inflate(data: bytes, limits: DataSetLimits = DEFAULT_LIMITS) -> bytes:
    """Inflate a whole data set.

    :raises DataSetError: it is damaged, incomplete or inflates too much.
    """
    return b"".join(inflated(iter((data,)), limits))


def inflate_head(data: bytes | memoryview, size: int = _HEAD) -> bytes:
    """Inflate at most *size* bytes of *data*, as far as they go.

    :raises DataSetError: they are damaged.
    """
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
    except zlib.error as exc:
        raise DataSetError(f"the deflated data set is damaged: {exc}") from None


def deflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Deflate a stream, padded to an even length."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    size = 0
    for chunk in chunks:
        if piece := deflater.compress(chunk):
            size += len(piece)
            yield piece
    last = deflater.flush()
    yield last + b"\0" if (size + len(last)) % 2 else last


def deflate(data: bytes) -> bytes:
    """Deflate a whole data set, padded to an even length."""
    return b"".join(deflated(iter((data,))))
