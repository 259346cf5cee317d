"""What a C-GET proposes: which presentation contexts, on which of several associations (PS3.4 C.5.3).

A context that was accepted has one transfer syntax, and an instance can only come in that. So each class is proposed once
for the native syntaxes, one of which a peer can convert any native instance to, and once for each compressed syntax; what
does not fit into the 128 contexts of an association is left for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .. import PresentationContext, sop
from .scan import MOST_CONTEXTS

__all__ = ["Plan"]

_NATIVE = (str(sop.EXPLICIT_VR_LITTLE_ENDIAN), str(sop.IMPLICIT_VR_LITTLE_ENDIAN))

#: Syntaxes of images beside the native ones, the usual ones first.
_USUAL_SYNTAXES = (
    sop.JPEG_LOSSLESS_SV1,
    sop.JPEG_2000_LOSSLESS,
    sop.JPEG_BASELINE_8BIT,
    sop.JPEG_2000,
    sop.JPEG_LS_LOSSLESS,
    sop.RLE_LOSSLESS,
    sop.JPEG_EXTENDED_12BIT,
)
_OTHER_SYNTAXES = tuple(
    syntax
    for syntax in sop.TRANSFER_SYNTAXES
    # Real-time video is not stored.
    if syntax.is_encapsulated and not syntax.retired and syntax not in _USUAL_SYNTAXES and "ST 2110" not in syntax.name
)
#: Native syntaxes for themselves, so that an instance need not be converted.
_SINGLE = (sop.IMPLICIT_VR_LITTLE_ENDIAN, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, sop.EXPLICIT_VR_BIG_ENDIAN)

#: The classes of most of the instances in the world.
_USUAL_CLASSES = (
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


class Plan:
    """The contexts that are still to be proposed.

    :param classes: the storage SOP classes that are concerned; none if nobody knows.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        known = list(dict.fromkeys(map(str, classes)))
        if not known:
            known = list(dict.fromkeys(map(str, (*_USUAL_CLASSES, *sop.STORAGE_COMMON))))
        self._left = list(dict.fromkeys(_proposals(known)))

    def take(self, *besides: str) -> list[str | PresentationContext]:
        """Return the contexts of the next association: ``besides``, and as many of what is left as fit."""
        room = MOST_CONTEXTS - len(besides)
        chosen, self._left = self._left[:room], self._left[room:]
        return [*besides, *(PresentationContext(abstract_syntax=u, transfer_syntaxes=s) for u, s in chosen)]

    def __bool__(self) -> bool:
        return bool(self._left)


def _proposals(classes: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (SOP class, transfer syntaxes), the likely ones first."""
    images = [uid for uid in classes if _has_images(uid)]
    videos = [uid for uid in images if "Video" in sop.lookup(uid).keyword]
    yield from ((uid, _NATIVE) for uid in classes)
    for uid in videos:
        yield from ((uid, (str(syntax),)) for syntax in _OTHER_SYNTAXES if "MPEG" in syntax.name)
    for syntaxes, concerned in ((_USUAL_SYNTAXES, images), (_SINGLE, classes), (_OTHER_SYNTAXES, images)):
        for syntax in syntaxes:
            yield from ((uid, (str(syntax),)) for uid in concerned)


def _has_images(uid: str) -> bool:
    """Tell whether instances of a class may have compressed pixel data, as far as their names say."""
    keyword = sop.lookup(uid).keyword
    return not keyword or any(word in keyword for word in ("Image", "Volume", "Segmentation", "ParametricMap"))
