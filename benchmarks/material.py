"""What is stored, queried and retrieved: CT slices of any size, made from one template."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

__all__ = [
    "CT_IMAGE_STORAGE",
    "EXPLICIT",
    "IMPLICIT",
    "NOBODY",
    "PATIENT",
    "QUERY",
    "SERIES",
    "STUDY",
    "Files",
    "encoded_header",
    "encoded_matches",
    "header",
    "make_files",
    "matches",
    "query",
    "uid",
]

#: UIDs of one length (PS3.5 B.2), so that a template becomes an instance by replacing bytes.
_ROOT = "2.25.4870"

STUDY = f"{_ROOT}1000000000000001"
SERIES = f"{_ROOT}2000000000000001"
_OTHER_STUDY = f"{_ROOT}1000000000000009"
_OTHER_SERIES = f"{_ROOT}2000000000000009"
PATIENT = "BENCHMARK"
#: A Patient ID, and a Study Instance UID, that nothing has: queries for them are empty runs.
NOBODY = f"{_ROOT}9999999999999999"

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"

#: The keys of a query for the images of the series, by keyword: those that every peer here answers.
QUERY = {
    "QueryRetrieveLevel": "IMAGE",
    "StudyInstanceUID": STUDY,
    "SeriesInstanceUID": SERIES,
    "SOPInstanceUID": "",
    "InstanceNumber": "",
}

#: Bytes of the instance that is sent before anything is measured.
_WARM = 4096


def uid(number: int) -> str:
    """Return the SOP Instance UID of a number."""
    return f"{_ROOT}3{number:015d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A folder of instances, all of one size, series and SOP class.

    :ivar warm: a small instance of another study, beside the folder, to be sent before anything is measured.
    """

    folder: Path
    count: int
    size: int
    warm: Path

    @property
    def paths(self) -> list[Path]:
        """The files in order."""
        return [self.folder / f"{number:06d}.dcm" for number in range(self.count)]

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return self.count * self.size


def header(number: int) -> Dataset:
    """Return what a CT slice says about itself, without pixels: about 40 elements."""
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data_set.SOPClassUID = CT_IMAGE_STORAGE
    data_set.SOPInstanceUID = uid(number)
    data_set.StudyDate = data_set.SeriesDate = data_set.AcquisitionDate = data_set.ContentDate = "20240229"
    data_set.StudyTime = data_set.SeriesTime = data_set.AcquisitionTime = data_set.ContentTime = "120000.000000"
    data_set.AccessionNumber = "A0001"
    data_set.Modality = "CT"
    data_set.Manufacturer = "Example"
    data_set.InstitutionName = "Hospital"
    data_set.ReferringPhysicianName = "Referring^Physician"
    data_set.StudyDescription = "Thorax"
    data_set.SeriesDescription = "Axial 1.0"
    data_set.ManufacturerModelName = "Model"
    data_set.PatientName = "Bench^Mark"
    data_set.PatientID = PATIENT
    data_set.PatientBirthDate = "19700101"
    data_set.PatientSex = "O"
    data_set.SliceThickness = "1.0"
    data_set.KVP = "120"
    data_set.StudyInstanceUID = STUDY
    data_set.SeriesInstanceUID = SERIES
    data_set.StudyID = "1"
    data_set.SeriesNumber = 1
    data_set.InstanceNumber = 1
    data_set.ImagePositionPatient = [-250, -250, 1]
    data_set.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data_set.FrameOfReferenceUID = NOBODY
    data_set.SamplesPerPixel = 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.Rows = 512
    data_set.Columns = 512
    data_set.PixelSpacing = [1, 1]
    data_set.BitsAllocated = 16
    data_set.BitsStored = 12
    data_set.HighBit = 11
    data_set.PixelRepresentation = 0
    data_set.RescaleIntercept = "-1024"
    data_set.RescaleSlope = "1"
    return data_set


def matches(count: int) -> list[Dataset]:
    """Return the identifiers that answer a query for the images of the series."""
    found = []
    for number in range(count):
        match = Dataset()
        match.SOPInstanceUID = uid(number)
        match.QueryRetrieveLevel = "IMAGE"
        match.RetrieveAETitle = "BENCH"
        match.StudyInstanceUID = STUDY
        match.SeriesInstanceUID = SERIES
        match.InstanceNumber = number % 10_000
        found.append(match)
    return found


def encoded_matches(count: int, transfer_syntax: str) -> list[bytes]:
    """Return the same, encoded; made from the first one, so that many take no time."""
    first = _encode(matches(1)[0], transfer_syntax)
    return [first.replace(uid(0).encode(), uid(number).encode()) for number in range(count)]


def encoded_header() -> bytes:
    """Return :func:`header` in Explicit VR Little Endian."""
    return _encode(header(0), EXPLICIT)


def _encode(data_set: Dataset, transfer_syntax: str) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian = True
    stream.is_implicit_VR = transfer_syntax == IMPLICIT
    write_dataset(stream, data_set)
    return stream.getvalue()


def query(study: str = STUDY, **more: str) -> Dataset:
    """Return the query for the images of the series as a data set."""
    data_set = Dataset()
    for keyword, value in {**QUERY, "StudyInstanceUID": study, **more}.items():
        setattr(data_set, keyword, value or None)
    return data_set


def make_files(folder: Path, count: int, size: int) -> Files:
    """Write ``count`` instances of about ``size`` bytes each into a new folder."""
    folder.mkdir(parents=True)
    warm = folder.with_name(f"{folder.name}-warm.dcm")
    template = _template(size)
    other = (
        _template(_WARM).replace(STUDY.encode(), _OTHER_STUDY.encode()).replace(SERIES.encode(), _OTHER_SERIES.encode())
    )
    _write(warm, other, _WARM, 999_999_999)
    for number in range(count):
        _write(folder / f"{number:06d}.dcm", template, size, number)
    return Files(folder=folder, count=count, size=size, warm=warm)


_PATTERN = os.urandom(1 << 20)


def _write(path: Path, template: bytes, size: int, number: int) -> None:
    with path.open("wb") as file:
        file.write(template.replace(uid(0).encode(), uid(number).encode()))
        left = size - len(template)
        while left > 0:
            left -= file.write(_PATTERN[:left])


def _template(size: int) -> bytes:
    """Return a Part 10 file up to where the pixels begin, which make it ``size`` bytes long."""
    data_set = header(0)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    head = stream.getvalue()
    pixels = size - len(head) - 12
    if pixels < 2 or pixels % 2:
        raise ValueError(f"{size} bytes: expected an even number above {len(head) + 14}")
    return head + b"\xe0\x7f\x10\x00OW\0\0" + pixels.to_bytes(4, "little")
