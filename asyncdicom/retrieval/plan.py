"""What a C-GET proposes: which presentation contexts, on which of several associations (PS3.4 C.5.3).

Theory of operation
-------------------
An accepted context has one transfer syntax, and an instance comes in that or not at all. So each class is proposed once
for the native syntaxes, to one of which a peer can convert any native instance, and once for each compressed syntax, the
usual ones first. What does not fit into the 128 contexts of one association is left for the next one, which is made only
if something is still missing then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .. import sop
from ..protocol.negotiation import PresentationContext

__all__ = ["Plan"]

_NATIVE = (str(sop.EXPLICIT_VR_LITTLE_ENDIAN), str(sop.IMPLICIT_VR_LITTLE_ENDIAN))

#: Syntaxes of images beside the native ones, the usual ones first.
_USUAL_SYNTAXES: tuple[str, ...] = (
    sop.JPEG_LOSSLESS_SV1,
    sop.JPEG_2000_LOSSLESS,
    sop.JPEG_BASELINE_8BIT,
    sop.JPEG_2000,
    sop.JPEG_LS_LOSSLESS,
    sop.RLE_LOSSLESS,
    sop.JPEG_EXTENDED_12BIT,
)
_OTHER_SYNTAXES: tuple[str, ...] = tuple(
    syntax
    for syntax in sop.TRANSFER_SYNTAXES
    # Real-time video is not stored.
    if syntax.is_encapsulated and not syntax.retired and syntax not in _USUAL_SYNTAXES and "ST 2110" not in syntax.name
)
_VIDEO_SYNTAXES: tuple[str, ...] = tuple(uid for uid in _OTHER_SYNTAXES if "MPEG" in sop.transfer_syntax(uid).name)
#: Native syntaxes for themselves, so that an instance need not be converted.
_SINGLE: tuple[str, ...] = (
    sop.IMPLICIT_VR_LITTLE_ENDIAN,
    sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_BIG_ENDIAN,
)

#: The classes of most of the instances in the world.
_USUAL_CLASSES: tuple[str, ...] = (
    sop.CT_IMAGE_STORAGE,
    sop.MR_IMAGE_STORAGE,
    sop.DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    sop.COMPUTED_RADIOGRAPHY_IMAGE_STORAGE,
    sop.ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE,
    sop.ULTRASOUND_IMAGE_STORAGE,
    sop.SECONDARY_CAPTURE_IMAGE_STORAGE,
    sop.X_RAY_ANGIOGRAPHIC_IMAGE_STORAGE,
    sop.DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
)

_Proposal = tuple[str, tuple[str, ...]]


class Plan:
    """The contexts that are still to be proposed.

    :param classes: the storage SOP classes that are concerned; none if nobody knows.
    :param complete: no others are.
    """

    def __init__(self, classes: Iterable[str], *, complete: bool = False) -> None:
        known = list(dict.fromkeys(map(str, classes)))
        stages = [_for_known(known) if known else _for_unknown()]
        if known and not complete:
            # What is not expected has associations of its own.
            stages.append(_for_unexpected())
        self._stages: list[list[_Proposal]] = []
        before: set[_Proposal] = set()
        for stage in stages:
            made = list(dict.fromkeys(proposal for proposal in stage if proposal not in before))
            before.update(made)
            self._stages.append(made)

    def take(self, most: int) -> list[PresentationContext]:
        """Return the next contexts, at most ``most``; none if there are no others."""
        while self._stages and not self._stages[0]:
            del self._stages[0]
        if not self._stages:
            return []
        chosen, self._stages[0] = self._stages[0][:most], self._stages[0][most:]
        return [
            # The roles are those of any storage class beside a C-GET class.
            PresentationContext(abstract_syntax=uid, transfer_syntaxes=syntaxes)
            for uid, syntaxes in chosen
        ]


def _for_known(classes: Sequence[str]) -> Iterator[_Proposal]:
    images = [uid for uid in classes if _has_images(uid)]
    yield from ((uid, _NATIVE) for uid in classes)
    yield from _compressed(images)
    yield from _each(_SINGLE, classes)
    yield from _each((*_USUAL_SYNTAXES, *_OTHER_SYNTAXES), [uid for uid in classes if uid not in images])


def _for_unexpected() -> Iterator[_Proposal]:
    yield from ((str(uid), _NATIVE) for uid in sop.STORAGE_COMMON)


def _for_unknown() -> Iterator[_Proposal]:
    classes = list(dict.fromkeys(map(str, (*_USUAL_CLASSES, *sop.STORAGE_COMMON))))
    yield from ((uid, _NATIVE) for uid in classes)
    yield from _each(_USUAL_SYNTAXES, list(map(str, _USUAL_CLASSES)))
    yield from _compressed([uid for uid in classes if _has_images(uid)])
    yield from _each(_SINGLE, classes)


def _compressed(classes: Sequence[str]) -> Iterator[_Proposal]:
    yield from _each(_VIDEO_SYNTAXES, [uid for uid in classes if "Video" in sop.lookup(uid).keyword])
    yield from _each(_USUAL_SYNTAXES, classes)
    yield from _each(_OTHER_SYNTAXES, classes)


def _each(syntaxes: Iterable[str], classes: Sequence[str]) -> Iterator[_Proposal]:
    """Yield every pair, the syntaxes in their order."""
    for syntax in syntaxes:
        yield from ((uid, (str(syntax),)) for uid in classes)


def _has_images(uid: str) -> bool:
    """Tell whether instances of a class may have compressed pixel data, as far as its name says."""
    keyword = sop.lookup(uid).keyword
    return not keyword or any(word in keyword for word in ("Image", "Volume", "Segmentation", "ParametricMap", "Video"))
