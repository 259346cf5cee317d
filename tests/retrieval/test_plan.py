"""Which presentation contexts are proposed for a C-GET, and in which order."""

from __future__ import annotations

import pytest

from asyncdicom import PresentationContext, sop
from asyncdicom.retrieval.plan import Plan

CT, SR = sop.CT_IMAGE_STORAGE, sop.ENHANCED_SR_STORAGE
PRIVATE = "1.2.3.4.5"
NATIVE = (sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN)


def all_of(plan: Plan, most: int = 126) -> list[list[PresentationContext]]:
    """Take everything."""
    found = []
    while contexts := plan.take(most):
        found.append(contexts)
    return found


def pairs(contexts: list[PresentationContext]) -> list[tuple[str, tuple[str, ...]]]:
    return [(context.abstract_syntax, context.transfer_syntaxes) for context in contexts]


def test_each_class_is_proposed_for_the_native_syntaxes_first_and_for_each_compressed_one() -> None:
    found = pairs([context for contexts in all_of(Plan([CT, SR, PRIVATE], complete=True)) for context in contexts])
    assert found[:3] == [(CT, NATIVE), (SR, NATIVE), (PRIVATE, NATIVE)]
    current = {syntax for syntax in sop.TRANSFER_SYNTAXES if syntax.is_encapsulated and not syntax.retired}
    for uid in (CT, SR, PRIVATE):
        single = {syntaxes[0] for sop_class, syntaxes in found if sop_class == uid and len(syntaxes) == 1}
        assert {syntax for syntax in current if "ST 2110" not in syntax.name} <= single
        assert {sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, sop.EXPLICIT_VR_BIG_ENDIAN} <= single


def test_nothing_is_proposed_twice_and_the_roles_are_left_to_the_profile_of_the_peer() -> None:
    contexts = [context for contexts in all_of(Plan([CT, CT, SR])) for context in contexts]
    assert len(set(pairs(contexts))) == len(contexts)
    assert {(context.scu_role, context.scp_role) for context in contexts} == {(None, None)}


@pytest.mark.parametrize("most", [1, 10, 126])
def test_as_many_as_fit_are_taken_at_once(most: int) -> None:
    sizes = [len(contexts) for contexts in all_of(Plan([CT]), most)]
    assert max(sizes) <= most
    assert sum(sizes) == sum(len(contexts) for contexts in all_of(Plan([CT])))


def test_what_is_not_expected_comes_after_all_that_is_on_an_association_of_its_own() -> None:
    first, *others = all_of(Plan([CT]))
    assert {uid for uid, _ in pairs(first)} == {CT}
    assert {syntaxes for _, syntaxes in pairs(others[0])} == {NATIVE}
    assert {uid for uid, _ in pairs(others[0])} | {CT} == set(sop.STORAGE_COMMON)
    assert len(others) == 1
    assert len(all_of(Plan([CT], complete=True))) == 1


def test_when_nobody_knows_the_common_classes_are_proposed_the_native_syntaxes_first() -> None:
    first, *others = all_of(Plan([]))
    assert set(pairs(first)) >= {(uid, NATIVE) for uid in sop.STORAGE_COMMON}
    assert pairs(first)[0] == (CT, NATIVE)
    # What most compressed images in the world need is in it, too.
    for syntax in (sop.JPEG_LOSSLESS_SV1, sop.JPEG_2000_LOSSLESS):
        assert (CT, (syntax,)) in pairs(first)
    assert (CT, (sop.RLE_LOSSLESS,)) in pairs(others[0])
    assert all(len(contexts) <= 126 for contexts in (first, *others))


def test_videos_are_asked_for_in_the_syntaxes_of_videos_early() -> None:
    found = pairs(Plan([sop.VIDEO_ENDOSCOPIC_IMAGE_STORAGE]).take(12))
    assert any("MPEG" in sop.transfer_syntax(syntaxes[0]).name for _, syntaxes in found[1:5])
