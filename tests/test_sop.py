"""SOP classes and transfer syntaxes: the tables are those of PS3.6, and the groups fit their purpose."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID, generate_uid

from asyncdicom import sop
from asyncdicom.sop import SOPClass, TransferSyntax

ROOT = "1.2.840.10008."

#: PS3.4: service class -> UIDs below 1.2.840.10008, current classes only.
SERVICES = {
    "Application Event Logging": """
        1.40 1.42
    """,
    "Basic Worklist Management": """
        5.1.4.31
    """,
    "Color Palette Query/Retrieve": """
        5.1.4.39.2 5.1.4.39.3 5.1.4.39.4
    """,
    "Defined Procedure Protocol Query/Retrieve": """
        5.1.4.20.1 5.1.4.20.2 5.1.4.20.3
    """,
    "Display System Management": """
        5.1.1.40
    """,
    "Hanging Protocol Query/Retrieve": """
        5.1.4.38.2 5.1.4.38.3 5.1.4.38.4
    """,
    "Implant Template Query/Retrieve": """
        5.1.4.43.2 5.1.4.43.3 5.1.4.43.4 5.1.4.44.2 5.1.4.44.3 5.1.4.44.4 5.1.4.45.2 5.1.4.45.3 5.1.4.45.4
    """,
    "Instance Availability Notification": """
        5.1.4.33
    """,
    "Inventory Query/Retrieve": """
        5.1.4.1.1.201.2 5.1.4.1.1.201.3 5.1.4.1.1.201.4
    """,
    "Media Creation Management": """
        5.1.1.33
    """,
    "Media Storage": """
        1.3.10
    """,
    "Non-Patient Object Storage": """
        5.1.4.38.1 5.1.4.39.1 5.1.4.43.1 5.1.4.44.1 5.1.4.45.1 5.1.4.1.1.200.1 5.1.4.1.1.200.3 5.1.4.1.1.200.7
        5.1.4.1.1.201.1
    """,
    "Print Management": """
        5.1.1.1 5.1.1.2 5.1.1.4 5.1.1.4.1 5.1.1.14 5.1.1.15 5.1.1.16 5.1.1.16.376 5.1.1.22 5.1.1.23 5.1.1.9 5.1.1.18
    """,
    "Procedure Step": """
        3.1.2.3.3 3.1.2.3.4 3.1.2.3.5
    """,
    "Protocol Approval Query/Retrieve": """
        5.1.4.1.1.200.4 5.1.4.1.1.200.5 5.1.4.1.1.200.6
    """,
    "Query/Retrieve": """
        5.1.4.1.2.1.1 5.1.4.1.2.1.2 5.1.4.1.2.1.3 5.1.4.1.2.2.1 5.1.4.1.2.2.2 5.1.4.1.2.2.3 5.1.4.1.2.3.1
        5.1.4.1.2.3.2 5.1.4.1.2.3.3 5.1.4.1.2.4.2 5.1.4.1.2.4.3 5.1.4.1.2.5.3 5.1.4.1.1.201.6
    """,
    "Relevant Patient Information Query": """
        5.1.4.37.1 5.1.4.37.2 5.1.4.37.3
    """,
    "RT Machine Verification": """
        5.1.4.34.8 5.1.4.34.9
    """,
    "Storage": """
        5.1.4.1.1.1 5.1.4.1.1.1.1 5.1.4.1.1.1.1.1 5.1.4.1.1.1.2 5.1.4.1.1.1.2.1 5.1.4.1.1.1.3 5.1.4.1.1.1.3.1
        5.1.4.1.1.2 5.1.4.1.1.2.1 5.1.4.1.1.2.2 5.1.4.1.1.3.1 5.1.4.1.1.4 5.1.4.1.1.4.1 5.1.4.1.1.4.2
        5.1.4.1.1.4.3 5.1.4.1.1.4.4 5.1.4.1.1.6.1 5.1.4.1.1.6.2 5.1.4.1.1.6.3 5.1.4.1.1.7 5.1.4.1.1.7.1
        5.1.4.1.1.7.2 5.1.4.1.1.7.3 5.1.4.1.1.7.4 5.1.4.1.1.9.1.1 5.1.4.1.1.9.1.2 5.1.4.1.1.9.1.3
        5.1.4.1.1.9.1.4 5.1.4.1.1.9.2.1 5.1.4.1.1.9.3.1 5.1.4.1.1.9.4.1 5.1.4.1.1.9.4.2 5.1.4.1.1.9.5.1
        5.1.4.1.1.9.6.1 5.1.4.1.1.9.6.2 5.1.4.1.1.9.7.1 5.1.4.1.1.9.7.2 5.1.4.1.1.9.7.3 5.1.4.1.1.9.7.4
        5.1.4.1.1.9.8.1 5.1.4.1.1.9.100.1 5.1.4.1.1.9.100.2 5.1.4.1.1.11.1 5.1.4.1.1.11.2 5.1.4.1.1.11.3
        5.1.4.1.1.11.4 5.1.4.1.1.11.5 5.1.4.1.1.11.6 5.1.4.1.1.11.7 5.1.4.1.1.11.8 5.1.4.1.1.11.9
        5.1.4.1.1.11.10 5.1.4.1.1.11.11 5.1.4.1.1.11.12 5.1.4.1.1.12.1 5.1.4.1.1.12.1.1 5.1.4.1.1.12.2
        5.1.4.1.1.12.2.1 5.1.4.1.1.13.1.1 5.1.4.1.1.13.1.2 5.1.4.1.1.13.1.3 5.1.4.1.1.13.1.4 5.1.4.1.1.13.1.5
        5.1.4.1.1.14.1 5.1.4.1.1.14.2 5.1.4.1.1.20 5.1.4.1.1.30 5.1.4.1.1.66 5.1.4.1.1.66.1 5.1.4.1.1.66.2
        5.1.4.1.1.66.3 5.1.4.1.1.66.4 5.1.4.1.1.66.5 5.1.4.1.1.66.6 5.1.4.1.1.66.7 5.1.4.1.1.66.8 5.1.4.1.1.67
        5.1.4.1.1.68.1 5.1.4.1.1.68.2 5.1.4.1.1.77.1.1 5.1.4.1.1.77.1.1.1 5.1.4.1.1.77.1.2 5.1.4.1.1.77.1.2.1
        5.1.4.1.1.77.1.3 5.1.4.1.1.77.1.4 5.1.4.1.1.77.1.4.1 5.1.4.1.1.77.1.5.1 5.1.4.1.1.77.1.5.2
        5.1.4.1.1.77.1.5.3 5.1.4.1.1.77.1.5.4 5.1.4.1.1.77.1.5.5 5.1.4.1.1.77.1.5.6 5.1.4.1.1.77.1.5.7
        5.1.4.1.1.77.1.5.8 5.1.4.1.1.77.1.6 5.1.4.1.1.77.1.7 5.1.4.1.1.77.1.8 5.1.4.1.1.77.1.9 5.1.4.1.1.78.1
        5.1.4.1.1.78.2 5.1.4.1.1.78.3 5.1.4.1.1.78.4 5.1.4.1.1.78.5 5.1.4.1.1.78.6 5.1.4.1.1.78.7 5.1.4.1.1.78.8
        5.1.4.1.1.79.1 5.1.4.1.1.80.1 5.1.4.1.1.81.1 5.1.4.1.1.82.1 5.1.4.1.1.88.11 5.1.4.1.1.88.22
        5.1.4.1.1.88.33 5.1.4.1.1.88.34 5.1.4.1.1.88.35 5.1.4.1.1.88.40 5.1.4.1.1.88.50 5.1.4.1.1.88.59
        5.1.4.1.1.88.65 5.1.4.1.1.88.67 5.1.4.1.1.88.68 5.1.4.1.1.88.69 5.1.4.1.1.88.70 5.1.4.1.1.88.71
        5.1.4.1.1.88.72 5.1.4.1.1.88.73 5.1.4.1.1.88.74 5.1.4.1.1.88.75 5.1.4.1.1.88.76 5.1.4.1.1.88.77
        5.1.4.1.1.90.1 5.1.4.1.1.91.1 5.1.4.1.1.104.1 5.1.4.1.1.104.2 5.1.4.1.1.104.3 5.1.4.1.1.104.4
        5.1.4.1.1.104.5 5.1.4.1.1.128 5.1.4.1.1.128.1 5.1.4.1.1.130 5.1.4.1.1.131 5.1.4.1.1.200.2
        5.1.4.1.1.200.8 5.1.4.1.1.481.1 5.1.4.1.1.481.2 5.1.4.1.1.481.3 5.1.4.1.1.481.4 5.1.4.1.1.481.5
        5.1.4.1.1.481.6 5.1.4.1.1.481.7 5.1.4.1.1.481.8 5.1.4.1.1.481.9 5.1.4.1.1.481.10 5.1.4.1.1.481.11
        5.1.4.1.1.481.12 5.1.4.1.1.481.13 5.1.4.1.1.481.14 5.1.4.1.1.481.15 5.1.4.1.1.481.16 5.1.4.1.1.481.17
        5.1.4.1.1.481.18 5.1.4.1.1.481.19 5.1.4.1.1.481.20 5.1.4.1.1.481.21 5.1.4.1.1.481.22 5.1.4.1.1.481.23
        5.1.4.1.1.481.24 5.1.4.1.1.481.25 5.1.4.34.7 5.1.4.34.10
        5.1.4.1.1.501.1 5.1.4.1.1.501.2.1 5.1.4.1.1.501.2.2 5.1.4.1.1.501.3 5.1.4.1.1.501.4 5.1.4.1.1.501.5
        5.1.4.1.1.501.6 5.1.4.1.1.601.1 5.1.4.1.1.601.2
    """,
    "Storage Commitment": """
        1.20.1
    """,
    "Storage Management": """
        5.1.4.1.1.201.5
    """,
    "Substance Administration Query": """
        5.1.4.41 5.1.4.42
    """,
    "Unified Procedure Step": """
        5.1.4.34.6.1 5.1.4.34.6.2 5.1.4.34.6.3 5.1.4.34.6.4 5.1.4.34.6.5
    """,
    "Real-Time Communication": """
        10.1 10.2 10.3 10.4
    """,
    "Verification": """
        1.1
    """,
}

#: The classes of the Query/Retrieve service (PS3.4 C.6, Y.6, Z.6).
QUERY_RETRIEVE = [
    (sop.PATIENT_ROOT_FIND, "1.2.840.10008.5.1.4.1.2.1.1", "PatientRootQueryRetrieveInformationModelFind"),
    (sop.PATIENT_ROOT_MOVE, "1.2.840.10008.5.1.4.1.2.1.2", "PatientRootQueryRetrieveInformationModelMove"),
    (sop.PATIENT_ROOT_GET, "1.2.840.10008.5.1.4.1.2.1.3", "PatientRootQueryRetrieveInformationModelGet"),
    (sop.STUDY_ROOT_FIND, "1.2.840.10008.5.1.4.1.2.2.1", "StudyRootQueryRetrieveInformationModelFind"),
    (sop.STUDY_ROOT_MOVE, "1.2.840.10008.5.1.4.1.2.2.2", "StudyRootQueryRetrieveInformationModelMove"),
    (sop.STUDY_ROOT_GET, "1.2.840.10008.5.1.4.1.2.2.3", "StudyRootQueryRetrieveInformationModelGet"),
    (sop.PATIENT_STUDY_ONLY_FIND, "1.2.840.10008.5.1.4.1.2.3.1", "PatientStudyOnlyQueryRetrieveInformationModelFind"),
    (sop.PATIENT_STUDY_ONLY_MOVE, "1.2.840.10008.5.1.4.1.2.3.2", "PatientStudyOnlyQueryRetrieveInformationModelMove"),
    (sop.PATIENT_STUDY_ONLY_GET, "1.2.840.10008.5.1.4.1.2.3.3", "PatientStudyOnlyQueryRetrieveInformationModelGet"),
    (sop.COMPOSITE_INSTANCE_ROOT_MOVE, "1.2.840.10008.5.1.4.1.2.4.2", "CompositeInstanceRootRetrieveMove"),
    (sop.COMPOSITE_INSTANCE_ROOT_GET, "1.2.840.10008.5.1.4.1.2.4.3", "CompositeInstanceRootRetrieveGet"),
    (
        sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
        "1.2.840.10008.5.1.4.1.2.5.3",
        "CompositeInstanceRetrieveWithoutBulkDataGet",
    ),
]

#: In PS3.6, but younger than some versions of pydicom.
YOUNG = {
    "1.2.840.10008.5.1.4.1.1.9.100.1": "WaveformPresentationStateStorage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "WaveformAcquisitionPresentationStateStorage",
    "1.2.840.10008.5.1.4.1.1.66.7": "LabelMapSegmentationStorage",
    "1.2.840.10008.5.1.4.1.1.66.8": "HeightMapSegmentationStorage",
}
YOUNG_SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEGXLLossless",
    "1.2.840.10008.1.2.4.111": "JPEGXLJPEGRecompression",
    "1.2.840.10008.1.2.4.112": "JPEGXL",
    "1.2.840.10008.1.2.8.1": "DeflatedImageFrameCompression",
}


def of_type(*types: str) -> dict[str, tuple[str, ...]]:
    """Give what pydicom has of these types and can name: UID -> (name, type, info, retired, keyword)."""
    return {uid: row for uid, row in UID_dictionary.items() if row[1] in types and row[4]}


def test_every_sop_class_of_pydicom_is_known_and_described_alike() -> None:
    for uid, (name, _, _, retired, keyword) in of_type("SOP Class", "Meta SOP Class").items():
        known = sop.lookup(uid)
        assert (known, known.name, known.keyword, known.retired) == (uid, name, keyword, bool(retired))


def test_no_sop_class_is_known_that_the_standard_does_not_have() -> None:
    extra = {
        str(known): known.keyword for known in sop.SOP_CLASSES if known not in of_type("SOP Class", "Meta SOP Class")
    }
    assert extra == {uid: keyword for uid, keyword in YOUNG.items() if uid in extra}
    assert {uid: sop.lookup(uid).keyword for uid in YOUNG} == YOUNG


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_class_has_the_current_sop_classes_of_the_standard(service: str) -> None:
    expected = {ROOT + uid for uid in SERVICES[service].split()}
    assert {sop.lookup(uid).service for uid in expected} == {service}
    # Patient/Study Only is retired, and as alive as ever.
    retired = {known for known in sop.SOP_CLASSES if known.retired} - set(sop.FIND + sop.MOVE + sop.GET)
    assert {known for known in sop.SOP_CLASSES if known.service == service} - retired == expected


def test_every_current_sop_class_is_listed_here() -> None:
    listed = {ROOT + uid for uids in SERVICES.values() for uid in uids.split()}
    assert {known for known in sop.SOP_CLASSES if not known.retired} <= listed


def test_every_sop_class_has_a_service() -> None:
    assert all(known.service for known in sop.SOP_CLASSES)
    assert len({known.keyword for known in sop.SOP_CLASSES}) == len(sop.SOP_CLASSES)


def test_storage_holds_what_has_storage_in_its_name_and_nothing_else() -> None:
    expected = {
        uid
        for uid, (name, *_) in of_type("SOP Class").items()
        if "Storage" in name and not name.startswith(("Storage Commitment", "Media Storage"))
    }
    assert set(sop.STORAGE) == expected | set(YOUNG)
    assert len(sop.STORAGE) == len(set(sop.STORAGE))
    for known in sop.SOP_CLASSES:
        assert known.is_storage == sop.is_storage(known) == (known in sop.STORAGE)


@pytest.mark.parametrize(
    "known",
    [
        sop.ULTRASOUND_IMAGE_STORAGE_RETIRED,
        sop.HARDCOPY_COLOR_IMAGE_STORAGE,
        sop.DICOSCT_IMAGE_STORAGE,
        sop.DICOS_2D_AIT_STORAGE,
        sop.EDDY_CURRENT_IMAGE_STORAGE,
        sop.HANGING_PROTOCOL_STORAGE,
        sop.RT_BEAMS_DELIVERY_INSTRUCTION_STORAGE,
    ],
)
def test_retired_industrial_and_non_patient_classes_are_storage_too(known: SOPClass) -> None:
    assert known.is_storage
    assert known in sop.STORAGE


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.1.3.10", "1.2.840.10008.1.1", "1.2.3", "", "1.2.840.10008.5.1.4.1.1.2\0"]
)
def test_a_dicomdir_verification_and_anything_unknown_are_not_storage(uid: str) -> None:
    assert not sop.is_storage(uid)


def test_storage_common_fits_beside_verification_and_query_retrieve_into_128_contexts() -> None:
    assert len(set(sop.STORAGE_COMMON)) == len(sop.STORAGE_COMMON) <= 100
    assert set(sop.STORAGE_COMMON) <= set(sop.STORAGE)
    assert 1 + len(sop.FIND + sop.MOVE + sop.GET) + len(sop.STORAGE_COMMON) <= 128


@pytest.mark.parametrize(
    "known",
    [
        sop.CT_IMAGE_STORAGE,
        sop.MR_IMAGE_STORAGE,
        sop.ENHANCED_MR_IMAGE_STORAGE,
        sop.DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
        sop.ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE,
        sop.SECONDARY_CAPTURE_IMAGE_STORAGE,
        sop.TWELVE_LEAD_ECG_WAVEFORM_STORAGE,
        sop.KEY_OBJECT_SELECTION_DOCUMENT_STORAGE,
        sop.X_RAY_RADIATION_DOSE_SR_STORAGE,
        sop.RT_PLAN_STORAGE,
        sop.SEGMENTATION_STORAGE,
        sop.ENCAPSULATED_PDF_STORAGE,
        sop.VL_WHOLE_SLIDE_MICROSCOPY_IMAGE_STORAGE,
    ],
)
def test_storage_common_holds_what_every_hospital_has(known: SOPClass) -> None:
    assert known in sop.STORAGE_COMMON


@pytest.mark.parametrize(("known", "uid", "keyword"), QUERY_RETRIEVE)
def test_a_query_retrieve_class_has_a_short_name_and_a_group(known: SOPClass, uid: str, keyword: str) -> None:
    assert (known, known.keyword, known.service) == (uid, keyword, "Query/Retrieve")
    group = {"Find": sop.FIND, "Move": sop.MOVE, "Get": sop.GET}[re.split("(?=[A-Z])", keyword)[-1]]
    assert known in group


def test_the_groups_hold_nothing_but_query_retrieve() -> None:
    assert set(sop.FIND + sop.MOVE + sop.GET) == {known for known, _, _ in QUERY_RETRIEVE}


def members() -> dict[str, SOPClass | TransferSyntax]:
    """Give the SOP classes and transfer syntaxes of the module by attribute name."""
    return {name: value for name, value in vars(sop).items() if isinstance(value, SOPClass | TransferSyntax)}


def test_every_sop_class_and_transfer_syntax_is_an_attribute_named_by_its_keyword() -> None:
    short = {known for known, _, _ in QUERY_RETRIEVE}
    for name, value in members().items():
        assert re.fullmatch("[A-Z][A-Z0-9_]*", name)
        assert value in short or name.replace("_", "") == value.keyword.upper()
    assert set(members().values()) == {*sop.SOP_CLASSES, *sop.TRANSFER_SYNTAXES}
    assert set(members()) <= set(sop.__all__)


@pytest.mark.parametrize("name", sop.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(sop, name) is not None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("MAMMOGRAPHY_CAD_SR_STORAGE", sop.MAMMOGRAPHY_CADSR_STORAGE),
        ("COMPREHENSIVE3DSR_STORAGE", sop.COMPREHENSIVE_3D_SR_STORAGE),
        ("X_RAY3D_ANGIOGRAPHIC_IMAGE_STORAGE", sop.X_RAY_3D_ANGIOGRAPHIC_IMAGE_STORAGE),
        ("VOI_LUT_BOX", sop.VOILUT_BOX),
        ("JPEG2000_LOSSLESS", sop.JPEG_2000_LOSSLESS),
        ("STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND", sop.STUDY_ROOT_FIND),
    ],
)
def test_other_splits_of_a_keyword_are_understood(name: str, known: str) -> None:
    assert getattr(sop, name) is known


@pytest.mark.parametrize("name", ["LAUNDRY_STORAGE", "ctimagestorage", "_CT_IMAGE_STORAGE", "__path__", "_"])
def test_an_attribute_that_does_not_exist_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(sop, name)


def test_a_private_class_is_known_by_its_uid_alone() -> None:
    uid = str(generate_uid())
    private = sop.lookup(uid)
    assert isinstance(private, SOPClass)
    assert private == uid
    assert (private.keyword, private.name, private.service, private.retired) == ("", uid, "", False)
    assert not private.is_storage


def test_looking_up_a_known_class_gives_the_one_object_and_an_unknown_one_leaves_nothing_behind() -> None:
    assert sop.lookup("1.2.840.10008.5.1.4.1.1.2") is sop.CT_IMAGE_STORAGE
    assert sop.lookup("1.2.3") is not sop.lookup("1.2.3")
    assert sop.transfer_syntax("1.2.840.10008.1.2.1") is sop.EXPLICIT_VR_LITTLE_ENDIAN
    assert sop.transfer_syntax("1.2.3") is not sop.transfer_syntax("1.2.3")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("value", [sop.CT_IMAGE_STORAGE, sop.RLE_LOSSLESS, SOPClass("1.2.3")])
def test_a_copy_knows_as_much_as_the_original(copied: Any, value: Any) -> None:
    twin = copied(value)
    assert type(twin) is type(value)
    assert (twin, twin.keyword, twin.name, twin.retired) == (value, value.keyword, value.name, value.retired)


def test_every_transfer_syntax_of_pydicom_is_known_and_described_alike() -> None:
    rows = of_type("Transfer Syntax")
    for uid, (name, _, _, retired, keyword) in rows.items():
        known = sop.transfer_syntax(uid)
        assert (known, known.name, known.keyword, known.retired) == (uid, name, keyword, bool(retired))


def test_no_transfer_syntax_is_known_that_the_standard_does_not_have() -> None:
    # Other packages add to pydicom's dictionary, so it may hold some of the young ones.
    assert set(sop.TRANSFER_SYNTAXES) == set(of_type("Transfer Syntax")) | set(YOUNG_SYNTAXES)
    assert {uid: sop.transfer_syntax(uid).keyword for uid in YOUNG_SYNTAXES} == YOUNG_SYNTAXES


#: Those that pydicom does not know, or of which it does not know that they are implicit or deflated.
OWN_JUDGEMENT = {
    sop.PAPYRUS_3_IMPLICIT_VR_LITTLE_ENDIAN,
    sop.JPIP_REFERENCED_DEFLATE,
    sop.JPIP_HTJ2K_REFERENCED_DEFLATE,
    *YOUNG_SYNTAXES,
}


@pytest.mark.parametrize("known", [known for known in sop.TRANSFER_SYNTAXES if known not in OWN_JUDGEMENT])
def test_a_transfer_syntax_encodes_as_pydicom_says(known: TransferSyntax) -> None:
    uid = UID(known)
    assert known.is_implicit_vr == uid.is_implicit_VR
    assert known.is_little_endian == uid.is_little_endian
    assert known.is_deflated == uid.is_deflated
    assert known.is_encapsulated == uid.is_encapsulated
    assert known.is_native != known.is_encapsulated


@pytest.mark.parametrize(
    ("known", "implicit", "deflated", "native"),
    [
        (sop.IMPLICIT_VR_LITTLE_ENDIAN, True, False, True),
        (sop.EXPLICIT_VR_LITTLE_ENDIAN, False, False, True),
        (sop.EXPLICIT_VR_BIG_ENDIAN, False, False, True),
        (sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, False, True, True),
        (sop.PAPYRUS_3_IMPLICIT_VR_LITTLE_ENDIAN, True, False, True),
        (sop.ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN, False, False, False),
        (sop.JPEG_BASELINE_8BIT, False, False, False),
        (sop.JPIP_REFERENCED_DEFLATE, False, True, False),
        (sop.JPIP_HTJ2K_REFERENCED_DEFLATE, False, True, False),
        (sop.RLE_LOSSLESS, False, False, False),
        (sop.JPEG_XL, False, False, False),
        (sop.DEFLATED_IMAGE_FRAME_COMPRESSION, False, False, False),
        (sop.transfer_syntax("1.2.826.0.1.3680043.2.682.1.40"), False, False, False),
    ],
)
def test_a_transfer_syntax_knows_its_encoding(
    known: TransferSyntax, implicit: bool, deflated: bool, native: bool
) -> None:
    assert known.is_implicit_vr == implicit
    assert known.is_deflated == deflated
    assert known.is_native == native
    assert known.is_encapsulated != native
    assert known.is_little_endian == (known is not sop.EXPLICIT_VR_BIG_ENDIAN)


def test_a_private_transfer_syntax_is_taken_for_encapsulated_explicit_little_endian() -> None:
    private = sop.transfer_syntax("1.2.3")
    assert (private.keyword, private.name, private.retired) == ("", "1.2.3", False)
    assert private.is_encapsulated
    assert private.is_little_endian
    assert not private.is_implicit_vr
    assert not private.is_deflated


def test_well_known_instances_and_service_classes_have_the_uids_of_the_standard() -> None:
    strings = {value for name, value in vars(sop).items() if name.isupper() and type(value) is str}
    assert strings >= set(of_type("Well-known SOP Instance", "Service Class", "Application Context Name"))
    assert sop.STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE == "1.2.840.10008.1.20.1.1"
    assert sop.UPS_GLOBAL_SUBSCRIPTION_INSTANCE == "1.2.840.10008.5.1.4.34.5"
    assert sop.STORAGE_SERVICE_CLASS == "1.2.840.10008.4.2"


def test_the_implementation_is_identified_within_the_bounds_of_the_standard() -> None:
    assert UID(sop.IMPLEMENTATION_CLASS_UID).is_valid
    assert 1 <= len(sop.IMPLEMENTATION_VERSION_NAME) <= 16


def test_importing_the_module_imports_neither_pydicom_nor_anything_async() -> None:
    script = "import sys, asyncdicom.sop; print(*sorted({'pydicom', 'anyio', 'asyncio'} & set(sys.modules)))"
    isolated = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert isolated.stdout.split() == []
