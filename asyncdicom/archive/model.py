"""The Query/Retrieve information models and the attributes that the archive knows, as tables (PS3.4 C.3 and C.6).

An attribute belongs to a level. For each entity of a level its attributes are kept in the form in which they came;
those with a column are kept once more in the form in which they are compared, so that a database can search for them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import tag_for_keyword

from .identifier import vr_of

__all__ = ["DATE_TIME_PAIRS", "KEYS", "STORED", "Key", "Kind", "Level", "Model", "key_for"]


class Level(enum.IntEnum):
    """Levels of the entity-relationship model, from the top (PS3.4 C.3.1); the names are values of (0008,0052)."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


class Model(enum.Enum):
    """The information models; values are how the UIDs of their SOP classes begin (PS3.4 C.6, Y.3, Z.3)."""

    PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1."
    STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2."
    PATIENT_STUDY_ONLY = "1.2.840.10008.5.1.4.1.2.3."
    COMPOSITE_INSTANCE_ROOT = "1.2.840.10008.5.1.4.1.2.4."
    COMPOSITE_INSTANCE_WITHOUT_BULK_DATA = "1.2.840.10008.5.1.4.1.2.5."

    @classmethod
    def of(cls, sop_class_uid: str) -> Model:
        """Return the model of a Query/Retrieve SOP class.

        :raises ValueError: it is the UID of something else.
        """
        return cls(sop_class_uid[: sop_class_uid.rfind(".") + 1])

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, from the top; what belongs to a level above is counted to the topmost (PS3.4 C.3.2)."""
        return _LEVELS[self]


_LEVELS: Mapping[Model, tuple[Level, ...]] = {
    Model.PATIENT_ROOT: (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE),
    Model.STUDY_ROOT: (Level.STUDY, Level.SERIES, Level.IMAGE),
    Model.PATIENT_STUDY_ONLY: (Level.PATIENT, Level.STUDY),
    Model.COMPOSITE_INSTANCE_ROOT: (Level.IMAGE,),
    Model.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA: (Level.IMAGE,),
}


class Kind(enum.Enum):
    """What PS3.4 C.6 says of a key."""

    UNIQUE = "U"
    REQUIRED = "R"
    OPTIONAL = "O"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An attribute that the archive knows.

    :ivar level: whose attribute it is.
    :ivar column: of the level's table, in the form in which it is compared; ``None`` if it is only kept as it came.
    :ivar computed: it is not stored, but follows from what is.
    """

    tag: int
    keyword: str
    vr: str
    level: Level
    kind: Kind
    column: str | None = None
    computed: bool = False

    @property
    def name(self) -> str:
        """The tag as eight digits, as in DICOM JSON (PS3.18 F.2.2)."""
        return f"{self.tag:08X}"


