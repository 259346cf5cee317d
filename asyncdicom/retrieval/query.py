"""What a retrieval asks for: information models, levels and identifiers (PS3.4 C.3, C.6, Y.3 and Z.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .. import sop
from ..exceptions import LocalProtocolError
from ..fitting import divide, fit
from ..identifiers import make_identifier
from ..settings import PeerProfile

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["LEVELS", "Model", "Part", "Place", "Query", "find_models", "parts_of", "retrieve_models"]

#: The levels, from the top, with their unique keys (PS3.4 C.6.1.1). FRAME is of Composite Instance Root alone (Y.3.1).
LEVELS: Mapping[str, str] = MappingProxyType(
    {
        "PATIENT": "PatientID",
        "STUDY": "StudyInstanceUID",
        "SERIES": "SeriesInstanceUID",
        "IMAGE": "SOPInstanceUID",
        "FRAME": "SOPInstanceUID",
    }
)

#: The unique keys above an instance, by keyword.
Place = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An information model.

    :ivar find: its C-FIND SOP class; empty if it has none. The same for ``get`` and ``move``.
    :ivar levels: its levels, from the top.
    :ivar is_flat: instances are named by their UID alone, and nothing above them can be (PS3.4 Y.4.2.1.4, Z.4.2.1.4).
    """

    name: str
    find: str = ""
    get: str = ""
    move: str = ""
    levels: tuple[str, ...]
    is_flat: bool = False

    def __contains__(self, sop_class: str) -> bool:
        return bool(sop_class) and sop_class in (self.find, self.get, self.move)


#: The models, in our order of preference.
_MODELS = (
    Model(
        name="Study Root",
        find=sop.STUDY_ROOT_FIND,
        get=sop.STUDY_ROOT_GET,
        move=sop.STUDY_ROOT_MOVE,
        levels=("STUDY", "SERIES", "IMAGE"),
    ),
    Model(
        name="Patient Root",
        find=sop.PATIENT_ROOT_FIND,
        get=sop.PATIENT_ROOT_GET,
        move=sop.PATIENT_ROOT_MOVE,
        levels=("PATIENT", "STUDY", "SERIES", "IMAGE"),
    ),
    Model(
        name="Patient/Study Only",
        find=sop.PATIENT_STUDY_ONLY_FIND,
        get=sop.PATIENT_STUDY_ONLY_GET,
        move=sop.PATIENT_STUDY_ONLY_MOVE,
        levels=("PATIENT", "STUDY"),
    ),
    Model(
        name="Composite Instance Root",
        get=sop.COMPOSITE_INSTANCE_ROOT_GET,
        move=sop.COMPOSITE_INSTANCE_ROOT_MOVE,
        levels=("IMAGE", "FRAME"),
        is_flat=True,
    ),
    Model(
        name="Composite Instance Retrieve Without Bulk Data",
        get=sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
        levels=("IMAGE",),
        is_flat=True,
    ),
)


def retrieve_models(sop_class: str | None, level: str) -> tuple[Model, ...]:
    """Return the models that may be used for a retrieval, the best first.

    :param sop_class: any class of the one that is wanted, or ``None``.
    :raises LocalProtocolError: it is of none, or its model has no such level.
    """
    if sop_class is None:
        return find_models(level) or tuple(model for model in _MODELS if level in model.levels)
    for model in _MODELS:
        if sop_class in model:
            if level not in model.levels and not (model.is_flat and find_models(level)):
                raise LocalProtocolError(f"the {model.name} model has no level {level}: it has {model.levels}")
            return (model,)
    raise LocalProtocolError(f"{sop_class[:64]!r} is no class of a Query/Retrieve information model")


def find_models(level: str) -> tuple[Model, ...]:
    """Return the models that have C-FIND at a level, the best first."""
    return tuple(model for model in _MODELS if model.find and level in model.levels)


@dataclass(frozen=True, slots=True)
class Part:
    """What one request asks for.

    :ivar identifier: its identifier.
    :ivar uids: the SOP Instance UIDs in it; empty if instances are not named.
    """

    identifier: Dataset
    uids: tuple[str, ...] = ()


