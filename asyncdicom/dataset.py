"""Data sets: between bytes and :class:`pydicom.Dataset`, and between bytes and files.

This is the only module of the core that knows pydicom, and it imports it when a data set is decoded or encoded for
the first time: programs that store, forward and send bytes never load it. What needs no pydicom lives in private
modules and is offered here: walking over encoded elements, Part 10 files, converting between the native transfer
syntaxes.

Theory of operation. pydicom's reader follows nested sequences by recursion, takes lengths as they come and converts
values when they are first looked at. Data of a peer deserve none of that trust. So the *structure* is read here, with
a stack, every length checked against what is there, and everything that takes memory counted; pydicom's own functions
then convert the *values*, before the data set is handed out. Only bulky values stay raw until they are looked at, as
pydicom does with all.
"""

from __future__ import annotations

import re
from struct import error
from typing import TYPE_CHECKING, Any

from . import sop
from ._deflate import DEFAULT_LIMITS, DataSetLimits, deflate, inflate
from ._elements import (
    ITEM,
    ITEM_DELIMITER,
    LAYOUTS,
    LONG_VRS,
    SEQUENCE_DELIMITER,
    SHORT_VRS,
    UNDEFINED,
    Head,
    RawElement,
    encoding_of,
    is_vr,
    safe_uid,
    scan,
    scan_head,
    tag_text,
)
from ._files import BytesSource, FileSink, FileSource, Source, StreamSource, is_temporary, save
from ._part10 import FileHead, part10_head, read_file_head
from ._quiet import quiet
from ._transcode import convert, without_bulk_data
from .exceptions import DataSetError

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "BytesSource",
    "DataSetLimits",
    "FileHead",
    "FileSink",
    "FileSource",
    "Head",
    "RawElement",
    "Source",
    "StreamSource",
    "convert",
    "decode_data_set",
    "deflate",
    "encode_data_set",
    "inflate",
    "is_temporary",
    "part10_head",
    "read_file_head",
    "safe_uid",
    "save",
    "scan",
    "scan_head",
    "with_file_meta",
    "without_bulk_data",
]


#: Bytes of text and numbers that are converted at once; what is beyond stays raw. One character of a multi-valued
#: text can become an object of 200 bytes.
_CONVERT_AT_ONCE = 1 << 18

#: VRs whose values pydicom leaves as bytes: converting them costs nothing.
_BYTES_VRS = frozenset(["OB or OW", "OB", "OD", "OF", "OL", "OV", "OW", "UN"])


#: VRs of explicit headers with a 16 bit length, as text.
_PLAIN_VRS = {letters: letters.decode("ascii") for letters in SHORT_VRS}

#: Tags that are remembered, at most.
_TAGS = 4096


class _Open:
    """A sequence or an item that is being read."""

    __slots__ = ("elements", "end", "explicit", "items", "little", "tag", "vr")

    def __init__(self, end: int | None, *, explicit: bool, little: bool) -> None:
        self.end = end  # None: undefined, up to the delimiter
        self.explicit = explicit
        self.little = little
        self.elements: dict[Any, Any] | None = None  # of an item
        self.items: list[Dataset] | None = None  # of a sequence
        self.tag = 0
        self.vr = "SQ"


