"""Phantoms as DICOM instances: CR, DX and Secondary Capture, every common transfer syntax.

Headers follow PS3.3 A.2 (CR), A.26 (DX) and A.8 (Secondary Capture). Nothing in them is a
person: the name says PHANTOM, and ImageComments says what the picture is.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from dicomnode.testing.phantom_film import chest_phantom

SopClass = Literal["CR", "DX", "SC"]
Photometric = Literal["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR"]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]

TRANSFER_SYNTAXES: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)
"""What `phantom_dataset` can write. JPEG Baseline needs `bits_stored=8`."""

_COMPRESSORS: Final = {
    RLELossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
}
_IMPLEMENTATION: Final = UID("2.25.190146837521204960361402571360478241187")
_NAMESPACE: Final = uuid.UUID("4f0d2a0c-53a8-5f0a-9b7e-0d7f0f6f3a11")
_COMMENT: Final = "Computer-generated phantom, not an image of a person"


def phantom_dataset(
    seed: int,
    positive: bool,
    *,
    photometric_interpretation: Photometric = "MONOCHROME2",
    bits_stored: int = 12,
    sop_class: SopClass = "DX",
    transfer_syntax: str = ExplicitVRLittleEndian,
    rows: int = 1024,
    columns: int = 1024,
    instance_number: int = 1,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    study_date: str = "20240115",
    study_time: str = "093000",
) -> Dataset:
    """A complete instance with file meta information; write it with `part10_bytes`.

    `bits_stored` is 8 to 16; colour has 8 bits. UIDs that are not given follow from the
    other arguments (UUID-derived, PS3.5 B.2), so the same call gives the same instance.
    Raises ValueError for a combination that cannot be encoded.
    """
    colour = photometric_interpretation in ("RGB", "YBR_FULL", "PALETTE COLOR")
    bits_stored = 8 if colour else bits_stored
    if not 8 <= bits_stored <= 16:
        raise ValueError(f"a phantom stores 8 to 16 bits, got bits_stored={bits_stored}")
    if transfer_syntax not in TRANSFER_SYNTAXES:
        known = ", ".join(syntax.name for syntax in TRANSFER_SYNTAXES)
        raise ValueError(f"no phantom in transfer syntax {transfer_syntax}; known: {known}")
    if transfer_syntax == JPEGBaseline8Bit and (bits_stored != 8 or colour):
        raise ValueError("JPEG Baseline holds 8-bit grey phantoms here; pass bits_stored=8")

    film = chest_phantom(seed, positive, rows, columns, take=instance_number)
    study = study_instance_uid or _uid("study", seed, positive)
    series = series_instance_uid or _uid(study, sop_class, photometric_interpretation)
    ds = Dataset()
    _identify(ds, seed, study=study, series=series, date=study_date, time=study_time)
    ds.SOPInstanceUID = sop_instance_uid or _uid(
        series, instance_number, seed, positive, bits_stored, transfer_syntax, rows, columns
    )
    ds.InstanceNumber = instance_number
    _MODULES[sop_class](ds)
    _set_pixels(ds, film, photometric_interpretation, bits_stored)
    _encode(ds, UID(transfer_syntax))
    return ds


def phantom_study(
    seed: int,
    positive: bool,
    *,
    images: int = 2,
    sop_class: SopClass = "DX",
    transfer_syntax: str = ExplicitVRLittleEndian,
    rows: int = 1024,
    columns: int = 1024,
) -> list[Dataset]:
    """`images` films of one patient in one study and series."""
    return [
        phantom_dataset(
            seed,
            positive,
            sop_class=sop_class,
            transfer_syntax=transfer_syntax,
            rows=rows,
            columns=columns,
            instance_number=number,
        )
        for number in range(1, images + 1)
    ]


def part10_bytes(ds: Dataset) -> bytes:
    """The instance as a Part 10 file (PS3.10), in its own transfer syntax."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------- header


def _identify(ds: Dataset, seed: int, *, study: str, series: str, date: str, time: str) -> None:
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = f"PHANTOM^{seed}"
    ds.PatientID = f"PHANTOM-{seed:06d}"
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.StudyInstanceUID = study
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = date
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = time
    ds.StudyID = f"{seed % 10**8}"
    ds.AccessionNumber = f"PH{seed % 10**8:08d}"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Chest PA, computer-generated phantom"
    ds.SeriesInstanceUID = series
    ds.SeriesNumber = 1
    ds.SeriesDescription = "Chest PA"
    ds.Manufacturer = "phantom generator"
    ds.ManufacturerModelName = "chest phantom"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"
    ds.BodyPartExamined = "CHEST"
    ds.PatientOrientation = ["L", "F"]
    ds.ImageComments = _COMMENT
    ds.BurnedInAnnotation = "NO"
    ds.AcquisitionNumber = 1


