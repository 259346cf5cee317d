"""What SOP class extended negotiation says, by name: the service-class-application-information (PS3.7 D.3.3.5).

Each class here *is* the field as it stands on the wire, so it can be given and compared wherever bytes can; its properties
read it. A field that ends early says no to all that would follow (PS3.4 C.5.1.1). For the same reason a field is made no
longer than what it says yes to: peers of the first edition know its first byte only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..sop import FIND, GET, MOVE, is_storage

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FindNegotiation", "RetrieveNegotiation", "StorageNegotiation", "read_information"]


class _Information(bytes):
    """A service-class-application-information field."""

    __slots__ = ()
    _NAMES: tuple[str, ...] = ()

    @classmethod
    def read(cls, information: bytes) -> Self:
        """Take a field as it came, whatever its length."""
        return bytes.__new__(cls, information)

    def __reduce__(self) -> tuple[Callable[[bytes], Self], tuple[bytes]]:
        return type(self).read, (bytes(self),)

    def _byte(self, place: int, absent: int = 0) -> int:
        return self[place] if place < len(self) else absent

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._NAMES)
        return f"{type(self).__name__}({said})"


def _flags(flags: Iterable[bool]) -> bytes:
    """Encode flags, at least one, and none behind the last that is set."""
    encoded = bytes(map(bool, flags))
    return encoded.rstrip(b"\0") or encoded[:1]


class FindNegotiation(_Information):
    """Extended negotiation of a C-FIND class (PS3.4 Table C.5-1): what is proposed, or was agreed on.

    :param relational: keys of levels above need not be given (PS3.4 C.4.1.2.2).
    :param combined_date_time: ranges of a date and of its time are one range (PS3.4 C.2.2.2.5).
    :param fuzzy: person names are matched by fuzzy semantics.
    :param timezone: times are adjusted by Timezone Offset From UTC (0008,0201).
    :param enhanced_conversion: Query/Retrieve View (0008,0053) is supported.
    :param empty_value: two quotation marks match empty values.
    :param multiple_value: several values match attributes that have all of them.
    """

    __slots__ = ()
    _NAMES = (
        "relational",
        "combined_date_time",
        "fuzzy",
        "timezone",
        "enhanced_conversion",
        "empty_value",
        "multiple_value",
    )

    def __new__(
        cls,
        *,
        relational: bool = False,
        combined_date_time: bool = False,
        fuzzy: bool = False,
        timezone: bool = False,
        enhanced_conversion: bool = False,
        empty_value: bool = False,
        multiple_value: bool = False,
    ) -> Self:
        return cls.read(
            _flags(
                (relational, combined_date_time, fuzzy, timezone, enhanced_conversion, empty_value, multiple_value),
            )
        )

    @property
    def relational(self) -> bool:
        """Relational queries."""
        return self._byte(0) == 1

    @property
    def combined_date_time(self) -> bool:
        """Combined date and time matching."""
        return self._byte(1) == 1

    @property
    def fuzzy(self) -> bool:
        """Fuzzy semantic matching of person names."""
        return self._byte(2) == 1

    @property
    def timezone(self) -> bool:
        """Timezone query adjustment."""
        return self._byte(3) == 1

    @property
    def enhanced_conversion(self) -> bool:
        """Enhanced multi-frame image conversion."""
        return self._byte(4) == 1

    @property
    def empty_value(self) -> bool:
        """Empty value matching."""
        return self._byte(5) == 1

    @property
    def multiple_value(self) -> bool:
        """Multiple value matching."""
        return self._byte(6) == 1


class RetrieveNegotiation(_Information):
    """Extended negotiation of a C-MOVE or C-GET class (PS3.4 Table C.5-3): what is proposed, or was agreed on.

    :param relational: keys of levels above need not be given (PS3.4 C.4.2.2.2).
    :param enhanced_conversion: Query/Retrieve View (0008,0053) is supported.
    """

    __slots__ = ()
    _NAMES = ("relational", "enhanced_conversion")

    def __new__(cls, *, relational: bool = False, enhanced_conversion: bool = False) -> Self:
        return cls.read(_flags((relational, enhanced_conversion)))

    @property
    def relational(self) -> bool:
        """Relational retrieval."""
        return self._byte(0) == 1

    @property
    def enhanced_conversion(self) -> bool:
        """Enhanced multi-frame image conversion."""
        return self._byte(1) == 1


class StorageNegotiation(_Information):
    """Extended negotiation of a storage class (PS3.4 Table B.3-1): how an SCP stores.

    The defaults are what a requestor says that is an SCU only.

    :param level: the level of support: 0, 1 or 2; 3 does not apply.
    :param digital_signature: the level of digital signature support: 0 unspecified, 1, 2 or 3.
    :param element_coercion: 0 elements are not coerced, 1 they may be, 2 does not apply.
    :raises ValueError: a number is not one of these.
    """

    __slots__ = ()
    _NAMES = ("level", "digital_signature", "element_coercion")

    def __new__(cls, *, level: int = 3, digital_signature: int = 0, element_coercion: int = 2) -> Self:
        for name, value, most in (
            ("level", level, 3),
            ("digital_signature", digital_signature, 3),
            ("element_coercion", element_coercion, 2),
        ):
            if value not in range(most + 1):
                raise ValueError(f"{name} is {value!r}: expected 0 to {most} (PS3.4 B.3.1)")
        return cls.read(bytes((level, 0, digital_signature, 0, element_coercion, 0)))

    @property
    def level(self) -> int:
        """The level of support."""
        return self._byte(0, 3)

    @property
    def digital_signature(self) -> int:
        """The level of digital signature support."""
        return self._byte(2)

    @property
    def element_coercion(self) -> int:
        """Whether elements are coerced."""
        return self._byte(4, 2)


def read_information(sop_class: str, information: bytes) -> bytes:
    """Return the information on a SOP class as something that can be read by name, if its service class is known."""
    if sop_class in FIND:
        return FindNegotiation.read(information)
    if sop_class in MOVE or sop_class in GET:
        return RetrieveNegotiation.read(information)
    if is_storage(sop_class):
        return StorageNegotiation.read(information)
    return information
