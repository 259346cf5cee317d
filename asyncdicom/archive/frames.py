"""Take frames out of multi-frame instances (PS3.4 Annex Y, Composite Instance Root Retrieve at the FRAME level).

Two functions, both synchronous and without state; :func:`extract_frames` and what it returns read files and belong in worker
threads. An identifier becomes a :class:`FrameSelection` by :func:`parse_frames`; a file and a selection become an
:class:`ExtractedInstance`, which is a list of new bytes and of ranges of the file. No pixel is decoded, and no more than a
few hundred KiB are in memory, whatever the size of the instance. What cannot be done is a :class:`FrameError`, a
:class:`~asyncdicom.StatusError` with one of the statuses 0xAA00 to 0xAA04 (PS3.4 Table Y.4-1).
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from struct import error

from pydicom.dataset import Dataset

from .. import sop
from ..dataset import StreamSource, convert, safe_uid
from ..exceptions import DataSetError, StatusError
from ..status import (
    CANNOT_CREATE_OBJECT,
    CANNOT_EXTRACT_FRAMES,
    FRAMES_NOT_FOUND,
    INVALID_FRAME_REQUEST,
    NOT_TIME_BASED,
    Status,
)
from .frame_attributes import NUMBER_OF_FRAMES, adapted, frame_times, is_tiled_full
from .frame_pixels import choose_frames
from .identifier import Attributes
from .instance_file import Data, Encoding, Level, Malformed, OpenFile, StrPath, open_data, read_root
from .segments import (
    Range,
    Segment,
    compose,
    encode_element,
    encode_item,
    encode_numbers,
    encode_sequence,
    merged,
    stream,
)

__all__ = ["ExtractedInstance", "FrameError", "FrameSelection", "extract_frames", "parse_frames"]

_SOP_INSTANCE_UID = 0x00080018
SIMPLE_FRAME_LIST, CALCULATED_FRAME_LIST, TIME_RANGE = 0x00081161, 0x00081162, 0x00081163
_KEYS = (SIMPLE_FRAME_LIST, CALCULATED_FRAME_LIST, TIME_RANGE)
_FRAME_EXTRACTION_SEQUENCE, _MULTI_FRAME_SOURCE = 0x00081164, 0x00081167
_CONTRIBUTING_EQUIPMENT_SEQUENCE = 0x0018A001

#: The second number of a sub-range that goes up to the last frame; also the largest there is (PS3.4 Y.3.2.1.2).
_LAST = 0xFFFFFFFF

#: How many frames an instance may have. Number of Frames itself goes to 2**31, so a few bytes could ask for lists of GiB.
_MOST_FRAMES = 1 << 20

#: Frames at the very limits of a Time Range are in it; decimal fractions and binary ones agree to this many seconds.
_TOLERANCE = Decimal("0.000001")


class FrameError(StatusError):
    """Frames cannot be taken out of an instance.

    :ivar status: 0xAA00 to 0xAA04.
    :ivar comment: for Error Comment (0000,0902).
    :ivar offending_elements: tags for Offending Element (0000,0901); with 0xAA04 only (PS3.4 Table Y.4-1).
    """

    def __init__(self, status: Status, comment: str, offending_elements: tuple[int, ...] = ()) -> None:
        super().__init__(status, comment, offending_elements=offending_elements)


def _invalid(comment: str, *tags: int) -> FrameError:
    return FrameError(INVALID_FRAME_REQUEST, comment, tags)


# The request


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSelection:
    """Which frames of an instance are wanted: one of three (PS3.4 Y.3.2.1).

    :ivar simple: Simple Frame List: numbers, from 1, ascending.
    :ivar calculated: Calculated Frame List: first, upper limit and increment of each sub-range.
    :ivar time_range: Time Range: start and end, both included, in seconds after Content Time.
    """

    simple: tuple[int, ...] | None = None
    calculated: tuple[tuple[int, int, int], ...] | None = None
    time_range: tuple[float, float] | None = None

    def numbers(self, total: int, times: Sequence[Decimal] | None = None) -> list[int]:
        """Return the numbers of the frames that an instance has of these, ascending.

        :param total: how many frames the instance has.
        :param times: when each comes, in seconds after Content Time, for a Time Range.
        :raises FrameError: 0xAA03, there are no *times*; 0xAA04, a sub-range that is not the last goes past *total*.
        """
        if self.simple is not None:
            return list(self.simple[: bisect_right(self.simple, total)])
        if self.calculated is not None:
            return self._calculated(self.calculated, total)
        assert self.time_range is not None
        if times is None:
            raise FrameError(NOT_TIME_BASED, "nothing in the instance tells the times of its frames")
        start, end = (Decimal(limit) for limit in self.time_range)
        start, end = start - _TOLERANCE, end + _TOLERANCE
        return [frame for frame, time in enumerate(times, 1) if start <= time <= end]

    @staticmethod
    def _calculated(triples: Sequence[tuple[int, int, int]], total: int) -> list[int]:
        # "If the first number is greater than the number of frames [...] then that sub-range shall be ignored."
        within = [triple for triple in triples if triple[0] <= total]
        if any(upper > total for _, upper, _ in within[:-1]):
            # A "value greater than the number of frames [...] may only occur in the last 3-tuple".
            raise _invalid("only the last sub-range may go past the last frame", CALCULATED_FRAME_LIST)
        numbers: list[int] = []
        for first, upper, increment in within:
            numbers.extend(range(first, min(upper, total) + 1, increment))
        return numbers

    def encode(self, encoding: Encoding) -> tuple[int, list[Segment]]:
        """Return the key as an element, and its tag."""
        if self.simple is not None:
            return SIMPLE_FRAME_LIST, encode_numbers(SIMPLE_FRAME_LIST, b"UL", "I", self.simple, encoding)
        if self.calculated is not None:
            flat = [number for triple in self.calculated for number in triple]
            return CALCULATED_FRAME_LIST, encode_numbers(CALCULATED_FRAME_LIST, b"UL", "I", flat, encoding)
        assert self.time_range is not None
        return TIME_RANGE, encode_numbers(TIME_RANGE, b"FD", "d", self.time_range, encoding)


def _values(identifier: Dataset | Attributes, tag: int) -> list[object]:
    """Return the values of a key, whichever of the two forms the identifier has."""
    try:
        # The raw values of a data set are converted when they are looked at, and may be anything.
        value = identifier[tag].value
    except Exception:
        raise _invalid("a frame range key cannot be decoded", tag) from None
    if value is None or (isinstance(value, str | bytes) and not value):
        return []
    if isinstance(value, str | bytes | Mapping):
        return [value]
    return list(value) if isinstance(value, Sequence) else [value]


def _frame_numbers(values: Sequence[object], tag: int) -> list[int]:
    numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if not numbers or len(numbers) != len(values) or not all(0 < number <= _LAST for number in numbers):
        raise _invalid("a frame list holds numbers from 1, of 32 bits", tag)
    return [int(number) for number in numbers]


def _simple(values: Sequence[object]) -> FrameSelection:
    numbers = _frame_numbers(values, SIMPLE_FRAME_LIST)
    if any(before >= after for before, after in pairwise(numbers)):
        raise _invalid("the frame numbers do not increase", SIMPLE_FRAME_LIST)
    return FrameSelection(simple=tuple(numbers))


def _calculated(values: Sequence[object]) -> FrameSelection:
    numbers = _frame_numbers(values, CALCULATED_FRAME_LIST)
    if len(numbers) % 3:
        raise _invalid("a Calculated Frame List holds 3-tuples", CALCULATED_FRAME_LIST)
    triples = tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    before = 0
    for first, upper, increment in triples:
        if before == _LAST:
            raise _invalid("only the last sub-range may end at FFFFFFFFH", CALCULATED_FRAME_LIST)
        if first > upper:
            raise _invalid("a sub-range ends before it begins", CALCULATED_FRAME_LIST)
        if first <= before:
            raise _invalid("the sub-ranges overlap or do not increase", CALCULATED_FRAME_LIST)
        before = _LAST if upper == _LAST else upper - (upper - first) % increment
    return FrameSelection(calculated=triples)


def _time_range(values: Sequence[object]) -> FrameSelection:
    limits = [
        float(value)
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]
    if len(values) != 2 or len(limits) != 2:
        raise _invalid("a Time Range holds two numbers of seconds", TIME_RANGE)
    start, end = limits
    if start > end:
        raise _invalid("the Time Range ends before it starts", TIME_RANGE)
    return FrameSelection(time_range=(start, end))


_PARSERS = {SIMPLE_FRAME_LIST: _simple, CALCULATED_FRAME_LIST: _calculated, TIME_RANGE: _time_range}


def parse_frames(identifier: Dataset | Attributes) -> FrameSelection:
    """Read which frames the identifier of a FRAME level request wants (PS3.4 Y.3.2, Y.6.1.1.3).

    :param identifier: a data set, or the attributes that the archive makes of one.
    :raises FrameError: 0xAA04: there is not exactly one of the three keys, or its value breaks the rules.
    """
    present = [tag for tag in _KEYS if tag in identifier]
    if len(present) != 1:
        raise _invalid(f"{len(present)} frame range keys, where one shall be present", *(present or _KEYS))
    tag = present[0]
    return _PARSERS[tag](_values(identifier, tag))


# The new instance


class _ExtractSource(StreamSource):
    """The data set of a new instance, to be sent."""

    def __init__(self, data: Data, chunks: Sequence[Segment], transfer_syntax: str) -> None:
        self._data = data
        pieces = stream(data, chunks)
        if sop.transfer_syntax(transfer_syntax).is_deflated:
            pieces = convert(StreamSource(pieces), sop.EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax)
        super().__init__(pieces)

    def close(self) -> None:
        """Close the file; may be called again."""
        super().close()
        self._data.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedInstance:
    """A new instance made of frames of another one.

    ``Instance(x.sop_class_uid, x.sop_instance_uid, x.transfer_syntax_uid, x.open_source)`` can be sent.

    :ivar sop_class_uid: that of the source.
    :ivar sop_instance_uid: the new one.
    :ivar transfer_syntax_uid: that of the source.
    :ivar source_sop_instance_uid: what the frames were taken out of.
    :ivar frames: their numbers in the source, from 1.
    :ivar path: of the source.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_sop_instance_uid: str
    frames: tuple[int, ...]
    path: str
    _file: OpenFile = field(repr=False)
    _segments: tuple[Segment, ...] = field(repr=False)

    def open_source(self) -> StreamSource:
        """Open the data set for reading, from its begin; to be called in a worker thread.

        :raises OSError: the file of the source cannot be read, or is no longer the one that the frames were found in.
        """
        return _ExtractSource(self._file.again(self.path), self._segments, self.transfer_syntax_uid)


