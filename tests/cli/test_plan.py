from __future__ import annotations

from collections.abc import Sequence

import pytest

from asyncdicom import PresentationContext, sop
from asyncdicom.cli.plan import Plan

NATIVE = (sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN)


def pairs(contexts: Sequence[str | PresentationContext]) -> list[tuple[str, tuple[str, ...]]]:
    return [
        (context.abstract_syntax, tuple(context.transfer_syntaxes))
        for context in contexts
        if isinstance(context, PresentationContext)
    ]


def test_a_class_is_proposed_natively_and_with_each_compressed_syntax() -> None:
    first, *contexts = Plan([sop.CT_IMAGE_STORAGE]).take(sop.STUDY_ROOT_GET)
    assert first == sop.STUDY_ROOT_GET
    proposed = pairs(contexts)
    assert proposed[0] == (sop.CT_IMAGE_STORAGE, NATIVE)
    assert all(len(syntaxes) == 1 for _, syntaxes in proposed[1:])
    syntaxes = {syntaxes[0] for _, syntaxes in proposed[1:]}
    assert {sop.JPEG_LOSSLESS_SV1, sop.JPEG_2000, sop.RLE_LOSSLESS, sop.HTJ2K, sop.EXPLICIT_VR_BIG_ENDIAN} <= syntaxes
    assert sop.SMPTE_ST_2110_30_PCM_DIGITAL_AUDIO not in syntaxes


def test_documents_have_no_compressed_pixel_data() -> None:
    proposed = pairs(Plan([sop.ENCAPSULATED_PDF_STORAGE]).take())
    assert all(sop.transfer_syntax(syntax).is_native for _, syntaxes in proposed for syntax in syntaxes)


def test_video_comes_first_for_classes_of_video() -> None:
    proposed = pairs(Plan([sop.VIDEO_ENDOSCOPIC_IMAGE_STORAGE]).take())
    assert "MPEG" in sop.transfer_syntax(proposed[1][1][0]).name


@pytest.mark.parametrize(
    "classes",
    [
        [],
        [sop.CT_IMAGE_STORAGE, sop.MR_IMAGE_STORAGE, sop.ENHANCED_SR_STORAGE, "1.2.3.4.5"],
        list(sop.STORAGE),
    ],
)
def test_everything_is_proposed_once_and_never_more_than_fits(classes: list[str]) -> None:
    plan = Plan(classes)
    seen: list[tuple[str, tuple[str, ...]]] = []
    while plan:
        contexts = plan.take(sop.STUDY_ROOT_GET)
        assert 1 < len(contexts) <= 128
        seen += pairs(contexts)
    assert len(seen) == len(set(seen))
    natives = {uid for uid, syntaxes in seen if syntaxes == NATIVE}
    assert natives == set(classes or sop.STORAGE_COMMON)


def test_native_syntaxes_and_usual_classes_go_out_first() -> None:
    first = pairs(Plan([]).take(sop.STUDY_ROOT_GET))
    assert {uid for uid, syntaxes in first if syntaxes == NATIVE} == set(sop.STORAGE_COMMON)
    assert (sop.CT_IMAGE_STORAGE, (sop.JPEG_LOSSLESS_SV1,)) in first
