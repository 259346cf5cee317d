"""SOP classes, transfer syntaxes and other well-known UIDs, as data (PS3.6 Annex A).

Every SOP class is a module attribute: its keyword in upper snake case, ``CTImageStorage`` being ``CT_IMAGE_STORAGE``.
The classes of the Query/Retrieve service have shorter names, ``STUDY_ROOT_FIND`` for example. Transfer syntaxes are
named likewise. Groups for proposing and serving come after the tables.

An attribute that is not there literally is also looked for without regard to underscores, because capitals in a row can
be split in more than one way: ``MAMMOGRAPHY_CAD_SR_STORAGE`` and ``MAMMOGRAPHY_CADSR_STORAGE`` are the same class, and
``STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND`` is found, too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Self

__all__ = [
    "APPLICATION_CONTEXT",
    "FIND",
    "GET",
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "MOVE",
    "SOP_CLASSES",
    "STORAGE",
    "STORAGE_COMMON",
    "TRANSFER_SYNTAXES",
    "SOPClass",
    "TransferSyntax",
    "is_storage",
    "lookup",
    "transfer_syntax",
]

#: The DICOM application context name (PS3.7 A.2.1).
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"

#: Ours for ever: made once, from a random UUID (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID: Final = "2.25.130518867370516567184903294491708454063"

#: At most 16 characters (PS3.7 D.3.3.2.3).
IMPLEMENTATION_VERSION_NAME: Final = "ASYNCDICOM_0_1"


class SOPClass(str):
    """A SOP class: a ``str``, its UID, that knows what PS3.6 Table A-1 says about it.

    :ivar keyword: the keyword of PS3.6; empty for a private or unknown class.
    :ivar name: the name of PS3.6; the UID itself for a private or unknown class.
    :ivar service: the service class of PS3.4, ``"Storage"`` for example; empty for a private or unknown class.
    :ivar retired: whether the standard has retired it.
    """

    __slots__ = ("keyword", "name", "retired", "service")

    keyword: str
    name: str
    service: str
    retired: bool

    def __new__(cls, uid: str, keyword: str = "", name: str = "", service: str = "", *, retired: bool = False) -> Self:
        self = super().__new__(cls, uid)
        self.keyword = keyword
        self.name = name or uid
        self.service = service
        self.retired = retired
        return self

    @property
    def is_storage(self) -> bool:
        """Whether instances of the class are sent by C-STORE (PS3.4 B and GG); DICOS and DICONDE count."""
        return self.service == "Storage" or self.service == "Non-Patient Object Storage"


class TransferSyntax(str):
    """A transfer syntax: a ``str``, its UID, that knows how data sets and pixel data are encoded (PS3.5 10).

    A private or unknown one is taken for Explicit VR Little Endian with encapsulated pixel data, as PS3.5 A.4
    requires of every new one.

    :ivar keyword: the keyword of PS3.6; empty for a private or unknown one.
    :ivar name: the name of PS3.6; the UID itself for a private or unknown one.
    :ivar retired: whether the standard has retired it.
    """

    __slots__ = ("keyword", "name", "retired")

    keyword: str
    name: str
    retired: bool

    def __new__(cls, uid: str, keyword: str = "", name: str = "", *, retired: bool = False) -> Self:
        self = super().__new__(cls, uid)
        self.keyword = keyword
        self.name = name or uid
        self.retired = retired
        return self

    @property
    def is_implicit_vr(self) -> bool:
        """Whether elements carry no VR (PS3.5 A.1)."""
        return self in _IMPLICIT_VR

    @property
    def is_little_endian(self) -> bool:
        """Whether numbers have their least significant octet first: all but Explicit VR Big Endian (PS3.5 A.3)."""
        return self != "1.2.840.10008.1.2.2"

    @property
    def is_deflated(self) -> bool:
        """Whether the encoded data set is compressed by RFC 1951 as a whole (PS3.5 A.5, A.7, A.14)."""
        return self in _DEFLATED

    @property
    def is_native(self) -> bool:
        """Whether pixel data are uncompressed and not encapsulated, so that one can be converted to another."""
        return self in _NATIVE

    @property
    def is_encapsulated(self) -> bool:
        """Whether pixel data, if there are any, are compressed, encapsulated or elsewhere (PS3.5 A.4, A.6)."""
        return self not in _NATIVE


_IMPLICIT_VR = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.20"})
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_NATIVE = frozenset(
    {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.20",
    }
)

_OPERATIONS = frozenset({"FIND", "MOVE", "GET"})
_SOP_CLASSES: dict[str, SOPClass] = {}
_TRANSFER_SYNTAXES: dict[str, TransferSyntax] = {}


def _sop_class(service: str, uid: str, name: str, *, keyword: str = "", retired: bool = False) -> SOPClass:
    """Add a row; the keyword is given where PS3.6 does not simply run the words of the name together."""
    if not keyword:
        words = name.removesuffix(" SOP Class").replace("-", " ").replace("/", " ").split()
        keyword = "".join(w.capitalize() if w in _OPERATIONS else w[0].upper() + w[1:] for w in words)
    return _SOP_CLASSES.setdefault(uid, SOPClass(uid, keyword, name, service, retired=retired))


def _transfer_syntax(uid: str, keyword: str, name: str, *, retired: bool = False) -> TransferSyntax:
    return _TRANSFER_SYNTAXES.setdefault(uid, TransferSyntax(uid, keyword, name, retired=retired))


def lookup(uid: str) -> SOPClass:
    """Give the SOP class with this UID.

    :returns: the one object for a class that PS3.6 knows. For any other UID a new one with an empty keyword: nothing
        that a peer can invent is kept.
    """
    return _SOP_CLASSES.get(uid) or SOPClass(uid)


def transfer_syntax(uid: str) -> TransferSyntax:
    """Give the transfer syntax with this UID.

    :returns: the one object for a transfer syntax that PS3.6 knows, else a new one that is taken for encapsulated
        Explicit VR Little Endian.
    """
    return _TRANSFER_SYNTAXES.get(uid) or TransferSyntax(uid)


def is_storage(uid: str) -> bool:
    """Say whether the UID is that of a storage SOP class of the standard, retired ones, DICOS and DICONDE included."""
    known = _SOP_CLASSES.get(uid)
    return known is not None and known.is_storage


# Verification (PS3.4 A).
_define = partial(_sop_class, "Verification")
VERIFICATION = _define("1.2.840.10008.1.1", "Verification SOP Class")

# Storage (PS3.4 B).
_define = partial(_sop_class, "Storage")
STORED_PRINT_STORAGE = _define("1.2.840.10008.5.1.1.27", "Stored Print Storage SOP Class", retired=True)
HARDCOPY_GRAYSCALE_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.1.29", "Hardcopy Grayscale Image Storage SOP Class", retired=True
)
HARDCOPY_COLOR_IMAGE_STORAGE = _define("1.2.840.10008.5.1.1.30", "Hardcopy Color Image Storage SOP Class", retired=True)
COMPUTED_RADIOGRAPHY_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.1", "Computed Radiography Image Storage")
DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION = _define(
    "1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray Image Storage - For Presentation"
)
DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING = _define(
    "1.2.840.10008.5.1.4.1.1.1.1.1", "Digital X-Ray Image Storage - For Processing"
)
DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION = _define(
    "1.2.840.10008.5.1.4.1.1.1.2", "Digital Mammography X-Ray Image Storage - For Presentation"
)
DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PROCESSING = _define(
    "1.2.840.10008.5.1.4.1.1.1.2.1", "Digital Mammography X-Ray Image Storage - For Processing"
)
DIGITAL_INTRA_ORAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION = _define(
    "1.2.840.10008.5.1.4.1.1.1.3", "Digital Intra-Oral X-Ray Image Storage - For Presentation"
)
DIGITAL_INTRA_ORAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING = _define(
    "1.2.840.10008.5.1.4.1.1.1.3.1", "Digital Intra-Oral X-Ray Image Storage - For Processing"
)
CT_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage")
ENHANCED_CT_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.2.1", "Enhanced CT Image Storage")
LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.2.2", "Legacy Converted Enhanced CT Image Storage"
)
ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE_RETIRED = _define(
    "1.2.840.10008.5.1.4.1.1.3",
    "Ultrasound Multi-frame Image Storage",
    keyword="UltrasoundMultiFrameImageStorageRetired",
    retired=True,
)
ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.3.1", "Ultrasound Multi-frame Image Storage")
MR_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.4", "MR Image Storage")
ENHANCED_MR_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.4.1", "Enhanced MR Image Storage")
MR_SPECTROSCOPY_STORAGE = _define("1.2.840.10008.5.1.4.1.1.4.2", "MR Spectroscopy Storage")
ENHANCED_MR_COLOR_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.4.3", "Enhanced MR Color Image Storage")
LEGACY_CONVERTED_ENHANCED_MR_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.4.4", "Legacy Converted Enhanced MR Image Storage"
)
NUCLEAR_MEDICINE_IMAGE_STORAGE_RETIRED = _define(
    "1.2.840.10008.5.1.4.1.1.5",
    "Nuclear Medicine Image Storage",
    keyword="NuclearMedicineImageStorageRetired",
    retired=True,
)
ULTRASOUND_IMAGE_STORAGE_RETIRED = _define(
    "1.2.840.10008.5.1.4.1.1.6", "Ultrasound Image Storage", keyword="UltrasoundImageStorageRetired", retired=True
)
ULTRASOUND_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.6.1", "Ultrasound Image Storage")
ENHANCED_US_VOLUME_STORAGE = _define("1.2.840.10008.5.1.4.1.1.6.2", "Enhanced US Volume Storage")
PHOTOACOUSTIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.6.3", "Photoacoustic Image Storage")
SECONDARY_CAPTURE_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture Image Storage")
MULTI_FRAME_SINGLE_BIT_SECONDARY_CAPTURE_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.7.1", "Multi-frame Single Bit Secondary Capture Image Storage"
)
MULTI_FRAME_GRAYSCALE_BYTE_SECONDARY_CAPTURE_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.7.2", "Multi-frame Grayscale Byte Secondary Capture Image Storage"
)
MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.7.3", "Multi-frame Grayscale Word Secondary Capture Image Storage"
)
MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.7.4", "Multi-frame True Color Secondary Capture Image Storage"
)
STANDALONE_OVERLAY_STORAGE = _define("1.2.840.10008.5.1.4.1.1.8", "Standalone Overlay Storage", retired=True)
STANDALONE_CURVE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9", "Standalone Curve Storage", retired=True)
WAVEFORM_STORAGE_TRIAL = _define("1.2.840.10008.5.1.4.1.1.9.1", "Waveform Storage - Trial", retired=True)
TWELVE_LEAD_ECG_WAVEFORM_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.9.1.1", "12-lead ECG Waveform Storage", keyword="TwelveLeadECGWaveformStorage"
)
GENERAL_ECG_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.1.2", "General ECG Waveform Storage")
AMBULATORY_ECG_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.1.3", "Ambulatory ECG Waveform Storage")
GENERAL_32BIT_ECG_WAVEFORM_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.9.1.4", "General 32-bit ECG Waveform Storage", keyword="General32bitECGWaveformStorage"
)
HEMODYNAMIC_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.2.1", "Hemodynamic Waveform Storage")
CARDIAC_ELECTROPHYSIOLOGY_WAVEFORM_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.9.3.1", "Cardiac Electrophysiology Waveform Storage"
)
BASIC_VOICE_AUDIO_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.4.1", "Basic Voice Audio Waveform Storage")
GENERAL_AUDIO_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.4.2", "General Audio Waveform Storage")
ARTERIAL_PULSE_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.5.1", "Arterial Pulse Waveform Storage")
RESPIRATORY_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.6.1", "Respiratory Waveform Storage")
MULTICHANNEL_RESPIRATORY_WAVEFORM_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.9.6.2",
    "Multi-channel Respiratory Waveform Storage",
    keyword="MultichannelRespiratoryWaveformStorage",
)
ROUTINE_SCALP_ELECTROENCEPHALOGRAM_WAVEFORM_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.9.7.1", "Routine Scalp Electroencephalogram Waveform Storage"
)
ELECTROMYOGRAM_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.7.2", "Electromyogram Waveform Storage")
ELECTROOCULOGRAM_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.7.3", "Electrooculogram Waveform Storage")
SLEEP_ELECTROENCEPHALOGRAM_WAVEFORM_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.9.7.4", "Sleep Electroencephalogram Waveform Storage"
)
BODY_POSITION_WAVEFORM_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.8.1", "Body Position Waveform Storage")
WAVEFORM_PRESENTATION_STATE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.9.100.1", "Waveform Presentation State Storage")
WAVEFORM_ACQUISITION_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.9.100.2", "Waveform Acquisition Presentation State Storage"
)
STANDALONE_MODALITY_LUT_STORAGE = _define("1.2.840.10008.5.1.4.1.1.10", "Standalone Modality LUT Storage", retired=True)
STANDALONE_VOILUT_STORAGE = _define("1.2.840.10008.5.1.4.1.1.11", "Standalone VOI LUT Storage", retired=True)
GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State Storage"
)
COLOR_SOFTCOPY_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.2", "Color Softcopy Presentation State Storage"
)
PSEUDO_COLOR_SOFTCOPY_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.3", "Pseudo-Color Softcopy Presentation State Storage"
)
BLENDING_SOFTCOPY_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.4", "Blending Softcopy Presentation State Storage"
)
XAXRF_GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.5", "XA/XRF Grayscale Softcopy Presentation State Storage"
)
GRAYSCALE_PLANAR_MPR_VOLUMETRIC_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.6", "Grayscale Planar MPR Volumetric Presentation State Storage"
)
COMPOSITING_PLANAR_MPR_VOLUMETRIC_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.7", "Compositing Planar MPR Volumetric Presentation State Storage"
)
ADVANCED_BLENDING_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.8", "Advanced Blending Presentation State Storage"
)
VOLUME_RENDERING_VOLUMETRIC_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.9", "Volume Rendering Volumetric Presentation State Storage"
)
SEGMENTED_VOLUME_RENDERING_VOLUMETRIC_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.10", "Segmented Volume Rendering Volumetric Presentation State Storage"
)
MULTIPLE_VOLUME_RENDERING_VOLUMETRIC_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.11", "Multiple Volume Rendering Volumetric Presentation State Storage"
)
VARIABLE_MODALITY_LUT_SOFTCOPY_PRESENTATION_STATE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.11.12", "Variable Modality LUT Softcopy Presentation State Storage"
)
X_RAY_ANGIOGRAPHIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.12.1", "X-Ray Angiographic Image Storage")
ENHANCED_XA_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.12.1.1", "Enhanced XA Image Storage")
X_RAY_RADIOFLUOROSCOPIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.12.2", "X-Ray Radiofluoroscopic Image Storage")
ENHANCED_XRF_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.12.2.1", "Enhanced XRF Image Storage")
X_RAY_ANGIOGRAPHIC_BI_PLANE_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.12.3", "X-Ray Angiographic Bi-Plane Image Storage", retired=True
)
X_RAY_3D_ANGIOGRAPHIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.13.1.1", "X-Ray 3D Angiographic Image Storage")
X_RAY_3D_CRANIOFACIAL_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.13.1.2", "X-Ray 3D Craniofacial Image Storage")
BREAST_TOMOSYNTHESIS_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.13.1.3", "Breast Tomosynthesis Image Storage")
BREAST_PROJECTION_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION = _define(
    "1.2.840.10008.5.1.4.1.1.13.1.4", "Breast Projection X-Ray Image Storage - For Presentation"
)
BREAST_PROJECTION_X_RAY_IMAGE_STORAGE_FOR_PROCESSING = _define(
    "1.2.840.10008.5.1.4.1.1.13.1.5", "Breast Projection X-Ray Image Storage - For Processing"
)
INTRAVASCULAR_OPTICAL_COHERENCE_TOMOGRAPHY_IMAGE_STORAGE_FOR_PRESENTATION = _define(
    "1.2.840.10008.5.1.4.1.1.14.1", "Intravascular Optical Coherence Tomography Image Storage - For Presentation"
)
INTRAVASCULAR_OPTICAL_COHERENCE_TOMOGRAPHY_IMAGE_STORAGE_FOR_PROCESSING = _define(
    "1.2.840.10008.5.1.4.1.1.14.2", "Intravascular Optical Coherence Tomography Image Storage - For Processing"
)
NUCLEAR_MEDICINE_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.20", "Nuclear Medicine Image Storage")
PARAMETRIC_MAP_STORAGE = _define("1.2.840.10008.5.1.4.1.1.30", "Parametric Map Storage")
RAW_DATA_STORAGE = _define("1.2.840.10008.5.1.4.1.1.66", "Raw Data Storage")
SPATIAL_REGISTRATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.66.1", "Spatial Registration Storage")
SPATIAL_FIDUCIALS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.66.2", "Spatial Fiducials Storage")
DEFORMABLE_SPATIAL_REGISTRATION_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.66.3", "Deformable Spatial Registration Storage"
)
SEGMENTATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation Storage")
SURFACE_SEGMENTATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.66.5", "Surface Segmentation Storage")
TRACTOGRAPHY_RESULTS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.66.6", "Tractography Results Storage")
LABEL_MAP_SEGMENTATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.66.7", "Label Map Segmentation Storage")
HEIGHT_MAP_SEGMENTATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.66.8", "Height Map Segmentation Storage")
REAL_WORLD_VALUE_MAPPING_STORAGE = _define("1.2.840.10008.5.1.4.1.1.67", "Real World Value Mapping Storage")
SURFACE_SCAN_MESH_STORAGE = _define("1.2.840.10008.5.1.4.1.1.68.1", "Surface Scan Mesh Storage")
SURFACE_SCAN_POINT_CLOUD_STORAGE = _define("1.2.840.10008.5.1.4.1.1.68.2", "Surface Scan Point Cloud Storage")
VL_IMAGE_STORAGE_TRIAL = _define("1.2.840.10008.5.1.4.1.1.77.1", "VL Image Storage - Trial", retired=True)
VL_ENDOSCOPIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.1", "VL Endoscopic Image Storage")
VIDEO_ENDOSCOPIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.1.1", "Video Endoscopic Image Storage")
VL_MICROSCOPIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.2", "VL Microscopic Image Storage")
VIDEO_MICROSCOPIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.2.1", "Video Microscopic Image Storage")
VL_SLIDE_COORDINATES_MICROSCOPIC_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.3", "VL Slide-Coordinates Microscopic Image Storage"
)
VL_PHOTOGRAPHIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.4", "VL Photographic Image Storage")
VIDEO_PHOTOGRAPHIC_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.4.1", "Video Photographic Image Storage")
OPHTHALMIC_PHOTOGRAPHY_8BIT_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.5.1", "Ophthalmic Photography 8 Bit Image Storage"
)
OPHTHALMIC_PHOTOGRAPHY_16BIT_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.5.2", "Ophthalmic Photography 16 Bit Image Storage"
)
STEREOMETRIC_RELATIONSHIP_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.5.3", "Stereometric Relationship Storage")
OPHTHALMIC_TOMOGRAPHY_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.5.4", "Ophthalmic Tomography Image Storage")
WIDE_FIELD_OPHTHALMIC_PHOTOGRAPHY_STEREOGRAPHIC_PROJECTION_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.5.5", "Wide Field Ophthalmic Photography Stereographic Projection Image Storage"
)
WIDE_FIELD_OPHTHALMIC_PHOTOGRAPHY_3D_COORDINATES_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.5.6", "Wide Field Ophthalmic Photography 3D Coordinates Image Storage"
)
OPHTHALMIC_OPTICAL_COHERENCE_TOMOGRAPHY_EN_FACE_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.5.7", "Ophthalmic Optical Coherence Tomography En Face Image Storage"
)
OPHTHALMIC_OPTICAL_COHERENCE_TOMOGRAPHY_BSCAN_VOLUME_ANALYSIS_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.5.8",
    "Ophthalmic Optical Coherence Tomography B-scan Volume Analysis Storage",
    keyword="OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage",
)
VL_WHOLE_SLIDE_MICROSCOPY_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.6", "VL Whole Slide Microscopy Image Storage"
)
DERMOSCOPIC_PHOTOGRAPHY_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.7", "Dermoscopic Photography Image Storage"
)
CONFOCAL_MICROSCOPY_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.77.1.8", "Confocal Microscopy Image Storage")
CONFOCAL_MICROSCOPY_TILED_PYRAMIDAL_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.77.1.9", "Confocal Microscopy Tiled Pyramidal Image Storage"
)
VL_MULTI_FRAME_IMAGE_STORAGE_TRIAL = _define(
    "1.2.840.10008.5.1.4.1.1.77.2", "VL Multi-frame Image Storage - Trial", retired=True
)
LENSOMETRY_MEASUREMENTS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.78.1", "Lensometry Measurements Storage")
AUTOREFRACTION_MEASUREMENTS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.78.2", "Autorefraction Measurements Storage")
KERATOMETRY_MEASUREMENTS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.78.3", "Keratometry Measurements Storage")
SUBJECTIVE_REFRACTION_MEASUREMENTS_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.78.4", "Subjective Refraction Measurements Storage"
)
VISUAL_ACUITY_MEASUREMENTS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.78.5", "Visual Acuity Measurements Storage")
SPECTACLE_PRESCRIPTION_REPORT_STORAGE = _define("1.2.840.10008.5.1.4.1.1.78.6", "Spectacle Prescription Report Storage")
OPHTHALMIC_AXIAL_MEASUREMENTS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.78.7", "Ophthalmic Axial Measurements Storage")
INTRAOCULAR_LENS_CALCULATIONS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.78.8", "Intraocular Lens Calculations Storage")
MACULAR_GRID_THICKNESS_AND_VOLUME_REPORT_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.79.1", "Macular Grid Thickness and Volume Report Storage"
)
OPHTHALMIC_VISUAL_FIELD_STATIC_PERIMETRY_MEASUREMENTS_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.80.1", "Ophthalmic Visual Field Static Perimetry Measurements Storage"
)
OPHTHALMIC_THICKNESS_MAP_STORAGE = _define("1.2.840.10008.5.1.4.1.1.81.1", "Ophthalmic Thickness Map Storage")
CORNEAL_TOPOGRAPHY_MAP_STORAGE = _define("1.2.840.10008.5.1.4.1.1.82.1", "Corneal Topography Map Storage")
TEXT_SR_STORAGE_TRIAL = _define("1.2.840.10008.5.1.4.1.1.88.1", "Text SR Storage - Trial", retired=True)
AUDIO_SR_STORAGE_TRIAL = _define("1.2.840.10008.5.1.4.1.1.88.2", "Audio SR Storage - Trial", retired=True)
DETAIL_SR_STORAGE_TRIAL = _define("1.2.840.10008.5.1.4.1.1.88.3", "Detail SR Storage - Trial", retired=True)
COMPREHENSIVE_SR_STORAGE_TRIAL = _define(
    "1.2.840.10008.5.1.4.1.1.88.4", "Comprehensive SR Storage - Trial", retired=True
)
BASIC_TEXT_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR Storage")
ENHANCED_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.22", "Enhanced SR Storage")
COMPREHENSIVE_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR Storage")
COMPREHENSIVE_3D_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.34", "Comprehensive 3D SR Storage")
EXTENSIBLE_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.35", "Extensible SR Storage")
PROCEDURE_LOG_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.40", "Procedure Log Storage")
MAMMOGRAPHY_CADSR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.50", "Mammography CAD SR Storage")
KEY_OBJECT_SELECTION_DOCUMENT_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.88.59", "Key Object Selection Document Storage"
)
CHEST_CADSR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.65", "Chest CAD SR Storage")
X_RAY_RADIATION_DOSE_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.67", "X-Ray Radiation Dose SR Storage")
RADIOPHARMACEUTICAL_RADIATION_DOSE_SR_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.88.68", "Radiopharmaceutical Radiation Dose SR Storage"
)
COLON_CADSR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.69", "Colon CAD SR Storage")
IMPLANTATION_PLAN_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.70", "Implantation Plan SR Storage")
ACQUISITION_CONTEXT_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.71", "Acquisition Context SR Storage")
SIMPLIFIED_ADULT_ECHO_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.72", "Simplified Adult Echo SR Storage")
PATIENT_RADIATION_DOSE_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.73", "Patient Radiation Dose SR Storage")
PLANNED_IMAGING_AGENT_ADMINISTRATION_SR_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.88.74", "Planned Imaging Agent Administration SR Storage"
)
PERFORMED_IMAGING_AGENT_ADMINISTRATION_SR_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.88.75", "Performed Imaging Agent Administration SR Storage"
)
ENHANCED_X_RAY_RADIATION_DOSE_SR_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.88.76", "Enhanced X-Ray Radiation Dose SR Storage"
)
WAVEFORM_ANNOTATION_SR_STORAGE = _define("1.2.840.10008.5.1.4.1.1.88.77", "Waveform Annotation SR Storage")
CONTENT_ASSESSMENT_RESULTS_STORAGE = _define("1.2.840.10008.5.1.4.1.1.90.1", "Content Assessment Results Storage")
MICROSCOPY_BULK_SIMPLE_ANNOTATIONS_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.91.1", "Microscopy Bulk Simple Annotations Storage"
)
ENCAPSULATED_PDF_STORAGE = _define("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF Storage")
ENCAPSULATED_CDA_STORAGE = _define("1.2.840.10008.5.1.4.1.1.104.2", "Encapsulated CDA Storage")
ENCAPSULATED_STL_STORAGE = _define("1.2.840.10008.5.1.4.1.1.104.3", "Encapsulated STL Storage")
ENCAPSULATED_OBJ_STORAGE = _define("1.2.840.10008.5.1.4.1.1.104.4", "Encapsulated OBJ Storage")
ENCAPSULATED_MTL_STORAGE = _define("1.2.840.10008.5.1.4.1.1.104.5", "Encapsulated MTL Storage")
POSITRON_EMISSION_TOMOGRAPHY_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.128", "Positron Emission Tomography Image Storage"
)
LEGACY_CONVERTED_ENHANCED_PET_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.128.1", "Legacy Converted Enhanced PET Image Storage"
)
STANDALONE_PET_CURVE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.129", "Standalone PET Curve Storage", retired=True)
ENHANCED_PET_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.130", "Enhanced PET Image Storage")
BASIC_STRUCTURED_DISPLAY_STORAGE = _define("1.2.840.10008.5.1.4.1.1.131", "Basic Structured Display Storage")
CT_PERFORMED_PROCEDURE_PROTOCOL_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.200.2", "CT Performed Procedure Protocol Storage"
)
XA_PERFORMED_PROCEDURE_PROTOCOL_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.200.8", "XA Performed Procedure Protocol Storage"
)
RT_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.1", "RT Image Storage")
RT_DOSE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.2", "RT Dose Storage")
RT_STRUCTURE_SET_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set Storage")
RT_BEAMS_TREATMENT_RECORD_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.4", "RT Beams Treatment Record Storage")
RT_PLAN_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.5", "RT Plan Storage")
RT_BRACHY_TREATMENT_RECORD_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.6", "RT Brachy Treatment Record Storage")
RT_TREATMENT_SUMMARY_RECORD_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.7", "RT Treatment Summary Record Storage")
RT_ION_PLAN_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.8", "RT Ion Plan Storage")
RT_ION_BEAMS_TREATMENT_RECORD_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.481.9", "RT Ion Beams Treatment Record Storage"
)
RT_PHYSICIAN_INTENT_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.10", "RT Physician Intent Storage")
RT_SEGMENT_ANNOTATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.11", "RT Segment Annotation Storage")
RT_RADIATION_SET_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.12", "RT Radiation Set Storage")
C_ARM_PHOTON_ELECTRON_RADIATION_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.481.13", "C-Arm Photon-Electron Radiation Storage"
)
TOMOTHERAPEUTIC_RADIATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.14", "Tomotherapeutic Radiation Storage")
ROBOTIC_ARM_RADIATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.15", "Robotic-Arm Radiation Storage")
RT_RADIATION_RECORD_SET_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.16", "RT Radiation Record Set Storage")
RT_RADIATION_SALVAGE_RECORD_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.17", "RT Radiation Salvage Record Storage")
TOMOTHERAPEUTIC_RADIATION_RECORD_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.481.18", "Tomotherapeutic Radiation Record Storage"
)
C_ARM_PHOTON_ELECTRON_RADIATION_RECORD_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.481.19", "C-Arm Photon-Electron Radiation Record Storage"
)
ROBOTIC_RADIATION_RECORD_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.20", "Robotic Radiation Record Storage")
RT_RADIATION_SET_DELIVERY_INSTRUCTION_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.481.21", "RT Radiation Set Delivery Instruction Storage"
)
RT_TREATMENT_PREPARATION_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.22", "RT Treatment Preparation Storage")
ENHANCED_RT_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.23", "Enhanced RT Image Storage")
ENHANCED_CONTINUOUS_RT_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.481.24", "Enhanced Continuous RT Image Storage")
RT_PATIENT_POSITION_ACQUISITION_INSTRUCTION_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.481.25", "RT Patient Position Acquisition Instruction Storage"
)
DICOSCT_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.501.1", "DICOS CT Image Storage")
DICOS_DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION = _define(
    "1.2.840.10008.5.1.4.1.1.501.2.1", "DICOS Digital X-Ray Image Storage - For Presentation"
)
DICOS_DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING = _define(
    "1.2.840.10008.5.1.4.1.1.501.2.2", "DICOS Digital X-Ray Image Storage - For Processing"
)
DICOS_THREAT_DETECTION_REPORT_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.501.3", "DICOS Threat Detection Report Storage"
)
DICOS_2D_AIT_STORAGE = _define("1.2.840.10008.5.1.4.1.1.501.4", "DICOS 2D AIT Storage")
DICOS_3D_AIT_STORAGE = _define("1.2.840.10008.5.1.4.1.1.501.5", "DICOS 3D AIT Storage")
DICOS_QUADRUPOLE_RESONANCE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.501.6",
    "DICOS Quadrupole Resonance (QR) Storage",
    keyword="DICOSQuadrupoleResonanceStorage",
)
EDDY_CURRENT_IMAGE_STORAGE = _define("1.2.840.10008.5.1.4.1.1.601.1", "Eddy Current Image Storage")
EDDY_CURRENT_MULTI_FRAME_IMAGE_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.601.2", "Eddy Current Multi-frame Image Storage"
)
RT_BEAMS_DELIVERY_INSTRUCTION_STORAGE_TRIAL = _define(
    "1.2.840.10008.5.1.4.34.1", "RT Beams Delivery Instruction Storage - Trial", retired=True
)
RT_BEAMS_DELIVERY_INSTRUCTION_STORAGE = _define("1.2.840.10008.5.1.4.34.7", "RT Beams Delivery Instruction Storage")
RT_BRACHY_APPLICATION_SETUP_DELIVERY_INSTRUCTION_STORAGE = _define(
    "1.2.840.10008.5.1.4.34.10", "RT Brachy Application Setup Delivery Instruction Storage"
)

# Non-Patient Object Storage (PS3.4 GG).
_define = partial(_sop_class, "Non-Patient Object Storage")
CT_DEFINED_PROCEDURE_PROTOCOL_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.200.1", "CT Defined Procedure Protocol Storage"
)
PROTOCOL_APPROVAL_STORAGE = _define("1.2.840.10008.5.1.4.1.1.200.3", "Protocol Approval Storage")
XA_DEFINED_PROCEDURE_PROTOCOL_STORAGE = _define(
    "1.2.840.10008.5.1.4.1.1.200.7", "XA Defined Procedure Protocol Storage"
)
INVENTORY_STORAGE = _define("1.2.840.10008.5.1.4.1.1.201.1", "Inventory Storage")
HANGING_PROTOCOL_STORAGE = _define("1.2.840.10008.5.1.4.38.1", "Hanging Protocol Storage")
COLOR_PALETTE_STORAGE = _define("1.2.840.10008.5.1.4.39.1", "Color Palette Storage")
GENERIC_IMPLANT_TEMPLATE_STORAGE = _define("1.2.840.10008.5.1.4.43.1", "Generic Implant Template Storage")
IMPLANT_ASSEMBLY_TEMPLATE_STORAGE = _define("1.2.840.10008.5.1.4.44.1", "Implant Assembly Template Storage")
IMPLANT_TEMPLATE_GROUP_STORAGE = _define("1.2.840.10008.5.1.4.45.1", "Implant Template Group Storage")

# Query/Retrieve (PS3.4 C, Y, Z).
_define = partial(_sop_class, "Query/Retrieve")
REPOSITORY_QUERY = _define("1.2.840.10008.5.1.4.1.1.201.6", "Repository Query")
PATIENT_ROOT_FIND = _define("1.2.840.10008.5.1.4.1.2.1.1", "Patient Root Query/Retrieve Information Model - FIND")
PATIENT_ROOT_MOVE = _define("1.2.840.10008.5.1.4.1.2.1.2", "Patient Root Query/Retrieve Information Model - MOVE")
PATIENT_ROOT_GET = _define("1.2.840.10008.5.1.4.1.2.1.3", "Patient Root Query/Retrieve Information Model - GET")
STUDY_ROOT_FIND = _define("1.2.840.10008.5.1.4.1.2.2.1", "Study Root Query/Retrieve Information Model - FIND")
STUDY_ROOT_MOVE = _define("1.2.840.10008.5.1.4.1.2.2.2", "Study Root Query/Retrieve Information Model - MOVE")
STUDY_ROOT_GET = _define("1.2.840.10008.5.1.4.1.2.2.3", "Study Root Query/Retrieve Information Model - GET")
PATIENT_STUDY_ONLY_FIND = _define(
    "1.2.840.10008.5.1.4.1.2.3.1", "Patient/Study Only Query/Retrieve Information Model - FIND", retired=True
)
PATIENT_STUDY_ONLY_MOVE = _define(
    "1.2.840.10008.5.1.4.1.2.3.2", "Patient/Study Only Query/Retrieve Information Model - MOVE", retired=True
)
PATIENT_STUDY_ONLY_GET = _define(
    "1.2.840.10008.5.1.4.1.2.3.3", "Patient/Study Only Query/Retrieve Information Model - GET", retired=True
)
COMPOSITE_INSTANCE_ROOT_MOVE = _define("1.2.840.10008.5.1.4.1.2.4.2", "Composite Instance Root Retrieve - MOVE")
COMPOSITE_INSTANCE_ROOT_GET = _define("1.2.840.10008.5.1.4.1.2.4.3", "Composite Instance Root Retrieve - GET")
COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET = _define(
    "1.2.840.10008.5.1.4.1.2.5.3", "Composite Instance Retrieve Without Bulk Data - GET"
)

# Procedure Step (PS3.4 F).
_define = partial(_sop_class, "Procedure Step")
MODALITY_PERFORMED_PROCEDURE_STEP = _define("1.2.840.10008.3.1.2.3.3", "Modality Performed Procedure Step SOP Class")
MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE = _define(
    "1.2.840.10008.3.1.2.3.4", "Modality Performed Procedure Step Retrieve SOP Class"
)
MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION = _define(
    "1.2.840.10008.3.1.2.3.5", "Modality Performed Procedure Step Notification SOP Class"
)

# Print Management (PS3.4 H).
_define = partial(_sop_class, "Print Management")
BASIC_FILM_SESSION = _define("1.2.840.10008.5.1.1.1", "Basic Film Session SOP Class")
BASIC_FILM_BOX = _define("1.2.840.10008.5.1.1.2", "Basic Film Box SOP Class")
BASIC_GRAYSCALE_IMAGE_BOX = _define("1.2.840.10008.5.1.1.4", "Basic Grayscale Image Box SOP Class")
BASIC_COLOR_IMAGE_BOX = _define("1.2.840.10008.5.1.1.4.1", "Basic Color Image Box SOP Class")
REFERENCED_IMAGE_BOX = _define("1.2.840.10008.5.1.1.4.2", "Referenced Image Box SOP Class", retired=True)
BASIC_GRAYSCALE_PRINT_MANAGEMENT_META = _define(
    "1.2.840.10008.5.1.1.9", "Basic Grayscale Print Management Meta SOP Class"
)
REFERENCED_GRAYSCALE_PRINT_MANAGEMENT_META = _define(
    "1.2.840.10008.5.1.1.9.1", "Referenced Grayscale Print Management Meta SOP Class", retired=True
)
PRINT_JOB = _define("1.2.840.10008.5.1.1.14", "Print Job SOP Class")
BASIC_ANNOTATION_BOX = _define("1.2.840.10008.5.1.1.15", "Basic Annotation Box SOP Class")
PRINTER = _define("1.2.840.10008.5.1.1.16", "Printer SOP Class")
PRINTER_CONFIGURATION_RETRIEVAL = _define("1.2.840.10008.5.1.1.16.376", "Printer Configuration Retrieval SOP Class")
BASIC_COLOR_PRINT_MANAGEMENT_META = _define("1.2.840.10008.5.1.1.18", "Basic Color Print Management Meta SOP Class")
REFERENCED_COLOR_PRINT_MANAGEMENT_META = _define(
    "1.2.840.10008.5.1.1.18.1", "Referenced Color Print Management Meta SOP Class", retired=True
)
VOILUT_BOX = _define("1.2.840.10008.5.1.1.22", "VOI LUT Box SOP Class")
PRESENTATION_LUT = _define("1.2.840.10008.5.1.1.23", "Presentation LUT SOP Class")
IMAGE_OVERLAY_BOX = _define("1.2.840.10008.5.1.1.24", "Image Overlay Box SOP Class", retired=True)
BASIC_PRINT_IMAGE_OVERLAY_BOX = _define(
    "1.2.840.10008.5.1.1.24.1", "Basic Print Image Overlay Box SOP Class", retired=True
)
PRINT_QUEUE_MANAGEMENT = _define("1.2.840.10008.5.1.1.26", "Print Queue Management SOP Class", retired=True)
PULL_PRINT_REQUEST = _define("1.2.840.10008.5.1.1.31", "Pull Print Request SOP Class", retired=True)
PULL_STORED_PRINT_MANAGEMENT_META = _define(
    "1.2.840.10008.5.1.1.32", "Pull Stored Print Management Meta SOP Class", retired=True
)

# Media Storage (PS3.4 I).
_define = partial(_sop_class, "Media Storage")
MEDIA_STORAGE_DIRECTORY_STORAGE = _define("1.2.840.10008.1.3.10", "Media Storage Directory Storage")

# Storage Commitment (PS3.4 J).
_define = partial(_sop_class, "Storage Commitment")
STORAGE_COMMITMENT_PUSH_MODEL = _define("1.2.840.10008.1.20.1", "Storage Commitment Push Model SOP Class")
STORAGE_COMMITMENT_PULL_MODEL = _define("1.2.840.10008.1.20.2", "Storage Commitment Pull Model SOP Class", retired=True)

# Basic Worklist Management (PS3.4 K).
_define = partial(_sop_class, "Basic Worklist Management")
MODALITY_WORKLIST_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.31", "Modality Worklist Information Model - FIND"
)

# Application Event Logging (PS3.4 P).
_define = partial(_sop_class, "Application Event Logging")
PROCEDURAL_EVENT_LOGGING = _define("1.2.840.10008.1.40", "Procedural Event Logging SOP Class")
SUBSTANCE_ADMINISTRATION_LOGGING = _define("1.2.840.10008.1.42", "Substance Administration Logging SOP Class")

# Relevant Patient Information Query (PS3.4 Q).
_define = partial(_sop_class, "Relevant Patient Information Query")
GENERAL_RELEVANT_PATIENT_INFORMATION_QUERY = _define(
    "1.2.840.10008.5.1.4.37.1", "General Relevant Patient Information Query"
)
BREAST_IMAGING_RELEVANT_PATIENT_INFORMATION_QUERY = _define(
    "1.2.840.10008.5.1.4.37.2", "Breast Imaging Relevant Patient Information Query"
)
CARDIAC_RELEVANT_PATIENT_INFORMATION_QUERY = _define(
    "1.2.840.10008.5.1.4.37.3", "Cardiac Relevant Patient Information Query"
)

# Instance Availability Notification (PS3.4 R).
_define = partial(_sop_class, "Instance Availability Notification")
INSTANCE_AVAILABILITY_NOTIFICATION = _define("1.2.840.10008.5.1.4.33", "Instance Availability Notification SOP Class")

# Media Creation Management (PS3.4 S).
_define = partial(_sop_class, "Media Creation Management")
MEDIA_CREATION_MANAGEMENT = _define(
    "1.2.840.10008.5.1.1.33", "Media Creation Management SOP Class UID", keyword="MediaCreationManagement"
)

# Hanging Protocol Query/Retrieve (PS3.4 U).
_define = partial(_sop_class, "Hanging Protocol Query/Retrieve")
HANGING_PROTOCOL_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.38.2", "Hanging Protocol Information Model - FIND"
)
HANGING_PROTOCOL_INFORMATION_MODEL_MOVE = _define(
    "1.2.840.10008.5.1.4.38.3", "Hanging Protocol Information Model - MOVE"
)
HANGING_PROTOCOL_INFORMATION_MODEL_GET = _define("1.2.840.10008.5.1.4.38.4", "Hanging Protocol Information Model - GET")

# Substance Administration Query (PS3.4 V).
_define = partial(_sop_class, "Substance Administration Query")
PRODUCT_CHARACTERISTICS_QUERY = _define("1.2.840.10008.5.1.4.41", "Product Characteristics Query SOP Class")
SUBSTANCE_APPROVAL_QUERY = _define("1.2.840.10008.5.1.4.42", "Substance Approval Query SOP Class")

# Color Palette Query/Retrieve (PS3.4 X).
_define = partial(_sop_class, "Color Palette Query/Retrieve")
COLOR_PALETTE_QUERY_RETRIEVE_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.39.2", "Color Palette Query/Retrieve Information Model - FIND"
)
COLOR_PALETTE_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE = _define(
    "1.2.840.10008.5.1.4.39.3", "Color Palette Query/Retrieve Information Model - MOVE"
)
COLOR_PALETTE_QUERY_RETRIEVE_INFORMATION_MODEL_GET = _define(
    "1.2.840.10008.5.1.4.39.4", "Color Palette Query/Retrieve Information Model - GET"
)

# Implant Template Query/Retrieve (PS3.4 BB).
_define = partial(_sop_class, "Implant Template Query/Retrieve")
GENERIC_IMPLANT_TEMPLATE_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.43.2", "Generic Implant Template Information Model - FIND"
)
GENERIC_IMPLANT_TEMPLATE_INFORMATION_MODEL_MOVE = _define(
    "1.2.840.10008.5.1.4.43.3", "Generic Implant Template Information Model - MOVE"
)
GENERIC_IMPLANT_TEMPLATE_INFORMATION_MODEL_GET = _define(
    "1.2.840.10008.5.1.4.43.4", "Generic Implant Template Information Model - GET"
)
IMPLANT_ASSEMBLY_TEMPLATE_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.44.2", "Implant Assembly Template Information Model - FIND"
)
IMPLANT_ASSEMBLY_TEMPLATE_INFORMATION_MODEL_MOVE = _define(
    "1.2.840.10008.5.1.4.44.3", "Implant Assembly Template Information Model - MOVE"
)
IMPLANT_ASSEMBLY_TEMPLATE_INFORMATION_MODEL_GET = _define(
    "1.2.840.10008.5.1.4.44.4", "Implant Assembly Template Information Model - GET"
)
IMPLANT_TEMPLATE_GROUP_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.45.2", "Implant Template Group Information Model - FIND"
)
IMPLANT_TEMPLATE_GROUP_INFORMATION_MODEL_MOVE = _define(
    "1.2.840.10008.5.1.4.45.3", "Implant Template Group Information Model - MOVE"
)
IMPLANT_TEMPLATE_GROUP_INFORMATION_MODEL_GET = _define(
    "1.2.840.10008.5.1.4.45.4", "Implant Template Group Information Model - GET"
)

# Unified Procedure Step (PS3.4 CC).
_define = partial(_sop_class, "Unified Procedure Step")
UNIFIED_PROCEDURE_STEP_PUSH_TRIAL = _define(
    "1.2.840.10008.5.1.4.34.4.1",
    "Unified Procedure Step - Push SOP Class - Trial",
    keyword="UnifiedProcedureStepPushTrial",
    retired=True,
)
UNIFIED_PROCEDURE_STEP_WATCH_TRIAL = _define(
    "1.2.840.10008.5.1.4.34.4.2",
    "Unified Procedure Step - Watch SOP Class - Trial",
    keyword="UnifiedProcedureStepWatchTrial",
    retired=True,
)
UNIFIED_PROCEDURE_STEP_PULL_TRIAL = _define(
    "1.2.840.10008.5.1.4.34.4.3",
    "Unified Procedure Step - Pull SOP Class - Trial",
    keyword="UnifiedProcedureStepPullTrial",
    retired=True,
)
UNIFIED_PROCEDURE_STEP_EVENT_TRIAL = _define(
    "1.2.840.10008.5.1.4.34.4.4",
    "Unified Procedure Step - Event SOP Class - Trial",
    keyword="UnifiedProcedureStepEventTrial",
    retired=True,
)
UNIFIED_PROCEDURE_STEP_PUSH = _define("1.2.840.10008.5.1.4.34.6.1", "Unified Procedure Step - Push SOP Class")
UNIFIED_PROCEDURE_STEP_WATCH = _define("1.2.840.10008.5.1.4.34.6.2", "Unified Procedure Step - Watch SOP Class")
UNIFIED_PROCEDURE_STEP_PULL = _define("1.2.840.10008.5.1.4.34.6.3", "Unified Procedure Step - Pull SOP Class")
UNIFIED_PROCEDURE_STEP_EVENT = _define("1.2.840.10008.5.1.4.34.6.4", "Unified Procedure Step - Event SOP Class")
UNIFIED_PROCEDURE_STEP_QUERY = _define("1.2.840.10008.5.1.4.34.6.5", "Unified Procedure Step - Query SOP Class")

# RT Machine Verification (PS3.4 DD).
_define = partial(_sop_class, "RT Machine Verification")
RT_CONVENTIONAL_MACHINE_VERIFICATION_TRIAL = _define(
    "1.2.840.10008.5.1.4.34.2", "RT Conventional Machine Verification - Trial", retired=True
)
RT_ION_MACHINE_VERIFICATION_TRIAL = _define(
    "1.2.840.10008.5.1.4.34.3", "RT Ion Machine Verification - Trial", retired=True
)
RT_CONVENTIONAL_MACHINE_VERIFICATION = _define("1.2.840.10008.5.1.4.34.8", "RT Conventional Machine Verification")
RT_ION_MACHINE_VERIFICATION = _define("1.2.840.10008.5.1.4.34.9", "RT Ion Machine Verification")

# Display System Management (PS3.4 EE).
_define = partial(_sop_class, "Display System Management")
DISPLAY_SYSTEM = _define("1.2.840.10008.5.1.1.40", "Display System SOP Class")

# Defined Procedure Protocol Query/Retrieve (PS3.4 HH).
_define = partial(_sop_class, "Defined Procedure Protocol Query/Retrieve")
DEFINED_PROCEDURE_PROTOCOL_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.20.1", "Defined Procedure Protocol Information Model - FIND"
)
DEFINED_PROCEDURE_PROTOCOL_INFORMATION_MODEL_MOVE = _define(
    "1.2.840.10008.5.1.4.20.2", "Defined Procedure Protocol Information Model - MOVE"
)
DEFINED_PROCEDURE_PROTOCOL_INFORMATION_MODEL_GET = _define(
    "1.2.840.10008.5.1.4.20.3", "Defined Procedure Protocol Information Model - GET"
)

# Protocol Approval Query/Retrieve (PS3.4 II).
_define = partial(_sop_class, "Protocol Approval Query/Retrieve")
PROTOCOL_APPROVAL_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.1.1.200.4", "Protocol Approval Information Model - FIND"
)
PROTOCOL_APPROVAL_INFORMATION_MODEL_MOVE = _define(
    "1.2.840.10008.5.1.4.1.1.200.5", "Protocol Approval Information Model - MOVE"
)
PROTOCOL_APPROVAL_INFORMATION_MODEL_GET = _define(
    "1.2.840.10008.5.1.4.1.1.200.6", "Protocol Approval Information Model - GET"
)

# Inventory Query/Retrieve (PS3.4 JJ).
_define = partial(_sop_class, "Inventory Query/Retrieve")
INVENTORY_FIND = _define("1.2.840.10008.5.1.4.1.1.201.2", "Inventory - FIND")
INVENTORY_MOVE = _define("1.2.840.10008.5.1.4.1.1.201.3", "Inventory - MOVE")
INVENTORY_GET = _define("1.2.840.10008.5.1.4.1.1.201.4", "Inventory - GET")

# Storage Management (PS3.4 KK).
_define = partial(_sop_class, "Storage Management")
INVENTORY_CREATION = _define("1.2.840.10008.5.1.4.1.1.201.5", "Inventory Creation")

# Real-Time Communication (PS3.22).
_define = partial(_sop_class, "Real-Time Communication")
VIDEO_ENDOSCOPIC_IMAGE_REAL_TIME_COMMUNICATION = _define(
    "1.2.840.10008.10.1", "Video Endoscopic Image Real-Time Communication"
)
VIDEO_PHOTOGRAPHIC_IMAGE_REAL_TIME_COMMUNICATION = _define(
    "1.2.840.10008.10.2", "Video Photographic Image Real-Time Communication"
)
AUDIO_WAVEFORM_REAL_TIME_COMMUNICATION = _define("1.2.840.10008.10.3", "Audio Waveform Real-Time Communication")
RENDITION_SELECTION_DOCUMENT_REAL_TIME_COMMUNICATION = _define(
    "1.2.840.10008.10.4", "Rendition Selection Document Real-Time Communication"
)

# Study Content Notification (retired).
_define = partial(_sop_class, "Study Content Notification")
BASIC_STUDY_CONTENT_NOTIFICATION = _define(
    "1.2.840.10008.1.9", "Basic Study Content Notification SOP Class", retired=True
)

# Patient Management (retired).
_define = partial(_sop_class, "Patient Management")
DETACHED_PATIENT_MANAGEMENT = _define("1.2.840.10008.3.1.2.1.1", "Detached Patient Management SOP Class", retired=True)
DETACHED_PATIENT_MANAGEMENT_META = _define(
    "1.2.840.10008.3.1.2.1.4", "Detached Patient Management Meta SOP Class", retired=True
)
DETACHED_VISIT_MANAGEMENT = _define("1.2.840.10008.3.1.2.2.1", "Detached Visit Management SOP Class", retired=True)

# Study Management (retired).
_define = partial(_sop_class, "Study Management")
DETACHED_STUDY_MANAGEMENT = _define("1.2.840.10008.3.1.2.3.1", "Detached Study Management SOP Class", retired=True)
STUDY_COMPONENT_MANAGEMENT = _define("1.2.840.10008.3.1.2.3.2", "Study Component Management SOP Class", retired=True)
DETACHED_STUDY_MANAGEMENT_META = _define(
    "1.2.840.10008.3.1.2.5.5", "Detached Study Management Meta SOP Class", retired=True
)

# Results Management (retired).
_define = partial(_sop_class, "Results Management")
DETACHED_RESULTS_MANAGEMENT = _define("1.2.840.10008.3.1.2.5.1", "Detached Results Management SOP Class", retired=True)
DETACHED_RESULTS_MANAGEMENT_META = _define(
    "1.2.840.10008.3.1.2.5.4", "Detached Results Management Meta SOP Class", retired=True
)
DETACHED_INTERPRETATION_MANAGEMENT = _define(
    "1.2.840.10008.3.1.2.6.1", "Detached Interpretation Management SOP Class", retired=True
)

# General Purpose Worklist Management (retired).
_define = partial(_sop_class, "General Purpose Worklist Management")
GENERAL_PURPOSE_WORKLIST_MANAGEMENT_META = _define(
    "1.2.840.10008.5.1.4.32", "General Purpose Worklist Management Meta SOP Class", retired=True
)
GENERAL_PURPOSE_WORKLIST_INFORMATION_MODEL_FIND = _define(
    "1.2.840.10008.5.1.4.32.1", "General Purpose Worklist Information Model - FIND", retired=True
)
GENERAL_PURPOSE_SCHEDULED_PROCEDURE_STEP = _define(
    "1.2.840.10008.5.1.4.32.2", "General Purpose Scheduled Procedure Step SOP Class", retired=True
)
GENERAL_PURPOSE_PERFORMED_PROCEDURE_STEP = _define(
    "1.2.840.10008.5.1.4.32.3", "General Purpose Performed Procedure Step SOP Class", retired=True
)

# Transfer syntaxes (PS3.5 A).
IMPLICIT_VR_LITTLE_ENDIAN = _transfer_syntax("1.2.840.10008.1.2", "ImplicitVRLittleEndian", "Implicit VR Little Endian")
EXPLICIT_VR_LITTLE_ENDIAN = _transfer_syntax(
    "1.2.840.10008.1.2.1", "ExplicitVRLittleEndian", "Explicit VR Little Endian"
)
ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN = _transfer_syntax(
    "1.2.840.10008.1.2.1.98",
    "EncapsulatedUncompressedExplicitVRLittleEndian",
    "Encapsulated Uncompressed Explicit VR Little Endian",
)
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = _transfer_syntax(
    "1.2.840.10008.1.2.1.99", "DeflatedExplicitVRLittleEndian", "Deflated Explicit VR Little Endian"
)
EXPLICIT_VR_BIG_ENDIAN = _transfer_syntax(
    "1.2.840.10008.1.2.2", "ExplicitVRBigEndian", "Explicit VR Big Endian", retired=True
)
JPEG_BASELINE_8BIT = _transfer_syntax("1.2.840.10008.1.2.4.50", "JPEGBaseline8Bit", "JPEG Baseline (Process 1)")
JPEG_EXTENDED_12BIT = _transfer_syntax("1.2.840.10008.1.2.4.51", "JPEGExtended12Bit", "JPEG Extended (Process 2 and 4)")
JPEG_EXTENDED_35 = _transfer_syntax(
    "1.2.840.10008.1.2.4.52", "JPEGExtended35", "JPEG Extended (Process 3 and 5)", retired=True
)
JPEG_SPECTRAL_SELECTION_NON_HIERARCHICAL_68 = _transfer_syntax(
    "1.2.840.10008.1.2.4.53",
    "JPEGSpectralSelectionNonHierarchical68",
    "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)",
    retired=True,
)
JPEG_SPECTRAL_SELECTION_NON_HIERARCHICAL_79 = _transfer_syntax(
    "1.2.840.10008.1.2.4.54",
    "JPEGSpectralSelectionNonHierarchical79",
    "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)",
    retired=True,
)
JPEG_FULL_PROGRESSION_NON_HIERARCHICAL_1012 = _transfer_syntax(
    "1.2.840.10008.1.2.4.55",
    "JPEGFullProgressionNonHierarchical1012",
    "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)",
    retired=True,
)
JPEG_FULL_PROGRESSION_NON_HIERARCHICAL_1113 = _transfer_syntax(
    "1.2.840.10008.1.2.4.56",
    "JPEGFullProgressionNonHierarchical1113",
    "JPEG Full Progression, Non-Hierarchical (Process 11 and 13)",
    retired=True,
)
JPEG_LOSSLESS = _transfer_syntax(
    "1.2.840.10008.1.2.4.57", "JPEGLossless", "JPEG Lossless, Non-Hierarchical (Process 14)"
)
JPEG_LOSSLESS_NON_HIERARCHICAL_15 = _transfer_syntax(
    "1.2.840.10008.1.2.4.58",
    "JPEGLosslessNonHierarchical15",
    "JPEG Lossless, Non-Hierarchical (Process 15)",
    retired=True,
)
JPEG_EXTENDED_HIERARCHICAL_1618 = _transfer_syntax(
    "1.2.840.10008.1.2.4.59",
    "JPEGExtendedHierarchical1618",
    "JPEG Extended, Hierarchical (Process 16 and 18)",
    retired=True,
)
JPEG_EXTENDED_HIERARCHICAL_1719 = _transfer_syntax(
    "1.2.840.10008.1.2.4.60",
    "JPEGExtendedHierarchical1719",
    "JPEG Extended, Hierarchical (Process 17 and 19)",
    retired=True,
)
JPEG_SPECTRAL_SELECTION_HIERARCHICAL_2022 = _transfer_syntax(
    "1.2.840.10008.1.2.4.61",
    "JPEGSpectralSelectionHierarchical2022",
    "JPEG Spectral Selection, Hierarchical (Process 20 and 22)",
    retired=True,
)
JPEG_SPECTRAL_SELECTION_HIERARCHICAL_2123 = _transfer_syntax(
    "1.2.840.10008.1.2.4.62",
    "JPEGSpectralSelectionHierarchical2123",
    "JPEG Spectral Selection, Hierarchical (Process 21 and 23)",
    retired=True,
)
JPEG_FULL_PROGRESSION_HIERARCHICAL_2426 = _transfer_syntax(
    "1.2.840.10008.1.2.4.63",
    "JPEGFullProgressionHierarchical2426",
    "JPEG Full Progression, Hierarchical (Process 24 and 26)",
    retired=True,
)
JPEG_FULL_PROGRESSION_HIERARCHICAL_2527 = _transfer_syntax(
    "1.2.840.10008.1.2.4.64",
    "JPEGFullProgressionHierarchical2527",
    "JPEG Full Progression, Hierarchical (Process 25 and 27)",
    retired=True,
)
JPEG_LOSSLESS_HIERARCHICAL_28 = _transfer_syntax(
    "1.2.840.10008.1.2.4.65", "JPEGLosslessHierarchical28", "JPEG Lossless, Hierarchical (Process 28)", retired=True
)
JPEG_LOSSLESS_HIERARCHICAL_29 = _transfer_syntax(
    "1.2.840.10008.1.2.4.66", "JPEGLosslessHierarchical29", "JPEG Lossless, Hierarchical (Process 29)", retired=True
)
JPEG_LOSSLESS_SV1 = _transfer_syntax(
    "1.2.840.10008.1.2.4.70",
    "JPEGLosslessSV1",
    "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
)
JPEG_LS_LOSSLESS = _transfer_syntax("1.2.840.10008.1.2.4.80", "JPEGLSLossless", "JPEG-LS Lossless Image Compression")
JPEG_LS_NEAR_LOSSLESS = _transfer_syntax(
    "1.2.840.10008.1.2.4.81", "JPEGLSNearLossless", "JPEG-LS Lossy (Near-Lossless) Image Compression"
)
JPEG_2000_LOSSLESS = _transfer_syntax(
    "1.2.840.10008.1.2.4.90", "JPEG2000Lossless", "JPEG 2000 Image Compression (Lossless Only)"
)
JPEG_2000 = _transfer_syntax("1.2.840.10008.1.2.4.91", "JPEG2000", "JPEG 2000 Image Compression")
JPEG_2000_MC_LOSSLESS = _transfer_syntax(
    "1.2.840.10008.1.2.4.92", "JPEG2000MCLossless", "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)"
)
JPEG_2000_MC = _transfer_syntax(
    "1.2.840.10008.1.2.4.93", "JPEG2000MC", "JPEG 2000 Part 2 Multi-component Image Compression"
)
JPIP_REFERENCED = _transfer_syntax("1.2.840.10008.1.2.4.94", "JPIPReferenced", "JPIP Referenced")
JPIP_REFERENCED_DEFLATE = _transfer_syntax("1.2.840.10008.1.2.4.95", "JPIPReferencedDeflate", "JPIP Referenced Deflate")
MPEG2_MPML = _transfer_syntax("1.2.840.10008.1.2.4.100", "MPEG2MPML", "MPEG2 Main Profile / Main Level")
MPEG2_MPML_F = _transfer_syntax(
    "1.2.840.10008.1.2.4.100.1", "MPEG2MPMLF", "Fragmentable MPEG2 Main Profile / Main Level"
)
MPEG2_MPHL = _transfer_syntax("1.2.840.10008.1.2.4.101", "MPEG2MPHL", "MPEG2 Main Profile / High Level")
MPEG2_MPHL_F = _transfer_syntax(
    "1.2.840.10008.1.2.4.101.1", "MPEG2MPHLF", "Fragmentable MPEG2 Main Profile / High Level"
)
MPEG4_HP41 = _transfer_syntax("1.2.840.10008.1.2.4.102", "MPEG4HP41", "MPEG-4 AVC/H.264 High Profile / Level 4.1")
MPEG4_HP41_F = _transfer_syntax(
    "1.2.840.10008.1.2.4.102.1", "MPEG4HP41F", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1"
)
MPEG4_HP41_BD = _transfer_syntax(
    "1.2.840.10008.1.2.4.103", "MPEG4HP41BD", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"
)
MPEG4_HP41_BD_F = _transfer_syntax(
    "1.2.840.10008.1.2.4.103.1", "MPEG4HP41BDF", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"
)
MPEG4_HP42_2D = _transfer_syntax(
    "1.2.840.10008.1.2.4.104", "MPEG4HP422D", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"
)
MPEG4_HP42_2D_F = _transfer_syntax(
    "1.2.840.10008.1.2.4.104.1", "MPEG4HP422DF", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"
)
MPEG4_HP42_3D = _transfer_syntax(
    "1.2.840.10008.1.2.4.105", "MPEG4HP423D", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"
)
MPEG4_HP42_3D_F = _transfer_syntax(
    "1.2.840.10008.1.2.4.105.1", "MPEG4HP423DF", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"
)
MPEG4_HP42_STEREO = _transfer_syntax(
    "1.2.840.10008.1.2.4.106", "MPEG4HP42STEREO", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"
)
MPEG4_HP42_STEREO_F = _transfer_syntax(
    "1.2.840.10008.1.2.4.106.1", "MPEG4HP42STEREOF", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"
)
HEVC_MP51 = _transfer_syntax("1.2.840.10008.1.2.4.107", "HEVCMP51", "HEVC/H.265 Main Profile / Level 5.1")
HEVC_M10P51 = _transfer_syntax("1.2.840.10008.1.2.4.108", "HEVCM10P51", "HEVC/H.265 Main 10 Profile / Level 5.1")
JPEG_XL_LOSSLESS = _transfer_syntax("1.2.840.10008.1.2.4.110", "JPEGXLLossless", "JPEG XL Lossless")
JPEG_XL_JPEG_RECOMPRESSION = _transfer_syntax(
    "1.2.840.10008.1.2.4.111", "JPEGXLJPEGRecompression", "JPEG XL JPEG Recompression"
)
JPEG_XL = _transfer_syntax("1.2.840.10008.1.2.4.112", "JPEGXL", "JPEG XL")
HTJ2K_LOSSLESS = _transfer_syntax(
    "1.2.840.10008.1.2.4.201", "HTJ2KLossless", "High-Throughput JPEG 2000 Image Compression (Lossless Only)"
)
HTJ2K_LOSSLESS_RPCL = _transfer_syntax(
    "1.2.840.10008.1.2.4.202",
    "HTJ2KLosslessRPCL",
    "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)",
)
HTJ2K = _transfer_syntax("1.2.840.10008.1.2.4.203", "HTJ2K", "High-Throughput JPEG 2000 Image Compression")
JPIP_HTJ2K_REFERENCED = _transfer_syntax("1.2.840.10008.1.2.4.204", "JPIPHTJ2KReferenced", "JPIP HTJ2K Referenced")
JPIP_HTJ2K_REFERENCED_DEFLATE = _transfer_syntax(
    "1.2.840.10008.1.2.4.205", "JPIPHTJ2KReferencedDeflate", "JPIP HTJ2K Referenced Deflate"
)
RLE_LOSSLESS = _transfer_syntax("1.2.840.10008.1.2.5", "RLELossless", "RLE Lossless")
RFC_2557_MIME_ENCAPSULATION = _transfer_syntax(
    "1.2.840.10008.1.2.6.1", "RFC2557MIMEEncapsulation", "RFC 2557 MIME encapsulation", retired=True
)
XML_ENCODING = _transfer_syntax("1.2.840.10008.1.2.6.2", "XMLEncoding", "XML Encoding", retired=True)
SMPTE_ST_2110_20_UNCOMPRESSED_PROGRESSIVE_ACTIVE_VIDEO = _transfer_syntax(
    "1.2.840.10008.1.2.7.1",
    "SMPTEST211020UncompressedProgressiveActiveVideo",
    "SMPTE ST 2110-20 Uncompressed Progressive Active Video",
)
SMPTE_ST_2110_20_UNCOMPRESSED_INTERLACED_ACTIVE_VIDEO = _transfer_syntax(
    "1.2.840.10008.1.2.7.2",
    "SMPTEST211020UncompressedInterlacedActiveVideo",
    "SMPTE ST 2110-20 Uncompressed Interlaced Active Video",
)
SMPTE_ST_2110_30_PCM_DIGITAL_AUDIO = _transfer_syntax(
    "1.2.840.10008.1.2.7.3", "SMPTEST211030PCMDigitalAudio", "SMPTE ST 2110-30 PCM Digital Audio"
)
DEFLATED_IMAGE_FRAME_COMPRESSION = _transfer_syntax(
    "1.2.840.10008.1.2.8.1", "DeflatedImageFrameCompression", "Deflated Image Frame Compression"
)
PAPYRUS_3_IMPLICIT_VR_LITTLE_ENDIAN = _transfer_syntax(
    "1.2.840.10008.1.20", "Papyrus3ImplicitVRLittleEndian", "Papyrus 3 Implicit VR Little Endian", retired=True
)

# Well-known SOP instances.
HOT_IRON_PALETTE = "1.2.840.10008.1.5.1"
PET_PALETTE = "1.2.840.10008.1.5.2"
HOT_METAL_BLUE_PALETTE = "1.2.840.10008.1.5.3"
PET_20_STEP_PALETTE = "1.2.840.10008.1.5.4"
SPRING_PALETTE = "1.2.840.10008.1.5.5"
SUMMER_PALETTE = "1.2.840.10008.1.5.6"
FALL_PALETTE = "1.2.840.10008.1.5.7"
WINTER_PALETTE = "1.2.840.10008.1.5.8"
STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
STORAGE_COMMITMENT_PULL_MODEL_INSTANCE = "1.2.840.10008.1.20.2.1"  # retired
PROCEDURAL_EVENT_LOGGING_INSTANCE = "1.2.840.10008.1.40.1"
SUBSTANCE_ADMINISTRATION_LOGGING_INSTANCE = "1.2.840.10008.1.42.1"
PRINTER_INSTANCE = "1.2.840.10008.5.1.1.17"
PRINTER_CONFIGURATION_RETRIEVAL_INSTANCE = "1.2.840.10008.5.1.1.17.376"
PRINT_QUEUE_INSTANCE = "1.2.840.10008.5.1.1.25"  # retired
DISPLAY_SYSTEM_INSTANCE = "1.2.840.10008.5.1.1.40.1"
STORAGE_MANAGEMENT_INSTANCE = "1.2.840.10008.5.1.4.1.1.201.1.1"
UPS_GLOBAL_SUBSCRIPTION_INSTANCE = "1.2.840.10008.5.1.4.34.5"
UPS_FILTERED_GLOBAL_SUBSCRIPTION_INSTANCE = "1.2.840.10008.5.1.4.34.5.1"

# Service classes, as the SOP Class Common Extended Negotiation names them (PS3.7 D.3.3.6).
STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"
UNIFIED_WORKLIST_AND_PROCEDURE_STEP_TRIAL_SERVICE_CLASS = "1.2.840.10008.5.1.4.34.4"  # retired
UNIFIED_WORKLIST_AND_PROCEDURE_STEP_SERVICE_CLASS = "1.2.840.10008.5.1.4.34.6"

#: Every SOP class of PS3.6, retired ones too; two that it has retired together with their names are missing.
SOP_CLASSES: tuple[SOPClass, ...] = tuple(_SOP_CLASSES.values())

#: Every transfer syntax of PS3.6.
TRANSFER_SYNTAXES: tuple[TransferSyntax, ...] = tuple(_TRANSFER_SYNTAXES.values())

#: Every storage SOP class, retired ones, DICOS and DICONDE included: what a server may accept.
STORAGE: tuple[SOPClass, ...] = tuple(known for known in SOP_CLASSES if known.is_storage)

#: The classes of the Query/Retrieve service (PS3.4 C, Y and Z).
FIND: tuple[SOPClass, ...] = (PATIENT_ROOT_FIND, STUDY_ROOT_FIND, PATIENT_STUDY_ONLY_FIND)
MOVE: tuple[SOPClass, ...] = (PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE, PATIENT_STUDY_ONLY_MOVE, COMPOSITE_INSTANCE_ROOT_MOVE)
GET: tuple[SOPClass, ...] = (
    PATIENT_ROOT_GET,
    STUDY_ROOT_GET,
    PATIENT_STUDY_ONLY_GET,
    COMPOSITE_INSTANCE_ROOT_GET,
    COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
)

#: The storage SOP classes that hospitals really use: what a client may propose. At most 100, so that Verification and
#: all the classes of Query/Retrieve fit beside them into the 128 presentation contexts of an association.
STORAGE_COMMON: tuple[SOPClass, ...] = (
    COMPUTED_RADIOGRAPHY_IMAGE_STORAGE,
    DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
    DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
    DIGITAL_INTRA_ORAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    DIGITAL_INTRA_ORAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
    CT_IMAGE_STORAGE,
    ENHANCED_CT_IMAGE_STORAGE,
    ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE_RETIRED,
    ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE,
    MR_IMAGE_STORAGE,
    ENHANCED_MR_IMAGE_STORAGE,
    MR_SPECTROSCOPY_STORAGE,
    ENHANCED_MR_COLOR_IMAGE_STORAGE,
    NUCLEAR_MEDICINE_IMAGE_STORAGE_RETIRED,
    ULTRASOUND_IMAGE_STORAGE_RETIRED,
    ULTRASOUND_IMAGE_STORAGE,
    ENHANCED_US_VOLUME_STORAGE,
    SECONDARY_CAPTURE_IMAGE_STORAGE,
    MULTI_FRAME_SINGLE_BIT_SECONDARY_CAPTURE_IMAGE_STORAGE,
    MULTI_FRAME_GRAYSCALE_BYTE_SECONDARY_CAPTURE_IMAGE_STORAGE,
    MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE_STORAGE,
    MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE,
    TWELVE_LEAD_ECG_WAVEFORM_STORAGE,
    GENERAL_ECG_WAVEFORM_STORAGE,
    AMBULATORY_ECG_WAVEFORM_STORAGE,
    HEMODYNAMIC_WAVEFORM_STORAGE,
    CARDIAC_ELECTROPHYSIOLOGY_WAVEFORM_STORAGE,
    BASIC_VOICE_AUDIO_WAVEFORM_STORAGE,
    ARTERIAL_PULSE_WAVEFORM_STORAGE,
    GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE,
    COLOR_SOFTCOPY_PRESENTATION_STATE_STORAGE,
    PSEUDO_COLOR_SOFTCOPY_PRESENTATION_STATE_STORAGE,
    BLENDING_SOFTCOPY_PRESENTATION_STATE_STORAGE,
    XAXRF_GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE,
    X_RAY_ANGIOGRAPHIC_IMAGE_STORAGE,
    ENHANCED_XA_IMAGE_STORAGE,
    X_RAY_RADIOFLUOROSCOPIC_IMAGE_STORAGE,
    ENHANCED_XRF_IMAGE_STORAGE,
    X_RAY_ANGIOGRAPHIC_BI_PLANE_IMAGE_STORAGE,
    X_RAY_3D_ANGIOGRAPHIC_IMAGE_STORAGE,
    X_RAY_3D_CRANIOFACIAL_IMAGE_STORAGE,
    BREAST_TOMOSYNTHESIS_IMAGE_STORAGE,
    BREAST_PROJECTION_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    BREAST_PROJECTION_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
    INTRAVASCULAR_OPTICAL_COHERENCE_TOMOGRAPHY_IMAGE_STORAGE_FOR_PRESENTATION,
    NUCLEAR_MEDICINE_IMAGE_STORAGE,
    PARAMETRIC_MAP_STORAGE,
    RAW_DATA_STORAGE,
    SPATIAL_REGISTRATION_STORAGE,
    SPATIAL_FIDUCIALS_STORAGE,
    DEFORMABLE_SPATIAL_REGISTRATION_STORAGE,
    SEGMENTATION_STORAGE,
    SURFACE_SEGMENTATION_STORAGE,
    LABEL_MAP_SEGMENTATION_STORAGE,
    REAL_WORLD_VALUE_MAPPING_STORAGE,
    VL_ENDOSCOPIC_IMAGE_STORAGE,
    VIDEO_ENDOSCOPIC_IMAGE_STORAGE,
    VL_MICROSCOPIC_IMAGE_STORAGE,
    VL_SLIDE_COORDINATES_MICROSCOPIC_IMAGE_STORAGE,
    VL_PHOTOGRAPHIC_IMAGE_STORAGE,
    VIDEO_PHOTOGRAPHIC_IMAGE_STORAGE,
    OPHTHALMIC_PHOTOGRAPHY_8BIT_IMAGE_STORAGE,
    OPHTHALMIC_PHOTOGRAPHY_16BIT_IMAGE_STORAGE,
    OPHTHALMIC_TOMOGRAPHY_IMAGE_STORAGE,
    WIDE_FIELD_OPHTHALMIC_PHOTOGRAPHY_STEREOGRAPHIC_PROJECTION_IMAGE_STORAGE,
    WIDE_FIELD_OPHTHALMIC_PHOTOGRAPHY_3D_COORDINATES_IMAGE_STORAGE,
    VL_WHOLE_SLIDE_MICROSCOPY_IMAGE_STORAGE,
    DERMOSCOPIC_PHOTOGRAPHY_IMAGE_STORAGE,
    OPHTHALMIC_VISUAL_FIELD_STATIC_PERIMETRY_MEASUREMENTS_STORAGE,
    OPHTHALMIC_THICKNESS_MAP_STORAGE,
    BASIC_TEXT_SR_STORAGE,
    ENHANCED_SR_STORAGE,
    COMPREHENSIVE_SR_STORAGE,
    COMPREHENSIVE_3D_SR_STORAGE,
    PROCEDURE_LOG_STORAGE,
    MAMMOGRAPHY_CADSR_STORAGE,
    KEY_OBJECT_SELECTION_DOCUMENT_STORAGE,
    CHEST_CADSR_STORAGE,
    X_RAY_RADIATION_DOSE_SR_STORAGE,
    RADIOPHARMACEUTICAL_RADIATION_DOSE_SR_STORAGE,
    SIMPLIFIED_ADULT_ECHO_SR_STORAGE,
    ENHANCED_X_RAY_RADIATION_DOSE_SR_STORAGE,
    ENCAPSULATED_PDF_STORAGE,
    ENCAPSULATED_CDA_STORAGE,
    ENCAPSULATED_STL_STORAGE,
    POSITRON_EMISSION_TOMOGRAPHY_IMAGE_STORAGE,
    ENHANCED_PET_IMAGE_STORAGE,
    RT_IMAGE_STORAGE,
    RT_DOSE_STORAGE,
    RT_STRUCTURE_SET_STORAGE,
    RT_BEAMS_TREATMENT_RECORD_STORAGE,
    RT_PLAN_STORAGE,
    RT_BRACHY_TREATMENT_RECORD_STORAGE,
    RT_TREATMENT_SUMMARY_RECORD_STORAGE,
    RT_ION_PLAN_STORAGE,
    RT_ION_BEAMS_TREATMENT_RECORD_STORAGE,
)

# Everything that is a SOP class or a transfer syntax is public; listing the names again would only invite differences.
__all__ += [name for name, value in list(globals().items()) if isinstance(value, SOPClass | TransferSyntax)]

if not TYPE_CHECKING:  # a type checker knows the names above, and only these

    def __getattr__(name: str) -> SOPClass | TransferSyntax:
        if name.isupper() and not name.startswith("_"):
            wanted = name.replace("_", "")
            for known in (*SOP_CLASSES, *TRANSFER_SYNTAXES):
                if known.keyword.upper() == wanted:
                    return known
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