def _number_of_frames(root: Level) -> int:
    text = root.text(NUMBER_OF_FRAMES)
    if not text:
        raise FrameError(CANNOT_CREATE_OBJECT, "the instance is not a multi-frame image")
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not int(text):
        raise FrameError(CANNOT_EXTRACT_FRAMES, "Number of Frames makes no sense")
    if int(text) > _MOST_FRAMES:
        raise FrameError(CANNOT_EXTRACT_FRAMES, f"the instance has more than {_MOST_FRAMES} frames")
    return int(text)


def _appended(root: Level, tag: int, make: Sequence[tuple[int, bytes, str | list[Segment]]]) -> list[Segment]:
    """Return a sequence with the items it has and a new one of these (tag, VR, text or encoded element)."""
    encoding = root.inside(tag)
    content: list[Segment] = []
    for inner, vr, value in make:
        content += encode_element(inner, vr, value, encoding) if isinstance(value, str) else value
    items: list[Sequence[Segment]] = [(Range(item.start, item.end),) for item in root.items(tag)]
    items.append(encode_item(content, encoding))
    return encode_sequence(tag, items, root.encoding, encoding)


def _extraction(root: Level, selection: FrameSelection, source: str) -> list[Segment]:
    """Add an item to the Frame Extraction Sequence (PS3.3 C.12.3)."""
    tag, key = selection.encode(root.inside(_FRAME_EXTRACTION_SEQUENCE))
    return _appended(root, _FRAME_EXTRACTION_SEQUENCE, [(tag, b"", key), (_MULTI_FRAME_SOURCE, b"UI", source)])