def _computed_radiography(ds: Dataset) -> None:
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.Modality = "CR"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.ViewPosition = "PA"
    ds.KVP = "125"
    ds.PlateID = "1"
    ds.ImagerPixelSpacing = [0.4, 0.4]


def _digital_xray(ds: Dataset) -> None:
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = [_code("51185008", "SCT", "Chest")]
    ds.ViewPosition = "PA"
    view = _code("399348003", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    ds.KVP = "125"
    ds.DetectorType = "DIRECT"
    ds.ImagerPixelSpacing = [0.4, 0.4]
    ds.PositionerType = "NONE"
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1
    ds.RescaleIntercept = "0"
    ds.RescaleSlope = "1"
    ds.RescaleType = "US"
    ds.LossyImageCompression = "00"
    ds.AcquisitionContextSequence = []


def _secondary_capture(ds: Dataset) -> None:
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.Modality = "CR"
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ViewPosition = "PA"  # as scanned and exported films carry it, beyond what the IOD lists


_MODULES: Final[dict[str, Callable[[Dataset], None]]] = {
    "CR": _computed_radiography,
    "DX": _digital_xray,
    "SC": _secondary_capture,
}


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _uid(*parts: object) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(map(str, parts))).int}"


# ---------------------------------------------------------------------------------- pixels


def _set_pixels(
    ds: Dataset, film: NDArray[np.float32], photometric: Photometric, bits_stored: int
) -> None:
    ds.Rows, ds.Columns = film.shape
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = 8 if bits_stored == 8 else 16
    ds.BitsStored = bits_stored
    ds.HighBit = bits_stored - 1
    ds.PixelRepresentation = 0
    ds.SamplesPerPixel = 1
    if photometric.startswith("MONOCHROME"):
        pixels = _grey(ds, film, inverted=photometric == "MONOCHROME1")
    else:
        grey = np.round(film * 255).astype(np.uint8)
        pixels = _colour(ds, grey, photometric)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"


def _grey(ds: Dataset, film: NDArray[np.float32], *, inverted: bool) -> Pixels:
    """Film density in 5 % to 95 % of the stored range, with the window that shows it."""
    largest = 2**ds.BitsStored - 1
    low, high = round(0.05 * largest), round(0.95 * largest)
    stored = np.round(low + film * (high - low))
    centre, width = (low + high + 1) / 2, high - low + 1
    if inverted:
        # PS3.3 C.11.2.1.2.1: this centre mirrors the window exactly
        stored, centre = largest - stored, largest + 1 - centre
    ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    if ds.Modality == "DX":
        ds.PixelIntensityRelationshipSign = 1 if inverted else -1
    ds.WindowCenter, ds.WindowWidth = f"{centre:g}", f"{width:g}"
    ds.WindowCenterWidthExplanation = "NORMAL"
    pixels: Pixels = stored.astype(np.uint8 if ds.BitsAllocated == 8 else np.uint16)
    return pixels


def _colour(ds: Dataset, grey: NDArray[np.uint8], photometric: str) -> NDArray[np.uint8]:
    if photometric == "PALETTE COLOR":
        ramp = (np.arange(256, dtype=np.uint16) * 257).tobytes()
        for name in ("Red", "Green", "Blue"):
            setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(ds, f"{name}PaletteColorLookupTableData", ramp)
        return grey
    ds.SamplesPerPixel = 3
    ds.PlanarConfiguration = 0
    neutral = grey if photometric == "RGB" else np.full_like(grey, 128)
    return np.stack([grey, neutral, neutral], axis=-1)


def _encode(ds: Dataset, transfer_syntax: UID) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.ImplementationClassUID = _IMPLEMENTATION
    ds.file_meta.ImplementationVersionName = "CHEST_PHANTOM"
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if transfer_syntax in _COMPRESSORS:
        ds.compress(
            transfer_syntax,
            encoding_plugin=_COMPRESSORS[transfer_syntax],
            generate_instance_uid=False,
        )
    elif transfer_syntax == JPEGBaseline8Bit:
        _compress_jpeg(ds)
    elif transfer_syntax == ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    if transfer_syntax == ImplicitVRLittleEndian:
        ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = transfer_syntax


def _compress_jpeg(ds: Dataset) -> None:
    raw = len(ds.PixelData)
    grey = np.frombuffer(ds.PixelData, np.uint8).reshape(ds.Rows, ds.Columns)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="JPEG", quality=95)
    ds.PixelData = encapsulate([buffer.getvalue()])
    ds["PixelData"].is_undefined_length = True
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionRatio = f"{raw / buffer.tell():.3f}"
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    if ds.Modality == "DX":
        ds.DerivationDescription = "JPEG Baseline, quality 95"
