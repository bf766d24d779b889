"""The heatmap: Secondary Capture Image (PS3.3 A.8), for viewers that draw no SR."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.modelcard import ModelCard
from dicomnode.sr.content import SERIES_DESCRIPTION, HeatmapContent, Moment
from dicomnode.sr.drawing import heatmap_pixels
from dicomnode.sr.equipment import code_item, set_equipment, set_file_meta
from dicomnode.sr.headers import Header
from dicomnode.sr.identity import StudyIdentity, read_identity, read_image
from dicomnode.sr.tree import tracking_identifier
from dicomnode.sr.values import fitted

_SOURCE_IMAGE = ("121322", "DCM", "Source image for image processing operation")


MAXIMUM_PANELS = 9
"""Images shown side by side; of more, those with the highest probabilities."""


def build_heatmap(content: HeatmapContent, *others: HeatmapContent) -> Dataset:
    """One heatmap for the evaluated images of a study, a panel each, as a data set with
    file meta information: RGB, 8 bit, uncompressed.

    UIDs, time and equipment are those of `content`. The same content gives the same bytes
    (with the same Pillow). Raises `ReportUnbuildable` when a header cannot be carried into
    a valid document or the images disagree about the patient.
    """
    panels = _chosen([content, *others])
    headers = [panel.header for panel in (content, *others)]
    identity = read_identity(headers, study_instance_uid=content.study_instance_uid)
    moment = Moment.of(content.content_time, zone=content.timezone, offset=identity.timezone_offset)
    heatmap = Dataset()
    heatmap.SOPClassUID = SecondaryCaptureImageStorage
    heatmap.SOPInstanceUID = content.sop_instance_uid
    identity.write_to(heatmap)
    _set_series(heatmap, content, identity, moment)
    set_equipment(
        heatmap,
        cards=_distinct_cards(panels),
        model_name=content.card.model_name,
        software_version=content.software_version,
        manufacturer=content.manufacturer,
        station=content.station,
        institution=content.institution,
        moment=moment,
    )
    _set_image(heatmap, content, panels, moment, images=len(headers))
    _set_pixels(heatmap, panels)
    set_file_meta(heatmap, software_version=content.software_version)
    return heatmap


def _chosen(panels: list[HeatmapContent]) -> list[HeatmapContent]:
    """At most `MAXIMUM_PANELS`, in the order given."""
    by_probability = sorted(panels, key=lambda panel: -panel.outcome.probability)
    kept = {id(panel) for panel in by_probability[:MAXIMUM_PANELS]}
    return [panel for panel in panels if id(panel) in kept]


def _distinct_cards(panels: list[HeatmapContent]) -> list[ModelCard]:
    return list({panel.card.device_uid: panel.card for panel in panels}.values())


def _set_series(
    heatmap: Dataset, content: HeatmapContent, identity: StudyIdentity, moment: Moment
) -> None:
    """General Series (C.7.3.1) and SC Equipment (C.8.6.1)."""
    heatmap.Modality = "OT"
    heatmap.SeriesInstanceUID = content.series_instance_uid
    heatmap.SeriesNumber = content.series_number
    heatmap.SeriesDescription = SERIES_DESCRIPTION
    heatmap.SeriesDate = moment.date
    heatmap.SeriesTime = moment.time
    heatmap.Laterality = ""  # type 2C: a chest has no side, and another part says none here
    requests = identity.request_attributes()
    if requests:
        heatmap.RequestAttributesSequence = requests
    heatmap.ConversionType = "WSD"
    heatmap.SecondaryCaptureDeviceManufacturer = fitted(content.manufacturer, 64)
    heatmap.SecondaryCaptureDeviceManufacturerModelName = fitted(content.card.model_name, 64)
    heatmap.SecondaryCaptureDeviceSoftwareVersions = fitted(content.software_version, 64)
    heatmap.DateOfSecondaryCapture = moment.date
    heatmap.TimeOfSecondaryCapture = moment.time


def _set_image(
    heatmap: Dataset,
    content: HeatmapContent,
    panels: list[HeatmapContent],
    moment: Moment,
    *,
    images: int,
) -> None:
    """General Image (C.7.6.1) and SC Image (C.8.6.2)."""
    heatmap.InstanceCreationDate = moment.date
    heatmap.InstanceCreationTime = moment.time
    heatmap.ContentDate = moment.date
    heatmap.ContentTime = moment.time
    heatmap.InstanceNumber = content.instance_number
    heatmap.PatientOrientation = ""
    heatmap.ImageType = ["DERIVED", "SECONDARY"]
    heatmap.BurnedInAnnotation = "YES"
    heatmap.LossyImageCompression = max(_lossy(panel.header) for panel in panels)
    shown = "" if len(panels) == images else f"{len(panels)} of {images} images. "
    heatmap.DerivationDescription = fitted(
        shown + "; ".join(_derivation(panel) for panel in panels), 1024
    )
    heatmap.ImageComments = fitted(
        f"{tracking_identifier(1, content.card)}. {SERIES_DESCRIPTION}", 1024
    )
    heatmap.SourceImageSequence = [_source(panel) for panel in panels]


def _derivation(panel: HeatmapContent) -> str:
    card, outcome = panel.card, panel.outcome
    return (
        f"Class activation map of model {card.model_name} version {card.model_version} for "
        f"{card.finding.meaning} over the image, for reading only; "
        f"probability {outcome.probability:.6g}, threshold {outcome.threshold:.6g}"
    )


def _source(panel: HeatmapContent) -> Dataset:
    image = read_image(panel.header, study_instance_uid=panel.study_instance_uid)
    source = Dataset()
    source.ReferencedSOPClassUID = image.sop_class_uid
    source.ReferencedSOPInstanceUID = image.sop_instance_uid
    if image.first_frame:
        source.ReferencedFrameNumber = image.first_frame
    source.PurposeOfReferenceCodeSequence = [code_item(*_SOURCE_IMAGE)]
    return source


def _lossy(header: Dataset) -> str:
    """01 once an image was ever compressed with loss (PS3.3 C.7.6.1.1.5)."""
    return Header(header).valid("LossyImageCompression", lambda value: value == "01") or "00"


def _set_pixels(heatmap: Dataset, panels: list[HeatmapContent]) -> None:
    """Image Pixel (C.7.6.3)."""
    pixels = heatmap_pixels(*panels)
    heatmap.SamplesPerPixel = 3
    heatmap.PhotometricInterpretation = "RGB"
    heatmap.PlanarConfiguration = 0
    heatmap.Rows, heatmap.Columns = pixels.shape[:2]
    heatmap.BitsAllocated = 8
    heatmap.BitsStored = 8
    heatmap.HighBit = 7
    heatmap.PixelRepresentation = 0
    data = pixels.tobytes()
    heatmap.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