def _equipment(root: Level, now: datetime) -> list[Segment]:
    """Add an item to the Contributing Equipment Sequence: we are the Frame Extracting Equipment (PS3.4 Y.3.3)."""
    encoding = root.inside(_CONTRIBUTING_EQUIPMENT_SEQUENCE)
    code: list[Segment] = [
        *encode_element(0x00080100, b"SH", "109105", encoding),
        *encode_element(0x00080102, b"SH", "DCM", encoding),
        *encode_element(0x00080104, b"LO", "Frame Extracting Equipment", encoding),
    ]
    purpose = encode_sequence(0x0040A170, [encode_item(code, encoding)], encoding)
    return _appended(
        root,
        _CONTRIBUTING_EQUIPMENT_SEQUENCE,
        [
            (0x00080070, b"LO", "asyncdicom"),
            (0x00081090, b"LO", "asyncdicom archive"),
            (0x00181020, b"LO", sop.IMPLEMENTATION_VERSION_NAME),
            (0x0018A002, b"DT", f"{now:%Y%m%d%H%M%S.%f%z}"),
            (0x0018A003, b"ST", "Frames extracted for a FRAME level retrieve"),
            (0x0040A170, b"SQ", purpose),
        ],
    )


def _extract(file: OpenFile, selection: FrameSelection, new_uid: str, now: datetime) -> tuple[list[int], list[Segment]]:
    root, pixels = read_root(file.data, file.encoding)
    total = _number_of_frames(root)
    times = frame_times(root, total) if selection.time_range is not None else None
    frames = selection.numbers(total, times)
    if not frames:
        raise FrameError(FRAMES_NOT_FOUND, f"none of the frames is among the {total} of the instance")
    if pixels is None:
        raise FrameError(CANNOT_EXTRACT_FRAMES, "the instance has no pixel data")
    if is_tiled_full(root) and len(frames) < total:
        # Tiles would lose their positions, which only their numbers tell.
        raise FrameError(CANNOT_CREATE_OBJECT, "tiles of a TILED_FULL image cannot be separated")
    updates = adapted(root, frames, total)
    value, tables = choose_frames(root, pixels, frames, total, file.head.transfer_syntax_uid)
    updates.update(tables)
    updates[_SOP_INSTANCE_UID] = encode_element(_SOP_INSTANCE_UID, b"UI", new_uid, file.encoding)
    updates[_FRAME_EXTRACTION_SEQUENCE] = _extraction(root, selection, file.head.sop_instance_uid)
    updates[_CONTRIBUTING_EQUIPMENT_SEQUENCE] = _equipment(root, now)
    segments = compose(root, updates)
    if file.deflated:  # only the pixel data are read again
        segments = [b"".join(stream(file.data, segments))]
    return frames, merged([*segments, *value])