class Query:
    """The identifier of a retrieval.

    :param query: a data set, a mapping of keywords to values, or ``None``.
    :param keys: more of the same.
    :param level: the Query/Retrieve Level, if it is not among them; without any it is that of the lowest unique key
        that has a value.
    :param profile: says what the peer understands.
    :raises LocalProtocolError: there is no level, a key is unknown, or the peer understands it in no way.
    :raises DataSetError: a value does not suit its attribute.

    :ivar level: the level, in capitals.
    """

    def __init__(
        self, query: Any, keys: Mapping[str, object], level: str | None, profile: PeerProfile | None = None
    ) -> None:
        if isinstance(query, bytes):
            raise LocalProtocolError("a retrieval may have to divide its identifier: give a data set or a mapping")
        if query is None and not keys:
            raise LocalProtocolError("the identifier is empty: give at least one key")
        identifier = make_identifier(query, keys, level, "")
        found = str(identifier.get("QueryRetrieveLevel") or "").strip().upper()
        if not found:
            named = [name for name, keyword in LEVELS.items() if _values(identifier, keyword) and name != "FRAME"]
            if not named:
                raise LocalProtocolError(
                    "nothing says what to retrieve: give a level or a unique key, such as StudyInstanceUID=..."
                )
            found = named[-1]
        if found not in LEVELS:
            raise LocalProtocolError(f"{found[:16]!r} is no Query/Retrieve Level: expected one of {', '.join(LEVELS)}")
        identifier.QueryRetrieveLevel = found
        self.level = found
        self._profile = profile or PeerProfile()
        if found != "PATIENT" and (uids := list(dict.fromkeys(_values(identifier, LEVELS[found])))):
            identifier = make_identifier(identifier, {LEVELS[found]: uids}, None, "")
        self._identifier = identifier
        self._fitted = fit(identifier, self._profile)

    def values(self, keyword: str) -> list[str]:
        """Return the values of a key."""
        return _values(self._identifier, keyword)

    @property
    def names_instances(self) -> bool:
        """Whether it names instances, not what they belong to."""
        return LEVELS[self.level] == "SOPInstanceUID"

    def split(self) -> list[Part]:
        """Return what to ask for, in as many requests as it takes (:mod:`..fitting`)."""
        return [
            Part(identifier, tuple(_values(identifier, "SOPInstanceUID")) if self.names_instances else ())
            for identifier in self._fitted
        ]

    def narrowed(self, uids: Iterable[str]) -> list[Part]:
        """Return the same, at the level of instances, for these instances only."""
        return [
            Part(make_identifier(self._identifier, {"SOPInstanceUID": chunk}, None, ""), tuple(chunk))
            for chunk in divide(uids, lists=self._profile.uid_lists)
        ]

    def places(self) -> Iterator[dict[str, str | list[str]]]:
        """Yield its unique keys and their values, part by part."""
        keywords = dict.fromkeys(LEVELS.values())
        for part in self.split():
            found = {keyword: _values(part.identifier, keyword) for keyword in keywords}
            yield {key: values[0] if len(values) == 1 else values for key, values in found.items() if values}


def _values(identifier: Dataset, keyword: str) -> list[str]:
    value: Any = identifier.get(keyword)
    if value is None or value == "":
        return []
    values = [value] if isinstance(value, str) else list(value)
    return [str(one) for one in values if str(one)]


def parts_of(uids: Iterable[str], places: Mapping[str, Place], *, lists: bool = True) -> list[Part]:
    """Return what to ask for to get these instances, which are in the given places; flat models know of none.

    :param lists: several may be asked for in one request.
    """
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for uid in uids:
        groups.setdefault(tuple(places.get(uid, {}).items()), []).append(uid)
    return [
        Part(make_identifier(None, {**dict(place), "SOPInstanceUID": chunk}, "IMAGE", ""), tuple(chunk))
        for place, together in groups.items()
        for chunk in divide(together, lists=lists)
    ]