class _Reader:
    """Build a Dataset from encoded elements; see the module's theory of operation."""

    # What is used of pydicom, looked up once.
    loaded = False
    dictionary_vr: Any
    data_element: Any
    raw_element: Any
    convert_raw: Any
    dataset: type[Dataset]
    hooks: Any
    sequence: Any
    base_tag: Any
    wrong_length: type[Exception]
    convert_encodings: Any
    default_encoding: str
    encodings: frozenset[str]
    tags: dict[int, Any]
    prototypes: dict[tuple[bool, bool], tuple[dict[str, Any], tuple[str, ...]]]

    def __init__(self, limits: DataSetLimits, *, raw: bool = False) -> None:
        if not self.loaded:
            self.load()
        self.limits = limits
        self.raw = raw
        self.count = 0
        self.converted = 0
        self.known: dict[int, str | None] = {}  # looking up what is not in the dictionary is slow
        # (data set, its depth, the character sets of its parent): values that are still to be converted
        self.pending: list[tuple[Dataset, int, Any]] = []

    @classmethod
    def load(cls) -> None:
        """Import pydicom."""
        from pydicom.charset import convert_encodings, default_encoding, python_encoding
        from pydicom.datadict import dictionary_VR
        from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
        from pydicom.dataset import Dataset
        from pydicom.errors import BytesLengthException
        from pydicom.hooks import hooks
        from pydicom.sequence import Sequence
        from pydicom.tag import BaseTag

        cls.dictionary_vr = staticmethod(dictionary_VR)
        cls.data_element = DataElement
        cls.raw_element = RawDataElement
        cls.convert_raw = staticmethod(convert_raw_data_element)
        cls.dataset = Dataset
        cls.hooks = hooks
        cls.sequence = Sequence
        cls.base_tag = BaseTag
        cls.wrong_length = BytesLengthException
        cls.convert_encodings = staticmethod(convert_encodings)
        cls.default_encoding = default_encoding
        cls.encodings = frozenset(python_encoding.values())
        cls.tags = {}
        cls.prototypes = {}
        cls.loaded = True

    def read(self, data: bytes, *, explicit: bool, little: bool) -> Dataset:
        """Read a whole data set."""
        position = _leading_meta(data)
        elements: dict[Any, Any] = {}
        if not explicit and _is_explicit_after_all(data, position):
            explicit = True
        root = _Open(len(data), explicit=explicit, little=little)
        root.elements = elements
        self._structure(data, position, root, 0)
        for tag in [tag for tag in elements if tag >> 16 == 2]:
            del elements[tag]
        result = self._dataset(root)
        self.pending.append((result, 0, self.default_encoding))
        while self.pending:
            self._values(*self.pending.pop())
        return result

    def _dataset(self, item: _Open) -> Dataset:
        assert item.elements is not None
        prototype = self.prototypes.get((item.explicit, item.little))
        if prototype is None:
            empty = self.dataset()
            empty.set_original_encoding(not item.explicit, item.little, self.default_encoding)
            constant = vars(empty)
            own = tuple(name for name, value in constant.items() if isinstance(value, dict | list | set))
            prototype = self.prototypes[item.explicit, item.little] = constant, own
        # What Dataset() sets, without passing each attribute through its __setattr__: that takes a third of the time.
        constant, own = prototype
        dataset = self.dataset.__new__(self.dataset)
        attributes = vars(dataset)
        attributes.update(constant)
        for name in own:
            attributes[name] = constant[name].copy()
        attributes["_dict"] = item.elements
        return dataset

    def _take(self, elements: int) -> None:
        self.count += elements
        if self.count > self.limits.elements:
            raise DataSetError(f"the data set has more than {self.limits.elements} elements")

    def _structure(self, data: bytes, position: int, root: _Open, depth: int) -> None:
        """Read what is inside of *root*, an item or a sequence, from *position* on."""
        stack = [root]
        if root.elements is not None and root.explicit and root.little and root.end is not None:
            position = self._plain(data, position, root.elements, root.end)
        while True:
            top = stack[-1]
            end = root.end if top.end is None else top.end
            assert end is not None
            if top.end is not None and position >= end:
                closed = True
            elif top.elements is None:
                position, closed = self._item_header(data, position, stack)
            else:
                position, closed = self._element(data, position, stack, depth)
            if closed:
                stack.pop()
                if not stack:
                    return
                self._close(top, stack[-1])

    def _plain(self, data: bytes, position: int, elements: dict[Any, Any], end: int) -> int:
        """Read elements in Explicit VR Little Endian up to the first that is not of the simplest kind; return where it is."""
        unpack = LAYOUTS[True].explicit.unpack_from
        tags, raw = self.tags, self.raw_element
        room = self.limits.elements - self.count
        last = end - 8
        while position <= last and room > 0:
            group, number, letters, length = unpack(data, position)
            vr = _PLAIN_VRS.get(letters)
            start = position + 8
            stop = start + length
            if vr is None or stop > end or group == 0xFFFE:
                break
            number |= group << 16
            tag = tags.get(number)
            if tag is None:
                if len(tags) >= _TAGS:
                    tags.clear()
                tag = tags[number] = self.base_tag(number)
            elements[tag] = raw(tag, vr, length, data[start:stop], start, False, True)
            position = stop
            room -= 1
        self.count = self.limits.elements - room
        return position

    def _close(self, done: _Open, parent: _Open) -> None:
        if done.items is None:
            assert parent.items is not None
            dataset = self._dataset(done)
            dataset.is_undefined_length_sequence_item = done.end is None
            parent.items.append(dataset)
            return
        assert parent.elements is not None
        sequence = self.sequence(done.items)
        sequence.is_undefined_length = done.end is None
        tag = self.base_tag(done.tag)
        parent.elements[tag] = self.data_element(tag, "SQ", sequence, None, done.end is None, already_converted=True)

    def _item_header(self, data: bytes, position: int, stack: list[_Open]) -> tuple[int, bool]:
        """Read the header of an item, or the delimiter of the sequence that is on top of *stack*."""
        top = stack[-1]
        limit = _limit(stack)
        if position + 8 > limit:
            raise DataSetError(f"the sequence {tag_text(top.tag)} ends inside of an item header")
        group, element, length = LAYOUTS[top.little].implicit.unpack_from(data, position)
        tag = group << 16 | element
        position += 8
        if tag == SEQUENCE_DELIMITER:  # tolerated where the length is defined, too
            return position, True
        if tag != ITEM:
            raise DataSetError(f"the sequence {tag_text(top.tag)} holds {tag_text(tag)} where an item is due")
        if length != UNDEFINED and position + length > limit:
            raise DataSetError(f"an item of {tag_text(top.tag)} claims {length} bytes; {limit - position} are there")
        self._take(4)
        explicit = top.explicit
        if explicit and length and position + 6 <= limit and not is_vr(data[position + 4 : position + 6]):
            # An item in implicit VR, because the sequence is of VR UN (PS3.5 6.2.2) or its writer did not care.
            explicit = data[position : position + 4] in (b"\xfe\xff\x0d\xe0", b"\xff\xfe\xe0\x0d")
        item = _Open(None if length == UNDEFINED else position + length, explicit=explicit, little=top.little)
        item.elements = {}
        stack.append(item)
        return position, False

    def _element(self, data: bytes, position: int, stack: list[_Open], depth: int) -> tuple[int, bool]:
        """Read one element of the item or data set that is on top of *stack*."""
        top = stack[-1]
        assert top.elements is not None
        limit = _limit(stack)
        if position + 8 > limit:
            if len(stack) == 1 and not any(data[position:limit]):
                return limit, True  # padding of the last fragment
            raise DataSetError(f"{limit - position} bytes are left where an element is due")
        header, implicit_header, length_only = LAYOUTS[top.little]
        vr: str | None = None
        implicit = not top.explicit
        if implicit:
            group, element, length = implicit_header.unpack_from(data, position)
            position += 8
        else:
            group, element, letters, length = header.unpack_from(data, position)
            position += 8
            if letters in SHORT_VRS:
                vr = letters.decode("ascii")
            elif letters in LONG_VRS:
                vr = letters.decode("ascii")
                if position + 4 > limit:
                    raise DataSetError(f"the length of {tag_text(group << 16 | element)} is missing")
                (length,) = length_only.unpack_from(data, position)
                position += 4
            elif is_vr(letters):
                raise DataSetError(f"the element {tag_text(group << 16 | element)} has an unknown VR")
            else:  # a delimiter, or a writer that fell back to implicit VR
                group, element, length = implicit_header.unpack_from(data, position - 8)
                implicit = True
        tag = group << 16 | element
        if tag == ITEM_DELIMITER:
            if len(stack) > 1:
                return position, True
            raise DataSetError("an item ends where none has begun")
        if group == 0xFFFE:
            raise DataSetError(f"{tag_text(tag)} stands where an element is due")
        self._take(1)
        start = position
        if length == UNDEFINED:
            return self._undefined(data, start, tag, vr, implicit=implicit, stack=stack, depth=depth), False
        position += length
        if position > limit:
            raise DataSetError(f"{tag_text(tag)} claims {length} bytes; {limit - start} are there")
        little = top.little
        if vr is None or vr == "UN":
            if vr == "UN":
                implicit, little = True, True  # PS3.5 6.2.2, whatever the transfer syntax
            vr = self._known_vr(tag) or vr
        if vr == "SQ":
            self._push(stack, tag, position, explicit=not implicit, little=little, depth=depth)
            return start, False
        base = self.base_tag(tag)
        top.elements[base] = self.raw_element(base, vr, length, data[start:position], start, implicit, little)
        return position, False

    def _known_vr(self, tag: int) -> str | None:
        """Look a public element up whose VR is not given; ``None`` where it depends on others or is not known."""
        try:
            return self.known[tag]
        except KeyError:
            pass
        known = None
        if not tag & 0x10000:
            try:
                known = str(self.dictionary_vr(tag))
            except KeyError:
                pass
        if known is not None and len(known) != 2:
            known = None
        self.known[tag] = known
        return known

    def _push(self, stack: list[_Open], tag: int, end: int | None, *, explicit: bool, little: bool, depth: int) -> None:
        if depth + len(stack) // 2 >= self.limits.nesting:
            raise DataSetError(f"sequences are nested deeper than {self.limits.nesting} levels")
        sequence = _Open(end, explicit=explicit, little=little)
        sequence.items = []
        sequence.tag = tag
        stack.append(sequence)

    def _undefined(
        self, data: bytes, start: int, tag: int, vr: str | None, *, implicit: bool, stack: list[_Open], depth: int
    ) -> int:
        """Begin a sequence of undefined length, or read encapsulated pixel data whole (PS3.5 A.4)."""
        top = stack[-1]
        assert top.elements is not None
        if vr in ("OB", "OW") or (vr is None and tag == 0x7FE00010):
            position = self._fragments(data, start, _limit(stack), tag, little=top.little)
            base = self.base_tag(tag)
            value = data[start : position - 8]
            top.elements[base] = self.raw_element(base, vr, UNDEFINED, value, start, implicit, top.little)
            return position
        if vr not in (None, "SQ", "UN"):
            raise DataSetError(f"{tag_text(tag)} has an undefined length, which its VR {vr} cannot have")
        little = top.little
        if vr == "UN" and data[start : start + 4] in (b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"):
            little = True
        # PS3.5 6.2.2: the items of a UN sequence are in implicit VR. Each is looked at, for not every writer knows.
        self._push(stack, tag, None, explicit=not implicit, little=little, depth=depth)
        return start

    def _fragments(self, data: bytes, position: int, limit: int, tag: int, *, little: bool) -> int:
        """Return the offset behind the delimiter of the fragments that begin at *position*."""
        unpack = LAYOUTS[little].implicit.unpack_from
        while position + 8 <= limit:
            group, element, length = unpack(data, position)
            position += 8
            found = group << 16 | element
            if found == SEQUENCE_DELIMITER:
                return position
            if found != ITEM or length == UNDEFINED:
                break
            position += length
        raise DataSetError(f"the fragments of {tag_text(tag)} do not end in a delimiter")

    def _values(self, dataset: Dataset, depth: int, parent_encoding: Any) -> None:
        """Convert the values of *dataset*, and put the items of its sequences on the list of what is pending."""
        elements: dict[Any, Any] = dataset._dict  # type: ignore[assignment]
        encoding = parent_encoding
        character_set = elements.get(0x00080005)
        if character_set is not None:
            encoding = self._character_set(character_set)
        if parent_encoding is not self.default_encoding:  # which is what a new data set has
            dataset._parent_encoding = parent_encoding
        if encoding is not self.default_encoding:
            implicit, little = dataset.original_encoding
            dataset.set_original_encoding(implicit, little, encoding)
        for tag, element in list(elements.items()):
            if not element.is_raw:
                self._items(dataset, element, depth, encoding)
                continue
            if self.raw:
                continue
            self._value(dataset, tag, element, depth, encoding)

    def _value(self, dataset: Dataset, tag: Any, raw: Any, depth: int, encoding: Any) -> None:
        vr = raw.VR
        if vr is None or vr == "UN":
            chosen: dict[str, Any] = {}
            self.hooks.raw_element_vr(raw, chosen, encoding=encoding, ds=dataset)
            vr = str(chosen["VR"])
            if vr == "SQ":  # a private sequence that pydicom's dictionary knows
                self._private_sequence(dataset, tag, raw, depth, encoding)
                return
            if vr != "UN" and len(vr) == 2 and raw.VR == "UN":
                raw = raw._replace(VR=vr)  # saves looking it up again
        if vr not in _BYTES_VRS:
            self.converted += raw.length
            if self.converted > _CONVERT_AT_ONCE:
                if raw.VR is None and not dataset.original_encoding[0]:  # as such it could not be encoded again
                    dataset._dict[tag] = raw._replace(VR=vr if len(vr) == 2 else "OW")
                return
        try:
            if len(vr) == 2:
                if vr == "UN":
                    value = raw.value or None
                    element = self.data_element(tag, vr, value, raw.value_tell, already_converted=True)
                else:
                    element = self.convert_raw(raw, encoding=encoding, ds=dataset)
                dataset._dict[tag] = element
                if tag & 0x10000:
                    creator: Any = dataset._dict.get(self.base_tag(tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8))
                    if creator is not None and not creator.is_raw and creator.tag != tag:
                        element.private_creator = creator.value
            else:
                dataset[tag]  # the VR depends on other elements
        except self.wrong_length:
            raise DataSetError(f"{tag_text(tag)} has {raw.length} bytes, which its VR {vr} cannot have") from None
        except AttributeError:
            pass  # what the VR depends on is missing: the value stays bytes
        except NotImplementedError:  # the dictionary of private elements holds a VR that is none
            dataset._dict[tag] = self.data_element(tag, "UN", raw.value, raw.value_tell, already_converted=True)
        except (ValueError, TypeError, ArithmeticError):
            # Not what its VR says: text, as pydicom itself has it for most of such values.
            text = raw._replace(VR="LO")
            dataset._dict[tag] = self.convert_raw(text, encoding=encoding, ds=dataset)

    def _private_sequence(self, dataset: Dataset, tag: Any, raw: Any, depth: int, encoding: Any) -> None:
        sequence = _Open(raw.length, explicit=not raw.is_implicit_VR, little=raw.is_little_endian)
        sequence.items = []
        sequence.tag = tag
        if depth + 1 > self.limits.nesting:
            raise DataSetError(f"sequences are nested deeper than {self.limits.nesting} levels")
        self._structure(raw.value, 0, sequence, depth + 1)
        element = self.data_element(tag, "SQ", self.sequence(sequence.items), raw.value_tell, already_converted=True)
        dataset[tag] = element
        self._items(dataset, element, depth, encoding)

    def _items(self, dataset: Dataset, element: Any, depth: int, encoding: Any) -> None:
        representation = dataset._dict.get(0x00280103)  # type: ignore[call-overload]
        value = dataset.PixelRepresentation if representation is not None else getattr(dataset, "_pixel_rep", None)
        for item in element.value:
            if value is not None:
                item._pixel_rep = value  # how pydicom tells US from SS inside of an item
            self.pending.append((item, depth + 1, encoding))

    def _character_set(self, element: Any) -> Any:
        if element.is_raw:
            if element.length > 1024:
                raise DataSetError(f"the Specific Character Set has {element.length} bytes")
            element = self.convert_raw(element)
        encodings = self.convert_encodings(element.value)
        # pydicom takes the name of any Python codec; a peer should not be able to choose among those.
        return [name if name in self.encodings else self.default_encoding for name in encodings]


def _limit(stack: list[_Open]) -> int:
    """Return where the data end for what is on top of *stack*."""
    for level in reversed(stack):
        if level.end is not None:
            return level.end
    raise AssertionError("the root has a defined end")


def _leading_meta(data: bytes) -> int:
    """Return where the data set begins behind a File Meta Information group in it, which some senders leave there."""
    unpack, unpack_length = LAYOUTS[True].explicit.unpack_from, LAYOUTS[True].length.unpack_from
    position = 0
    try:
        while True:
            group, _, vr, length = unpack(data, position)
            if group != 2 or (vr not in SHORT_VRS and vr not in LONG_VRS):
                return position
            if vr in LONG_VRS:
                (length,) = unpack_length(data, position + 8)
                position += 4
            if position + 8 + length > len(data):
                return 0
            position += 8 + length
    except error:
        return 0 if position > len(data) else position


def _is_explicit_after_all(data: bytes, position: int) -> bool:
    """Say whether the first element makes sense in explicit VR only, where implicit VR was negotiated."""
    if position + 8 > len(data):
        return False
    _, _, length = LAYOUTS[True].implicit.unpack_from(data, position)
    vr = data[position + 4 : position + 6]
    return (vr in SHORT_VRS or vr in LONG_VRS) and length != UNDEFINED and position + 8 + length > len(data)


def decode_data_set(
    data: bytes, transfer_syntax: str, *, limits: DataSetLimits = DEFAULT_LIMITS, raw: bool = False
) -> Dataset:
    """Decode a data set that came over the network, or out of a file behind its meta header.

    :param data: the encoded data set, all of it.
    :param transfer_syntax: its UID; an encapsulated or unknown one means Explicit VR Little Endian (PS3.5 A.4).
    :param limits: what it may ask of us.
    :param raw: check the structure only, and leave each value to pydicom until it is looked at, which takes a third of
        the time.
    :return: the data set without elements of group 0002. Values are converted, but for bulky ones, which stay raw
        until they are looked at; a value that is not what its VR says becomes text, an unknown one bytes.
    :raises DataSetError: it is not a data set of that syntax, or over the limits. Nothing else is raised, no warning
        either.
    """
    explicit, little, deflated = encoding_of(transfer_syntax)
    try:
        if deflated:
            data = inflate(data, limits)
        with quiet():
            return _Reader(limits, raw=raw).read(bytes(data), explicit=explicit, little=little)
    except DataSetError:
        raise
    except Exception as exc:
        # pydicom's messages quote values, so only the kind of the error is passed on.
        raise DataSetError(f"the data set cannot be decoded ({type(exc).__name__})") from None


_TAG_IN_MESSAGE = re.compile(r"\(([0-9A-Fa-f]{4}), ?([0-9A-Fa-f]{4})\)")


def _without_groups(dataset: Dataset) -> Dataset:
    """Return *dataset* without the groups that never belong in a data set: 0000 and 0002 (PS3.7 6.3, PS3.10 7.1)."""
    if not any(tag >> 16 in (0, 2) for tag in dataset._dict):
        return dataset
    kept = dataset.copy()
    kept._dict = {tag: element for tag, element in dataset._dict.items() if tag >> 16 not in (0, 2)}
    return kept


def _check_pixel_data(dataset: Dataset, transfer_syntax: str) -> None:
    """Refuse pixel data that are compressed where they must not be, or the reverse (PS3.5 A.1 to A.4)."""
    element = dataset._dict.get(0x7FE00010)  # type: ignore[call-overload]
    if element is None or not isinstance(element.value, bytes | bytearray) or not element.value:
        return
    fragments = element.value[:4] in (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
    undefined = element.length == UNDEFINED if element.is_raw else bool(element.is_undefined_length)
    syntax = sop.transfer_syntax(transfer_syntax)
    if syntax.is_native:
        if undefined:
            raise DataSetError(f"the pixel data are compressed and cannot be encoded as {syntax.name or syntax}")
    elif fragments and not undefined:
        dataset["PixelData"].is_undefined_length = True  # the user called encapsulate() and forgot the flag


def _encoded(dataset: Dataset, *, explicit: bool, little: bool) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_implicit_VR = not explicit
    buffer.is_little_endian = little
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


def encode_data_set(ds: Dataset, transfer_syntax: str) -> bytes:
    """Encode *ds*, without elements of the groups 0000 and 0002, for the network or to follow a meta header.

    VRs that depend on other elements ("US or SS") are resolved in *ds* itself, as pydicom does.

    :raises DataSetError: it cannot be; the message names the element and holds nothing of its value.
    """
    explicit, little, deflated = encoding_of(transfer_syntax)
    try:
        with quiet():
            ds = _without_groups(ds)
            _check_pixel_data(ds, transfer_syntax)
            # Bulk data are kept in the byte order they were read in, and made in the little endian one.
            kept_little = ds.original_encoding[1] is not False
            data = _encoded(ds, explicit=explicit or kept_little != little, little=kept_little)
            if kept_little != little:
                kept = sop.EXPLICIT_VR_LITTLE_ENDIAN if kept_little else sop.EXPLICIT_VR_BIG_ENDIAN
                return b"".join(convert(data, kept, transfer_syntax))
    except DataSetError:
        raise
    except Exception as exc:
        found = _TAG_IN_MESSAGE.search(str(exc))
        where = f" at ({found[1].upper()},{found[2].upper()})" if found else ""
        raise DataSetError(f"the data set cannot be encoded{where} ({type(exc).__name__})") from None
    return deflate(data) if deflated else data


def with_file_meta(ds: Dataset, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> Dataset:
    """Give *ds* a ``file_meta`` that says what it is, so that pydicom can show its pixels and save it; return *ds*."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    with quiet():
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\x00\x01"
        meta.MediaStorageSOPClassUID = UID(sop_class_uid)
        meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
        meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        meta.ImplementationClassUID = UID(sop.IMPLEMENTATION_CLASS_UID)
        meta.ImplementationVersionName = sop.IMPLEMENTATION_VERSION_NAME
        ds.file_meta = meta
    return ds
