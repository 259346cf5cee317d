"""Command sets that recur: encoded and decoded in a fraction of the time of the first of them.

Theory of operation
-------------------
What is sent a thousand times on an association differs in its Message ID and its Affected SOP Instance UID. Of each kind
of command set the bytes around these two are remembered, with the message that they belong to; the next one of the kind is
put together from them, or is recognised by them. What does not recur goes to the codec of :mod:`.commands`, and so does
what is wrong.

Little is remembered, and nothing that tells of a patient: no instances, no comments, no counters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeVar

from . import commands
from .commands import ELEMENTS, MESSAGES, Message

__all__ = ["decode", "encode"]

#: Only command sets of at most so many bytes are remembered, and only so many of them.
_LENGTH: Final = 256
_MOST: Final = 256

_UID: Final = "affected_sop_instance_uid"

#: Fields that may have a value in what is remembered. The others are rare, or differ each time.
_FIELDS: Final = frozenset(
    {
        *("message_id", "message_id_being_responded_to", _UID),
        *("affected_sop_class_uid", "requested_sop_class_uid", "priority", "status"),
        *("event_type_id", "action_type_id"),
        *("move_destination", "move_originator_ae_title", "move_originator_message_id"),
    }
)


def _tag(name: str) -> bytes:
    """Give the tag of the element of a field."""
    return next(element.number << 16 for element in ELEMENTS if element.field == name).to_bytes(4, "little")


# What begins the elements that matter: tags, and lengths where these are always the same.
_GROUP_LENGTH: Final = _tag("command_group_length") + b"\4\0\0\0"
_REQUEST_ID: Final = _tag("message_id") + b"\2\0\0\0"
_RESPONSE_ID: Final = _tag("message_id_being_responded_to") + b"\2\0\0\0"
_UID_TAG: Final = _tag(_UID)

_Get: TypeAlias = Callable[[Message], Any]


def _getters(message: type[Message]) -> tuple[_Get, _Get | None, _Get]:
    names = [field.name for field in fields(message)]
    number = "message_id" if "message_id" in names else "message_id_being_responded_to"
    rest = (name for name in names if name not in (number, _UID))
    return attrgetter(number), attrgetter(_UID) if _UID in names else None, attrgetter(*rest)


#: Message -> what gives its ID, its SOP Instance UID if it has one, and all its other values.
_GETTERS: Final = {message: _getters(message) for message in MESSAGES.values()}

#: Message, whether a data set follows, all values but the ID and the SOP Instance UID -> the group length but for that
#: UID; the bytes before the value of the ID, between that and the UID, and behind the UID. The group length is in front
#: of the bytes, if there is no UID to make it differ.
_encoded: dict[tuple[type[Message], bool, object], tuple[int, bytes, bytes, bytes]] = {}

#: Such bytes of a command set that was received -> the message without these two, and whether a data set follows.
_decoded: dict[tuple[bytes, ...], tuple[Callable[..., Message], bool]] = {}

K = TypeVar("K")
V = TypeVar("V")


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    if len(memory) >= _MOST:
        memory.clear()
    memory[key] = value


def _recurs(message: Message) -> bool:
    return all(field.name in _FIELDS or getattr(message, field.name) in (None, ()) for field in fields(message))


def _places(data: bytes) -> tuple[int, int] | None:
    """Return where the value of the ID begins, and the element of the SOP Instance UID: at the end if there is none.

    :param data: a sound command set.
    :returns: ``None`` if there is no ID, or if there are several of one of them.
    """
    ids, uids = [], []
    position = 0
    while position < len(data):
        head = data[position : position + 8]
        if head in (_REQUEST_ID, _RESPONSE_ID):
            ids.append(position + 8)
        elif head[:4] == _UID_TAG:
            uids.append(position)
        position += 8 + int.from_bytes(head[4:], "little")
    if len(ids) != 1 or len(uids) > 1:
        return None
    return ids[0], uids[0] if uids else len(data)


def encode(message: Message, *, has_data_set: bool) -> bytes:
    """Encode a message, see :func:`.commands.encode`."""
    kind = type(message)
    get_id, get_uid, get_rest = _GETTERS[kind]
    try:
        key = kind, has_data_set, get_rest(message)
        known = _encoded.get(key)
        if known is not None:
            size, head, middle, tail = known
            number = get_id(message).to_bytes(2, "little")
            if get_uid is None:
                return b"".join((head, number, tail))
            value = get_uid(message).encode("latin-1")
            if len(value) & 1:
                value += b"\0"
            length = len(value).to_bytes(4, "little")
            size += 8 + len(value)
            sized = size.to_bytes(4, "little")
            return b"".join((_GROUP_LENGTH, sized, head, number, middle, _UID_TAG, length, value, tail))
    except (TypeError, AttributeError, OverflowError, UnicodeEncodeError):
        # A value does not fit, or cannot be looked up; the codec knows which, and what to do.
        return commands.encode(message, has_data_set=has_data_set)
    whole = commands.encode(message, has_data_set=has_data_set)
    if len(whole) <= _LENGTH and _recurs(message) and (places := _places(whole)) is not None:
        place, start = places
        end = start + 8 + int.from_bytes(whole[start + 4 : start + 8], "little")
        if get_uid is None:
            _remember(_encoded, key, (0, whole[:place], b"", whole[place + 2 :]))
        elif end <= len(whole):
            parts = whole[12:place], whole[place + 2 : start], whole[end:]
            _remember(_encoded, key, (2 + sum(map(len, parts)), *parts))
    return whole


def decode(data: bytes | memoryview) -> tuple[Message, bool]:
    """Decode a whole command set, see :func:`.commands.decode`."""
    whole = bytes(data)
    if len(whole) > _LENGTH:
        return commands.decode(whole)
    # Where these octets come first may not be where the elements are. But what is remembered was found to have them in
    # their places, and whatever has the same bytes around them has so, too.
    name = "message_id"
    place = whole.find(_REQUEST_ID) + 8
    if place < 8:
        name = "message_id_being_responded_to"
        place = whole.find(_RESPONSE_ID) + 8
        if place < 8:
            return commands.decode(whole)
    key: tuple[bytes, ...]
    uid = whole.find(_UID_TAG, place + 2)
    if uid < 0:
        uid = end = len(whole)
        key = whole[:place], whole[place + 2 :]
        if (known := _decoded.get(key)) is not None:
            return known[0](**{name: whole[place] | whole[place + 1] << 8}), known[1]
    else:
        end = uid + 8 + int.from_bytes(whole[uid + 4 : uid + 8], "little")
        # The group length is not looked at: it depends on the length of the UID.
        start = 12 if whole.startswith(_GROUP_LENGTH) else 0
        key = whole[start:place], whole[place + 2 : uid], whole[end:]
        if (known := _decoded.get(key)) is not None and end <= len(whole):
            text = str(whole[uid + 8 : end], "latin-1").rstrip("\0 ")
            return known[0](**{name: whole[place] | whole[place + 1] << 8, _UID: text}), known[1]
    message, has_data_set = commands.decode(whole)
    if _recurs(message) and _places(whole) == (place, uid):
        values = {field.name: getattr(message, field.name) for field in fields(message)}
        if values.pop(name, None) is not None:
            if uid < end:
                del values[_UID]
            _remember(_decoded, key, (partial(type(message), **values), has_data_set))
    return message, has_data_set
