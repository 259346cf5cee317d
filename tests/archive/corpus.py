"""Real data sets for the archive's tests: what ships inside pydicom, and made-up families of instances."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

CHARSET_FILES = Path(pydicom.__file__).parent / "data" / "charset_files"
REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


def real_files(test_files: Path) -> list[tuple[Path, Dataset]]:
    """Read the files that can be archived, one of those with the same SOP Instance UID, without their pixel data."""
    found: dict[str, tuple[Path, Dataset]] = {}
    for path in sorted([*test_files.rglob("*"), *CHARSET_FILES.glob("*.dcm")]):
        if not path.is_file() or path.suffix in (".json", ".txt", ".gz", ".dump", ".icc"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ds = pydicom.dcmread(path, stop_before_pixels=True)
                ds.decode()
            except (InvalidDicomError, EOFError, KeyError, NotImplementedError, ValueError):
                continue
            if all(ds.get(keyword) for keyword in REQUIRED):
                found.setdefault(ds.SOPInstanceUID, (path, ds))
    return list(found.values())


def instance(number: int, *, study: int = 1, series: int = 1, patient: str | None = "P1", **values: Any) -> Dataset:
    """Make up an instance; a value of ``None`` leaves an attribute out."""
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.StudyInstanceUID = f"1.2.3.{study}"
    ds.SeriesInstanceUID = f"1.2.3.{study}.{series}"
    ds.SOPInstanceUID = f"1.2.3.{study}.{series}.{number}"
    ds.InstanceNumber = str(number)
    ds.Modality = "CT"
    if patient is not None:
        ds.PatientID = patient
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def family() -> list[Dataset]:
    """Make up a small archive with what is rare in real files."""

    def one(number: int, **values: Any) -> Dataset:
        return instance(number, **values)

    code, other = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T1", "99X", "Thorax nativ"
    other.CodeValue, other.CodingSchemeDesignator, other.CodeMeaning = "T2", "99X", "Schädel"
    first, second = Dataset(), Dataset()
    first.RequestedProcedureID, first.ScheduledProcedureStepID = "RP1", "SPS1"
    first.ScheduledProtocolCodeSequence = [code]
    second.RequestedProcedureID, second.ScheduledProcedureStepID = "RP2", "SPS2"
    doe: dict[str, Any] = {"PatientName": "Doe^John", "PatientBirthDate": "19700101", "PatientSex": "M"}
    yamada = {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう", "PatientSex": "O"}
    when = {"StudyDate": "20240131", "StudyTime": "103015.5"}
    return [
        one(
            1, **doe, **when, AccessionNumber="A1", StudyDescription="CT Thorax 100%", ImageType=["ORIGINAL", "PRIMARY"]
        ),
        one(2, **doe, **when, AccessionNumber="A1", ImageType=["DERIVED", "SECONDARY"], InstanceNumber="02"),
        one(3, series=2, **doe, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", SeriesNumber="2"),
        one(4, series=3, **doe, RequestAttributesSequence=[first, second], SeriesNumber="3"),
        one(
            1, study=2, **doe, StudyDate="20240229", StudyTime="10", Modality="MR", ProcedureCodeSequence=[code, other]
        ),
        one(1, study=3, patient="p1", PatientName="DOE^JANE^^Dr", StudyDate="20231231", StudyTime="235959"),
        one(
            1,
            study=4,
            patient="P2",
            **yamada,
            StudyDate="",
            OtherPatientNames=["Tarou^Y", "太郎^Y"],
            OtherPatientIDs=["X1", "X2"],
        ),
        one(1, study=5, patient=None, PatientName="Nemo", PatientBirthDate="19000101"),
        one(1, study=6, patient="", PatientName="Outis", Modality="PT"),
        one(1, study=7, patient="P1", IssuerOfPatientID="ELSEWHERE", PatientName="Müller^Jörg", StudyID="[A-Z]_x"),
        # The same Study Instance UID for two patients.
        one(9, study=1, series=9, patient="P9", PatientName="Roe^Richard", StudyDate="19991231", Modality="US"),
        one(
            1, study=8, patient="P8", PatientName="O'Brien^Pat", StudyDescription="'; DROP TABLE patients; --", Rows=512
        ),
        one(
            2, study=8, patient="P8", PatientComments="first line\r\nsecond\\line", StudyID="late", NumberOfFrames="10"
        ),
    ]