# keyword, kind, column. An attribute of the SOP Common module stands at each level where it is of use.
_ROWS: Mapping[Level, str] = {
    Level.PATIENT: """
        PatientName                             R   name
        PatientID                               U   patient_id
        IssuerOfPatientID                       O   issuer_of_patient_id
        PatientBirthDate                        O   birth_date
        PatientSex                              O   sex
        PatientBirthTime                        O
        TypeOfPatientID                         O
        IssuerOfPatientIDQualifiersSequence     O
        OtherPatientIDs                         O
        OtherPatientIDsSequence                 O
        OtherPatientNames                       O
        PatientBirthName                        O
        PatientMotherBirthName                  O
        EthnicGroup                             O
        PatientComments                         O
        PatientSpeciesDescription               O
        PatientBreedDescription                 O
        ResponsiblePerson                       O
        ResponsibleOrganization                 O
        PatientIdentityRemoved                  O
        DeidentificationMethod                  O
        QualityControlSubject                   O
        ReferencedPatientSequence               O
        """,
    Level.STUDY: """
        StudyDate                               R   date
        StudyTime                               R   time
        AccessionNumber                         R   accession_number
        StudyID                                 R   study_id
        StudyInstanceUID                        U   study_instance_uid
        StudyDescription                        O   description
        ReferringPhysicianName                  O   referring
        IssuerOfAccessionNumberSequence         O
        ProcedureCodeSequence                   O
        ReasonForPerformedProcedureCodeSequence O
        PhysiciansOfRecord                      O
        NameOfPhysiciansReadingStudy            O
        ConsultingPhysicianName                 O
        RequestingPhysician                     O
        RequestingService                       O
        AdmittingDiagnosesDescription           O
        AdmittingDiagnosesCodeSequence          O
        AdmissionID                             O
        ServiceEpisodeID                        O
        ServiceEpisodeDescription               O
        ReferencedStudySequence                 O
        OtherStudyNumbers                       O
        PatientAge                              O
        PatientSize                             O
        PatientWeight                           O
        PatientState                            O
        PregnancyStatus                         O
        MedicalAlerts                           O
        Allergies                               O
        SmokingStatus                           O
        Occupation                              O
        AdditionalPatientHistory                O
        TimezoneOffsetFromUTC                   O
        """,
    Level.SERIES: """
        Modality                                R   modality
        SeriesNumber                            R   number
        SeriesInstanceUID                       U   series_instance_uid
        SeriesDescription                       O   description
        BodyPartExamined                        O   body_part
        SeriesDate                              O
        SeriesTime                              O
        SeriesDescriptionCodeSequence           O
        Laterality                              O
        ProtocolName                            O
        PatientPosition                         O
        AnatomicRegionSequence                  O
        PerformingPhysicianName                 O
        OperatorsName                           O
        PerformedProcedureStepID                O
        PerformedProcedureStepStartDate         O   performed_date
        PerformedProcedureStepStartTime         O   performed_time
        PerformedProcedureStepEndDate           O
        PerformedProcedureStepEndTime           O
        PerformedProcedureStepDescription       O
        PerformedProtocolCodeSequence           O
        ReferencedPerformedProcedureStepSequence O
        RequestAttributesSequence               O
        FrameOfReferenceUID                     O
        PositionReferenceIndicator              O
        SynchronizationFrameOfReferenceUID      O
        Manufacturer                            O
        ManufacturerModelName                   O
        InstitutionName                         O
        InstitutionAddress                      O
        InstitutionalDepartmentName             O
        StationName                             O
        DeviceSerialNumber                      O
        SoftwareVersions                        O
        TimezoneOffsetFromUTC                   O
        """,
    Level.IMAGE: """
        InstanceNumber                          R   number
        SOPInstanceUID                          U   sop_instance_uid
        SOPClassUID                             O   sop_class_uid
        RelatedGeneralSOPClassUID               O
        InstanceCreationDate                    O
        InstanceCreationTime                    O
        ContentDate                             O
        ContentTime                             O
        AcquisitionDate                         O
        AcquisitionTime                         O
        AcquisitionDateTime                     O
        AcquisitionNumber                       O
        ImageType                               O
        ImageComments                           O
        ImageLaterality                         O
        DerivationDescription                   O
        ContrastBolusAgent                      O
        SliceThickness                          O
        SliceLocation                           O
        ImagePositionPatient                    O
        ImageOrientationPatient                 O
        PixelSpacing                            O
        EchoNumbers                             O
        EchoTime                                O
        RepetitionTime                          O
        TemporalPositionIdentifier              O
        StackID                                 O
        ConvolutionKernel                       O
        KVP                                     O
        ViewPosition                            O
        NumberOfFrames                          O
        Rows                                    O
        Columns                                 O
        BitsAllocated                           O
        BitsStored                              O
        SamplesPerPixel                         O
        PhotometricInterpretation               O
        LossyImageCompression                   O
        BurnedInAnnotation                      O
        ContentLabel                            O
        ContentDescription                      O
        ContentCreatorName                      O
        PresentationCreationDate                O
        PresentationCreationTime                O
        ConceptNameCodeSequence                 O
        CompletionFlag                          O
        VerificationFlag                        O
        DocumentTitle                           O
        MIMETypeOfEncapsulatedDocument          O
        StructureSetLabel                       O
        StructureSetDate                        O
        StructureSetTime                        O
        RTPlanLabel                             O
        RTPlanName                              O
        RTPlanDate                              O
        RTPlanTime                              O
        DoseSummationType                       O
        InstanceOriginStatus                    O
        TimezoneOffsetFromUTC                   O
        """,
}

# What follows from the whole of an entity (PS3.4 Table C.3-1).
_COMPUTED: Mapping[Level, str] = {
    Level.PATIENT: "NumberOfPatientRelatedStudies NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances",
    Level.STUDY: "NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances ModalitiesInStudy SOPClassesInStudy",
    Level.SERIES: "NumberOfSeriesRelatedInstances",
    Level.IMAGE: "AvailableTransferSyntaxUID",
}


def _key(keyword: str, level: Level, kind: Kind, column: str | None, *, computed: bool = False) -> Key:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not an attribute of PS3.6")
    return Key(tag=tag, keyword=keyword, vr=vr_of(tag), level=level, kind=kind, column=column, computed=computed)


def _keys(level: Level) -> dict[int, Key]:
    keys = []
    for row in _ROWS[level].split("\n"):
        if words := row.split():
            keys.append(_key(words[0], level, Kind(words[1]), words[2] if len(words) > 2 else None))
    keys += [_key(keyword, level, Kind.OPTIONAL, None, computed=True) for keyword in _COMPUTED[level].split()]
    return {key.tag: key for key in keys}


#: The attributes of each level, by tag.
KEYS: Mapping[Level, Mapping[int, Key]] = {level: _keys(level) for level in Level}

#: The unique key of each level.
UNIQUE: Mapping[Level, Key] = {
    level: next(key for key in keys.values() if key.kind is Kind.UNIQUE) for level, keys in KEYS.items()
}

#: Tags that are read from an instance.
STORED: frozenset[int] = frozenset(tag for keys in KEYS.values() for tag, key in keys.items() if not key.computed)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


#: Attributes that together say when: date -> time.
DATE_TIME_PAIRS: Mapping[int, int] = {
    _tag(f"{what}Date"): _tag(f"{what}Time")
    for what in (
        "PatientBirth",
        "Study",
        "Series",
        "PerformedProcedureStepStart",
        "PerformedProcedureStepEnd",
        "InstanceCreation",
        "Content",
        "Acquisition",
        "PresentationCreation",
        "StructureSet",
        "RTPlan",
    )
}


@lru_cache(maxsize=4096)  # bounded, because a peer chooses the tags
def key_for(tag: int, level: Level, model: Model) -> Key | None:
    """Return the attribute for a key of a query at *level*: of that level, else the nearest above, else below."""
    for candidate in sorted(Level, key=lambda other: (other > level, abs(other - level))):
        if candidate <= max(model.levels) and (found := KEYS[candidate].get(tag)) is not None:
            return found
    return None