def extract_frames(
    path: StrPath, selection: FrameSelection, *, new_uid: str, now: datetime | None = None
) -> ExtractedInstance:
    """Make a new instance of frames of a multi-frame instance (PS3.4 Y.3.3). To be called in a worker thread.

    Pixel data, native or compressed, are taken as they are. All attributes that have to do with frames are fitted to the
    new ones; the Frame Extraction Sequence and the Contributing Equipment Sequence get an item.

    :param path: the file of the source.
    :param selection: which frames; see :func:`parse_frames`.
    :param new_uid: the SOP Instance UID of the new instance.
    :param now: for Contribution DateTime, with its time zone; by default the time of the call.
    :raises FrameError: 0xAA00, none of the frames is there; 0xAA01, it is not a multi-frame image, or one whose frames
        cannot stand for themselves; 0xAA02, the frames cannot be found in its pixel data, or the file is damaged; 0xAA03, a
        Time Range, and the frames have no times; 0xAA04, a sub-range goes past the last frame and is not the last.
    :raises OSError: the file cannot be read.
    :raises ValueError: *new_uid* is no UID.
    """
    if not safe_uid(new_uid):
        raise ValueError(f"{new_uid!r} is no UID")
    try:
        file = open_data(path)
        try:
            frames, segments = _extract(file, selection, new_uid, now or datetime.now(UTC))
        finally:
            file.data.close()
    except Malformed as exc:
        raise FrameError(CANNOT_EXTRACT_FRAMES, str(exc)) from exc
    except (DataSetError, error) as exc:  # their messages tell of our files
        raise FrameError(CANNOT_EXTRACT_FRAMES, "the stored instance is damaged") from exc
    return ExtractedInstance(
        sop_class_uid=file.head.sop_class_uid,
        sop_instance_uid=new_uid,
        transfer_syntax_uid=file.head.transfer_syntax_uid,
        source_sop_instance_uid=file.head.sop_instance_uid,
        frames=tuple(frames),
        path=os.fspath(path),
        _file=file,
        _segments=tuple(segments),
    )
