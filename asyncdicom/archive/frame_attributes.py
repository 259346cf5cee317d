"""Fit the attributes of a multi-frame instance to some of its frames (PS3.4 Y.3.3, PS3.17 MM.2).

PS3.4 asks that the new instance be "internally consistent and valid", and else the same: Image Type, Instance Number and all
of the patient, study and series stay. So what changes is listed here, attribute by attribute, in tables and in a function
for each kind of relation that attributes have to frames. Each function returns what becomes of elements; the rest is copied
as it is. Attributes of Type 3 that may no longer be right are left out.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate, chain, pairwise

from .frame_pixels import runs_of
from .instance_file import Level, Malformed
from .matching import comparable, parse_offset
from .segments import (
    Packed,
    Range,
    Segment,
    Updates,
    compose,
    encode_element,
    encode_item,
    encode_numbers,
    encode_sequence,
)

__all__ = ["NUMBER_OF_FRAMES", "adapted", "frame_times", "is_tiled_full"]

NUMBER_OF_FRAMES = 0x00280008
_FRAME_INCREMENT_POINTER, _FRAME_DIMENSION_POINTER = 0x00280009, 0x0028000A
_PER_FRAME_FUNCTIONAL_GROUPS = 0x52009230
_DIMENSION_ORGANIZATION_TYPE = 0x00209311
_STEREO_PAIRS_PRESENT = 0x00220028

_FRAME_TIME, _FRAME_TIME_VECTOR, _FRAME_DELAY = 0x00181063, 0x00181065, 0x00181066
_IMAGE_TRIGGER_DELAY, _R_WAVE_TIME_VECTOR = 0x00181067, 0x00186060
_CONTENT_DATE, _CONTENT_TIME, _TIMEZONE_OFFSET = 0x00080023, 0x00080033, 0x00080201
_ACQUISITION_DATE, _ACQUISITION_TIME, _ACQUISITION_DATE_TIME = 0x00080022, 0x00080032, 0x0008002A
_FRAME_CONTENT, _FRAME_REFERENCE_DATE_TIME = 0x00209111, 0x00189151

#: What a new instance does not have of its source (PS3.4 Y.3.3): what says when and by whom the source was made, signed and
#: authorised; where its pixel data are; which concatenation it is part of.
_NEVER = (
    *(0x00080012, 0x00080013, 0x00080014),  # Instance Creation Date and Time, Instance Creator UID
    *(0x01000410, 0x01000420, 0x01000424, 0x01000426),  # SOP Instance Status and what authorised it
    0x4FFE0001,  # MAC Parameters Sequence
    0x00287FE0,  # Pixel Data Provider URL
    *(0x00200242, 0x00209161, 0x00209162, 0x00209163, 0x00209228),  # of a concatenation
)

#: Attributes of Type 3 about all frames together.
_NOT_OF_SOME = (
    0x00180072,  # Effective Duration
    0x00286030,  # Mask Pointers (retired)
    0x00880200,  # Icon Image Sequence: may show a frame that is not there
    0x7FE00003,  # Encapsulated Pixel Data Value Total Length
)
#: Frames per second: Cine Rate, Recommended Display Frame Rate.
_RATES = (0x00180040, 0x00082144)

#: Attributes with one value for each frame (PS3.3 C.7.6.5, C.8.4.8, C.8.6.4), and their VRs.
_VECTORS: dict[int, bytes] = {
    0x00182001: b"IS",  # Page Number Vector
    0x00182002: b"SH",  # Frame Label Vector
    0x00182003: b"DS",  # Frame Primary Angle Vector
    0x00182004: b"DS",  # Frame Secondary Angle Vector
    0x00182005: b"DS",  # Slice Location Vector
    0x00182006: b"SH",  # Display Window Label Vector
    0x00540010: b"US",  # Energy Window Vector
    0x00540020: b"US",  # Detector Vector
    0x00540030: b"US",  # Phase Vector
    0x00540050: b"US",  # Rotation Vector
    0x00540060: b"US",  # R-R Interval Vector
    0x00540070: b"US",  # Time Slot Vector
    0x00540080: b"US",  # Slice Vector
    0x00540090: b"US",  # Angular View Vector
    0x00540100: b"US",  # Time Slice Vector
}

#: Attributes with one change for each frame, or the change from each frame to the next (PS3.3 C.8.7.4, C.8.7.5.1.3); and the
#: attribute that they start from, where there is one.
_INCREMENTS: dict[int, int | None] = {
    0x00181135: None,  # Table Vertical Increment
    0x00181136: None,  # Table Lateral Increment
    0x00181137: None,  # Table Longitudinal Increment
    0x00181520: 0x00181510,  # Positioner Primary Angle Increment, Positioner Primary Angle
    0x00181521: 0x00181511,  # Positioner Secondary Angle Increment, Positioner Secondary Angle
}
#: Table Motion, Positioner Motion; "shall be STATIC" for a single frame.
_MOTIONS = (0x00181134, 0x00181500)

_GRID_FRAME_OFFSET_VECTOR, _IMAGE_POSITION, _IMAGE_ORIENTATION = 0x3004000C, 0x00200032, 0x00200037

_START_TRIM, _STOP_TRIM = 0x00082142, 0x00082143
_IVUS_START, _IVUS_STOP = 0x00183103, 0x00183104
_FRAME_DISPLAY = 0x00089458
_REPRESENTATIVE_FRAME = 0x00286010
_FRAMES_OF_INTEREST, _INTEREST_DESCRIPTION, _INTEREST_TYPE = 0x00286020, 0x00286022, 0x00286023
_R_WAVE_POINTER = 0x00286040
_MASK_SUBTRACTION, _RECOMMENDED_VIEWING_MODE = 0x00286100, 0x00281090
_MASK_OPERATION, _APPLICABLE_FRAME_RANGE = 0x00286101, 0x00286102
_MASK_FRAMES, _TID_OFFSET = 0x00286110, 0x00286120
_ACQUISITION_CONTEXT, _REFERENCED_FRAMES = 0x00400555, 0x0040A136
_EXPOSURE, _REFERENCED_FRAME = 0x30020030, 0x00081160


class _Chosen:
    """The frames that are taken, and what their numbers become.

    :ivar frames: numbers in the source, from 1, ascending.
    :ivar total: how many the source has.
    :ivar stride: the distance from each to the next; ``None`` if it varies.
    """

    def __init__(self, frames: Sequence[int], total: int) -> None:
        self.frames = frames
        self.total = total
        strides = {after - before for before, after in pairwise(frames)} or {1}
        self.stride = strides.pop() if len(strides) == 1 else None

    def new(self, frame: int) -> int | None:
        """Return the new number of a frame, ``None`` if it is not taken."""
        at = bisect_left(self.frames, frame)
        return at + 1 if at < len(self.frames) and self.frames[at] == frame else None

    def all_new(self, frames: Iterable[int]) -> list[int]:
        """Return the new numbers of those that are taken."""
        return [new for frame in frames if (new := self.new(frame)) is not None]

    def span(self, first: int, last: int) -> tuple[int, int] | None:
        """Return what is left of a range of frames, in new numbers; ``None`` if that is nothing."""
        start, stop = bisect_left(self.frames, first) + 1, bisect_right(self.frames, last)
        return (start, stop) if start <= stop else None


# Values

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")


def _decimals(level: Level, tag: int) -> list[Decimal] | None:
    """Return the values of a DS, none if it is empty or not there; ``None`` if one is no number."""
    values = []
    for text in level.texts(tag):
        if _NUMBER.fullmatch(text) is None:
            return None
        values.append(Decimal(text))
    return values


def _decimal(level: Level, tag: int) -> Decimal | None:
    values = _decimals(level, tag)
    return values[0] if values else None


def _integer(level: Level, tag: int) -> int | None:
    """Return the value of an IS, ``None`` if there is none or it is no number."""
    text = level.text(tag)
    return int(text) if re.fullmatch(r"[+-]?\d{1,12}", text) else None


def _ds(value: Decimal) -> str:
    """Write a number in the 16 characters that a DS may have (PS3.5 6.2)."""
    exact = format(value.normalize(), "f") if value else "0"
    rounded = (f"{value:.{digits}g}" for digits in range(15, 5, -1))
    return next(text for text in chain([exact], rounded) if len(text) <= 16)


def _write_ds(level: Level, tag: int, values: Iterable[Decimal]) -> list[Segment]:
    return encode_element(tag, b"DS", "\\".join(map(_ds, values)), level.encoding)


def _write_us(level: Level, tag: int, values: Sequence[int]) -> list[Segment]:
    return encode_numbers(tag, b"US", "H", values, level.encoding)


def _write_is(level: Level, tag: int, values: Iterable[int]) -> list[Segment]:
    return encode_element(tag, b"IS", "\\".join(map(str, values)), level.encoding)


#: Values between backslashes. In a character set of two bytes, the second byte may be one that is none.
_VALUES = re.compile(rb"(?:\x1b\$[()]?[@-D][^\x1b]*|[^\\])*", re.DOTALL)
_VALUES_GB = re.compile(rb"(?:[\x81-\xfe].|[^\\])*", re.DOTALL)


def _split(raw: bytes, character_set: str) -> list[bytes]:
    """Split text into its values, without padding."""
    pattern = _VALUES_GB if character_set in ("GB18030", "GBK") else _VALUES
    values = []
    position = 0
    while True:
        found = pattern.match(raw, position)
        assert found is not None
        values.append(found[0].strip(b" \0"))
        position = found.end() + 1
        if position > len(raw):
            return values


def _of_frames(level: Level, tag: int, vr: bytes, indices: Sequence[int], count: int) -> list[Segment] | None:
    """Encode the values of an element with these indices, ``None`` unless it has *count* values."""
    if vr == b"US":
        numbers = level.numbers(tag, "H")
        return _write_us(level, tag, [numbers[index] for index in indices]) if len(numbers) == count else None
    texts = _split(level.raw(tag), level.text(0x00080005))
    if len(texts) != count:
        return None
    return encode_element(tag, vr, b"\\".join(texts[index] for index in indices), level.encoding)


# Time


def _pointers(root: Level, tag: int) -> list[int]:
    """Return the tags that a Frame Increment Pointer holds."""
    numbers = root.numbers(tag, "H")
    return [group << 16 | element for group, element in zip(numbers[::2], numbers[1::2], strict=False)]


def _relative_times(root: Level, total: int) -> list[Decimal] | None:
    """Return when each frame comes, in ms after the first would without increment; ``None`` if frames do not go by time.

    What the Frame Increment Pointer points to counts (PS3.3 C.7.6.5.1.1, C.7.6.5.1.2); where there is none, what is there.
    """
    pointers = _pointers(root, _FRAME_INCREMENT_POINTER) or [_FRAME_TIME_VECTOR, _FRAME_TIME]
    if _FRAME_TIME_VECTOR in pointers:
        vector = _decimals(root, _FRAME_TIME_VECTOR)
        if vector is not None and len(vector) == total:
            return list(accumulate(vector))
    if _FRAME_TIME in pointers:
        interval = _decimal(root, _FRAME_TIME)
        if interval is not None:
            return [interval * frame for frame in range(total)]
    return None


_OFFSET = re.compile(r"[+-]\d{4}$")


def _seconds_between(text: str, start: str, timezone: int | None) -> Decimal | None:
    """Return the seconds from *start*, a DT without offset, to another DT; *timezone* holds for values without one."""
    found = _OFFSET.search(text)
    own = parse_offset(found[0]) if found is not None else None
    moment = comparable("DT", text[: found.start()] if found is not None else text)
    begin = comparable("DT", start)
    if not isinstance(moment, int) or not isinstance(begin, int):
        return None
    microseconds = moment - begin
    if own is not None and timezone is not None:
        microseconds -= (own - timezone) * 60_000_000
    return Decimal(microseconds) / 1_000_000


def _reference_times(root: Level, total: int) -> list[Decimal] | None:
    """Return the Frame Reference DateTime of each frame, in seconds after Content Time; ``None`` if one has none."""
    items = root.items(_PER_FRAME_FUNCTIONAL_GROUPS)
    date, time = root.text(_CONTENT_DATE), root.text(_CONTENT_TIME)
    if len(items) != total or comparable("DA", date) is None or comparable("TM", time) is None:
        return None
    timezone = parse_offset(root.text(_TIMEZONE_OFFSET))
    encoding = root.inside(_PER_FRAME_FUNCTIONAL_GROUPS)
    times = []
    for item in items:
        groups = root.within(item, encoding)
        content = groups.items(_FRAME_CONTENT)
        if not content:
            return None
        text = groups.within(content[0], groups.inside(_FRAME_CONTENT)).text(_FRAME_REFERENCE_DATE_TIME)
        seconds = _seconds_between(text, date + time, timezone)
        if seconds is None:
            return None
        times.append(seconds)
    return times


def frame_times(root: Level, total: int) -> list[Decimal] | None:
    """Return when each frame comes, in seconds after Content Time (PS3.4 Y.3.2.1.3); ``None`` if that cannot be told."""
    relative = _relative_times(root, total)
    if relative is None:
        return _reference_times(root, total)
    delay = _decimal(root, _FRAME_DELAY) or Decimal(0)
    return [(delay + time) / 1000 for time in relative]


def _later(root: Level, time_tag: int, date_tag: int, shift: Decimal) -> dict[int, list[Segment] | None]:
    """Move a time by *shift* milliseconds, and its date if it gets into another day."""
    time, date = comparable("TM", root.text(time_tag)), root.text(date_tag)
    if not isinstance(time, int):
        return {}
    days, microseconds = divmod(time + round(shift * 1000), 86_400_000_000)
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02}{seconds // 60 % 60:02}{seconds % 60:02}.{fraction:06}"
    updates: dict[int, list[Segment] | None] = {time_tag: encode_element(time_tag, b"TM", text, root.encoding)}
    if days and re.fullmatch(r"\d{8}", date) and comparable("DA", date) is not None:
        try:
            moved = datetime.strptime(date, "%Y%m%d") + timedelta(days=days)
        except (ValueError, OverflowError):
            return updates
        updates[date_tag] = encode_element(date_tag, b"DA", f"{moved:%Y%m%d}", root.encoding)
    return updates


def _start(root: Level, shift: Decimal) -> dict[int, list[Segment] | None]:
    """Move what refers to the time of the first frame by *shift* milliseconds (PS3.17 MM.2.2)."""
    updates = _later(root, _CONTENT_TIME, _CONTENT_DATE, shift)
    updates.update(_later(root, _ACQUISITION_TIME, _ACQUISITION_DATE, shift))
    found = re.fullmatch(r"(\d{14})(?:\.(\d{1,6}))?([+-]\d{4})?", root.text(_ACQUISITION_DATE_TIME))
    if found is not None:
        try:
            moment = datetime.strptime(found[1] + (found[2] or "").ljust(6, "0"), "%Y%m%d%H%M%S%f")
            moment += timedelta(microseconds=round(shift * 1000))
        except (ValueError, OverflowError):
            pass
        else:
            text = f"{moment:%Y%m%d%H%M%S.%f}{found[3] or ''}"
            updates[_ACQUISITION_DATE_TIME] = encode_element(_ACQUISITION_DATE_TIME, b"DT", text, root.encoding)
    delay = _decimal(root, _IMAGE_TRIGGER_DELAY)
    if delay is not None:
        updates[_IMAGE_TRIGGER_DELAY] = _write_ds(root, _IMAGE_TRIGGER_DELAY, [delay + shift])
    waves = root.floats(_R_WAVE_TIME_VECTOR)
    if waves:
        later = [wave - float(shift) for wave in waves]
        updates[_R_WAVE_TIME_VECTOR] = encode_numbers(_R_WAVE_TIME_VECTOR, b"FL", "f", later, root.encoding)
    return updates


def _timing(root: Level, chosen: _Chosen) -> Updates:
    """Keep the time between frames; where it becomes irregular, Frame Time becomes Frame Time Vector (PS3.17 MM.2.3)."""
    updates: dict[int, list[Segment] | None] = {}
    pointed = _pointers(root, _FRAME_INCREMENT_POINTER)
    vector, interval = _decimals(root, _FRAME_TIME_VECTOR), _decimal(root, _FRAME_TIME)
    times: list[Decimal] | None = None
    if _FRAME_TIME_VECTOR in root:
        times = list(accumulate(vector)) if vector and len(vector) == chosen.total else None
        if times is None and _FRAME_TIME_VECTOR in pointed:
            raise Malformed("the Frame Time Vector has not one value for each frame")
        updates[_FRAME_TIME_VECTOR] = None
    if interval is not None and chosen.stride is not None:
        updates[_FRAME_TIME] = _write_ds(root, _FRAME_TIME, [interval * chosen.stride])
    elif interval is not None:
        updates[_FRAME_TIME] = None
        if times is None and (_FRAME_TIME in pointed or not pointed):
            times = [interval * frame for frame in range(chosen.total)]
        for tag in (_FRAME_INCREMENT_POINTER, _FRAME_DIMENSION_POINTER) if times is not None else ():
            pointers = _pointers(root, tag)
            if _FRAME_TIME in pointers:
                moved = [_FRAME_TIME_VECTOR if pointer == _FRAME_TIME else pointer for pointer in pointers]
                numbers = [half for pointer in moved for half in (pointer >> 16, pointer & 0xFFFF)]
                updates[tag] = encode_numbers(tag, b"AT", "H", numbers, root.encoding)
    if times is not None:
        taken = [times[frame - 1] for frame in chosen.frames]
        increments = [Decimal(0), *(after - before for before, after in pairwise(taken))]
        updates[_FRAME_TIME_VECTOR] = _write_ds(root, _FRAME_TIME_VECTOR, increments)
    relative = _relative_times(root, chosen.total)
    if relative is not None and chosen.frames[0] != 1:
        updates.update(_start(root, relative[chosen.frames[0] - 1] - relative[0]))
    if chosen.stride != 1:
        updates.update(dict.fromkeys(_RATES))
    return updates


# One value for each frame


def _vectors(root: Level, chosen: _Chosen) -> Updates:
    updates: dict[int, list[Segment] | None] = {}
    indices = [frame - 1 for frame in chosen.frames]
    pointers = _pointers(root, _FRAME_INCREMENT_POINTER)
    for tag, vr in _VECTORS.items():
        if root.raw(tag):
            updates[tag] = _of_frames(root, tag, vr, indices, chosen.total)
            if updates[tag] is None and tag in pointers:
                raise Malformed(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) has not one value for each frame")
    return updates


def _increments(root: Level, chosen: _Chosen) -> Updates:
    """Let the new first frame be the one that movements start from."""
    updates: dict[int, list[Segment] | None] = {}
    for tag, base_tag in _INCREMENTS.items():
        values = _decimals(root, tag)
        if not values:
            continue
        if len(values) == 1:
            values = [values[0] * frame for frame in range(chosen.total)]
        if len(values) != chosen.total:
            updates[tag] = encode_element(tag, b"DS", b"", root.encoding)  # Type 2C
            continue
        base = _decimal(root, base_tag) if base_tag is not None else Decimal(0)
        start = values[chosen.frames[0] - 1] if base is not None else Decimal(0)
        if base_tag is not None and base is not None and start:
            updates[base_tag] = _write_ds(root, base_tag, [base + start])
        if len(chosen.frames) == 1:
            updates[tag] = None
        else:
            updates[tag] = _write_ds(root, tag, [values[frame - 1] - start for frame in chosen.frames])
    if len(chosen.frames) == 1:
        for tag in _MOTIONS:
            if root.text(tag):
                updates[tag] = encode_element(tag, b"CS", "STATIC", root.encoding)
    return updates


def _dose_grid(root: Level, chosen: _Chosen) -> Updates:
    """Let Image Position (Patient) and the Grid Frame Offset Vector be about the new first plane (PS3.3 C.8.8.3.2)."""
    offsets = _decimals(root, _GRID_FRAME_OFFSET_VECTOR)
    if not offsets:
        return {}
    if len(offsets) != chosen.total:
        raise Malformed("the Grid Frame Offset Vector has not one value for each frame")
    taken = [offsets[frame - 1] for frame in chosen.frames]
    updates: dict[int, list[Segment] | None] = {}
    position, orientation = _decimals(root, _IMAGE_POSITION), _decimals(root, _IMAGE_ORIENTATION)
    relative = not offsets[0]
    if position and len(position) == 3 and taken[0] != offsets[0]:
        if relative:
            if not orientation or len(orientation) != 6:
                raise Malformed("the Image Orientation (Patient) of a dose grid is missing")
            row, column = orientation[:3], orientation[3:]
            for axis in range(3):
                one, other = (axis + 1) % 3, (axis + 2) % 3
                position[axis] += taken[0] * (row[one] * column[other] - row[other] * column[one])
        else:
            position[2] = taken[0]
        updates[_IMAGE_POSITION] = _write_ds(root, _IMAGE_POSITION, position)
    start = taken[0] if relative else Decimal(0)
    updates[_GRID_FRAME_OFFSET_VECTOR] = _write_ds(
        root, _GRID_FRAME_OFFSET_VECTOR, [offset - start for offset in taken]
    )
    return updates


def _functional_groups(root: Level, chosen: _Chosen) -> Updates:
    """Take the items of the Per-Frame Functional Groups Sequence that belong to the frames (PS3.3 C.7.6.16)."""
    if _PER_FRAME_FUNCTIONAL_GROUPS not in root:
        return {}
    items = root.items(_PER_FRAME_FUNCTIONAL_GROUPS)
    if not items:
        return {}
    if len(items) != chosen.total:
        raise Malformed(f"there are functional groups for {len(items)} frames, not for {chosen.total}")
    taken = [(Range(items[frame - 1].start, items[frame - 1].end),) for frame in chosen.frames]
    return {_PER_FRAME_FUNCTIONAL_GROUPS: _sequence(root, _PER_FRAME_FUNCTIONAL_GROUPS, taken)}


# Numbers of frames


def _sequence(level: Level, tag: int, items: Iterable[Sequence[Segment]]) -> list[Segment]:
    return encode_sequence(tag, items, level.encoding, level.inside(tag))


def _edited(root: Level, tag: int, edit: Callable[[Level], Updates | None]) -> dict[int, list[Segment] | None]:
    """Change the items of a sequence; those that *edit* gives ``None`` for are left out, and a sequence without any."""
    found = root.items(tag)
    if not found:
        return {}
    encoding = root.inside(tag)
    items: list[list[Segment]] = []
    for item in found:
        level = root.within(item, encoding)
        updates = edit(level)
        if updates is not None:
            items.append(encode_item(compose(level, updates), encoding))
    return {tag: _sequence(root, tag, items) if items else None}


def _trims(level: Level, start_tag: int, stop_tag: int, chosen: _Chosen) -> dict[int, list[Segment] | None] | None:
    """Fit a first and a last frame, one of which may be missing; ``None`` if nothing is left between them."""
    start, stop = _integer(level, start_tag), _integer(level, stop_tag)
    if start is None and stop is None:
        return {}
    span = chosen.span(start or 1, stop or chosen.total)
    if span is None:
        return None
    return {
        tag: _write_is(level, tag, [new])
        for tag, old, new in ((start_tag, start, span[0]), (stop_tag, stop, span[1]))
        if old is not None
    }


def _display(root: Level, chosen: _Chosen) -> Updates:
    """Fit the frames that are to be displayed (PS3.3 C.7.6.5, C.8.19.7), and those of an IVUS pullback (C.8.5.6)."""
    updates = _edited(root, _FRAME_DISPLAY, lambda item: _trims(item, _START_TRIM, _STOP_TRIM, chosen))
    for start, stop in ((_START_TRIM, _STOP_TRIM), (_IVUS_START, _IVUS_STOP)):
        trims = _trims(root, start, stop, chosen)
        updates.update(trims if trims is not None else {start: None, stop: None})
    return updates


def _frame_pointers(root: Level, chosen: _Chosen) -> Updates:
    """Fit the Frame Pointers Module (PS3.3 C.7.6.9)."""
    updates: dict[int, list[Segment] | None] = {}
    for tag in (_REPRESENTATIVE_FRAME, _R_WAVE_POINTER):
        if tag in root:
            kept = chosen.all_new(root.numbers(tag, "H"))
            updates[tag] = _write_us(root, tag, kept) if kept else None
    if _FRAMES_OF_INTEREST in root:
        frames = root.numbers(_FRAMES_OF_INTEREST, "H")
        indices = [index for index, frame in enumerate(frames) if chosen.new(frame) is not None]
        kept = chosen.all_new(frames)
        updates[_FRAMES_OF_INTEREST] = _write_us(root, _FRAMES_OF_INTEREST, kept) if kept else None
        for tag, vr in ((_INTEREST_DESCRIPTION, b"LO"), (_INTEREST_TYPE, b"CS")):
            if tag in root:
                updates[tag] = _of_frames(root, tag, vr, indices, len(frames)) if kept else None
    return updates


def _masks(root: Level, chosen: _Chosen) -> Updates:
    """Leave out the mask operations that cannot be performed any more, and fit the others (PS3.3 C.7.6.10)."""

    def edit(item: Level) -> Updates | None:
        updates: dict[int, list[Segment] | None] = {}
        operation = item.text(_MASK_OPERATION)
        first, last = 1, len(chosen.frames)
        if operation == "TID":  # the mask of a frame is found by its distance
            offset = next(iter(item.numbers(_TID_OFFSET, "h")), 1)
            first, last = first + max(offset, 0), last + min(offset, 0)
        if operation == "REV_TID" or (operation == "TID" and (chosen.stride != 1 or first > last)):
            return None
        masks = item.numbers(_MASK_FRAMES, "H")
        if masks:
            kept = chosen.all_new(masks)
            if len(kept) != len(masks):
                return None
            updates[_MASK_FRAMES] = _write_us(item, _MASK_FRAMES, kept)
        ranges = item.numbers(_APPLICABLE_FRAME_RANGE, "H")
        if ranges:
            spans = [chosen.span(*pair) or (1, 0) for pair in zip(ranges[::2], ranges[1::2], strict=False)]
            clipped = [(max(start, first), min(stop, last)) for start, stop in spans]
            kept = [number for start, stop in clipped if start <= stop for number in (start, stop)]
            if not kept:
                return None
            updates[_APPLICABLE_FRAME_RANGE] = _write_us(item, _APPLICABLE_FRAME_RANGE, kept)
        return updates

    updates = _edited(root, _MASK_SUBTRACTION, edit)
    if updates.get(_MASK_SUBTRACTION, ()) is None:
        updates[_RECOMMENDED_VIEWING_MODE] = None
    return updates


def _references(root: Level, chosen: _Chosen) -> Updates:
    """Fit the items that are about some frames: Acquisition Context (PS3.3 C.7.6.14), exposures (C.8.8.2)."""

    def context(item: Level) -> Updates | None:
        frames = item.numbers(_REFERENCED_FRAMES, "H")
        kept = chosen.all_new(frames)
        if frames and not kept:
            return None
        return {_REFERENCED_FRAMES: _write_us(item, _REFERENCED_FRAMES, kept)} if frames else {}

    def exposure(item: Level) -> Updates | None:
        frames = [int(text) for text in item.texts(_REFERENCED_FRAME) if re.fullmatch(r"\d{1,9}", text)]
        kept = chosen.all_new(frames)
        if frames and not kept:
            return None
        return {_REFERENCED_FRAME: _write_is(item, _REFERENCED_FRAME, kept)} if frames else {}

    updates = _edited(root, _EXPOSURE, exposure)
    updates.update(_edited(root, _ACQUISITION_CONTEXT, context))
    if updates.get(_ACQUISITION_CONTEXT, ()) is None:
        updates[_ACQUISITION_CONTEXT] = _sequence(root, _ACQUISITION_CONTEXT, [])  # Type 2
    return updates


def _overlays(root: Level, chosen: _Chosen) -> Updates:
    """Take the frames of multi-frame overlays that lie over the frames (PS3.3 C.9.3)."""
    updates: dict[int, list[Segment] | None] = {}
    for group in range(0x60000000, 0x60200000, 0x20000):
        number_tag, origin_tag, data_tag = group | 0x0015, group | 0x0051, group | 0x3000
        if number_tag not in root and origin_tag not in root:
            continue  # a single plane, over every frame
        number, origin = _integer(root, number_tag) or 1, next(iter(root.numbers(origin_tag, "H")), 1)
        kept = [frame for frame in chosen.frames if origin <= frame < origin + number]
        data = root.elements.get(data_tag)
        bits = next(iter(root.numbers(group | 0x0010, "H")), 0) * next(iter(root.numbers(group | 0x0011, "H")), 0)
        enough = data is not None and bits and (bits * number + 7) // 8 <= data.stop - data.value
        if not kept or (data is not None and not enough):
            updates.update((tag, None) for tag in root.elements if tag & 0xFFFF0000 == group)
            continue
        if number_tag in root:
            updates[number_tag] = _write_is(root, number_tag, [len(kept)])
        updates[origin_tag] = _write_us(root, origin_tag, chosen.all_new(kept[:1]))
        if data is not None and len(kept) < number:
            runs = tuple(runs_of([frame - origin + 1 for frame in kept], bits))
            swapped = not root.encoding.little and data.vr == b"OW"
            value: list[Segment] = [Packed(data.value, data.stop, runs, swapped)]
            updates[data_tag] = encode_element(data_tag, data.vr or b"OW", value, root.encoding)
    return updates


def _organization(root: Level, chosen: _Chosen) -> Updates:
    """Drop what says that frames come in pairs, or at regular distances, where they no longer do."""
    updates: dict[int, list[Segment] | None] = {}
    if root.text(_STEREO_PAIRS_PRESENT) == "YES":
        pairs = zip(chosen.frames[::2], chosen.frames[1::2], strict=False)
        if len(chosen.frames) % 2 or any(left % 2 == 0 or right != left + 1 for left, right in pairs):
            updates[_STEREO_PAIRS_PRESENT] = None
    if root.text(_DIMENSION_ORGANIZATION_TYPE).startswith("3D"):
        updates[_DIMENSION_ORGANIZATION_TYPE] = None
    return updates


def is_tiled_full(root: Level) -> bool:
    """Say whether frames are tiles whose positions follow from their numbers only (PS3.3 C.7.6.17.3)."""
    return root.text(_DIMENSION_ORGANIZATION_TYPE) == "TILED_FULL"


_EACH = (
    _timing,
    _vectors,
    _increments,
    _dose_grid,
    _functional_groups,
    _display,
    _frame_pointers,
    _masks,
    _references,
    _overlays,
    _organization,
)


def _is_left_out(tag: int) -> bool:
    """Say whether an element never goes into a new instance."""
    group = tag >> 16
    # Private attributes may be about frames; nobody here knows their significance (PS3.4 Y.3.3). Curves and audio of the
    # retired groups 50xx are about time. Group lengths would no longer be right.
    return group in (0, 2) or group % 2 == 1 or 0x5000 <= group <= 0x501E or tag & 0xFFFF == 0 or tag in _NEVER


def adapted(root: Level, frames: Sequence[int], total: int) -> dict[int, Sequence[Segment] | None]:
    """Return what becomes of the elements before the pixel data, where they do not stay.

    :param frames: those that are taken: numbers from 1, ascending.
    :param total: how many frames the source has.
    :raises Malformed: the source is not consistent in what matters.
    """
    updates: dict[int, Sequence[Segment] | None] = {tag: None for tag in root.elements if _is_left_out(tag)}
    if len(frames) == total:
        return updates
    updates.update(dict.fromkeys(_NOT_OF_SOME))
    chosen = _Chosen(frames, total)
    for fit in _EACH:
        updates.update(fit(root, chosen))
    updates[NUMBER_OF_FRAMES] = encode_element(NUMBER_OF_FRAMES, b"IS", str(len(frames)), root.encoding)
    return updates
