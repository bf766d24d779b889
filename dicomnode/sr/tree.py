"""The content tree: TID 1500 Measurement Report (PS3.16).

One measurement group (TID 1501) per object of the study. Of an evaluated image it holds
the finding, present or absent, and the probability *inferred from* the image; of one
that was not evaluated it holds the finding "Not Evaluated" and a comment that says why,
and neither the disease's code nor a number, so that no reader can take it for a result.
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicomnode.findings import Evaluated, NotEvaluated, Outcome
from dicomnode.modelcard import ModelCard
from dicomnode.sr.content import SERIES_DESCRIPTION, ReportContent, tracking_uid
from dicomnode.sr.identity import ImageReference
from dicomnode.sr.values import fitted

PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")
"""CID 240 Present-Absent."""
NOT_EVALUATED = Code("373121007", "SCT", "Not Evaluated")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
"""CID 7162 Surface Processing Algorithm Family, used by TID 4019."""
_SOURCE = Code("260753009", "SCT", "Source")
_IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
"""Of CID 100; its radiographic code is younger than the validators in use."""
_PIXELS = Code("{pixels}", "UCUM", "Pixels")
_ENGLISH = Code("en-US", "RFC5646", "English (United States)")

_HAS_ACQ_CONTEXT = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_ACQUISITION_MODALITIES = {
    code.value: code
    for code in (getattr(codes.cid29, name) for name in codes.cid29.dir())
    if code.scheme_designator == "DCM"
}


def measurement_report(
    content: ReportContent, images: Sequence[ImageReference]
) -> sr.MeasurementReport:
    """The whole tree; `images` are in the order of the outcomes."""
    newest_version = max((card.model_version for card in content.answering_cards()), default=0)
    report = sr.MeasurementReport(
        observation_context=_observation_context(content),
        procedure_reported=_IMAGING_PROCEDURE,
        imaging_measurements=[
            _measurement_group(number, content, image, outcome, newest_version=newest_version)
            for number, (image, outcome) in enumerate(
                zip(images, content.outcomes, strict=True), start=1
            )
        ],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(_ENGLISH),
    )
    root = report[0].ContentSequence
    library = _image_library(
        [
            image
            for image, outcome in zip(images, content.outcomes, strict=True)
            if _can_be_shown(image, outcome)
        ]
    )
    if library is not None:
        root.insert(len(root) - 1, library)  # row 5 of TID 1500, before the measurements
    return report


def _can_be_shown(image: ImageReference, outcome: Outcome) -> bool:
    """Whether an IMAGE item may point at it: a report or a plan in the study is no image."""
    return image.is_image or isinstance(outcome, Evaluated)


# ---------------------------------------------------------------- who speaks


def _observation_context(content: ReportContent) -> sr.ObservationContext:
    """TID 1001: the newest model version that answered; the node itself, when none did.

    TID 1500 has room for one device. What another version said carries its own observer
    in its group, which there takes the place of this one (PS3.3 C.17.5).
    """
    cards = content.answering_cards()
    if cards:
        return sr.ObservationContext(observer_device_context=_device(cards[0]))
    return sr.ObservationContext(
        observer_device_context=_observer(
            uid=content.node_device_uid,
            manufacturer=content.manufacturer,
            model_name=content.manufacturer,
            version=f"version {content.software_version}",
        )
    )


def _device(card: ModelCard) -> sr.ObserverContext:
    return _observer(
        uid=card.device_uid,
        manufacturer=card.manufacturer,
        model_name=card.model_name,
        version=f"version {card.model_version}",
    )


def _observer(*, uid: str, manufacturer: str, model_name: str, version: str) -> sr.ObserverContext:
    """TID 1002 and 1004."""
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid,
            name=fitted(f"{model_name} {version}", 64),
            manufacturer_name=fitted(manufacturer, 64),
            model_name=fitted(model_name, 64),
            serial_number=fitted(version, 64),
        ),
    )


# ---------------------------------------------------------------- what it says


def _measurement_group(
    number: int,
    content: ReportContent,
    image: ImageReference,
    outcome: Outcome,
    *,
    newest_version: int,
) -> sr.MeasurementsAndQualitativeEvaluations:
    if isinstance(outcome, NotEvaluated):
        return _refusal(number, image, outcome)
    card = content.card(outcome)
    group = _result(number, image, outcome, card)
    if card.model_version != newest_version:
        group[0].ContentSequence[2:2] = list(_device(card))  # after the tracking identifiers
    return group


def _result(
    number: int, image: ImageReference, outcome: Evaluated, card: ModelCard
) -> sr.MeasurementsAndQualitativeEvaluations:
    finding = finding_code(card)
    frames = image.first_frame
    probability = sr.Measurement(
        name=codes.DCM.Probability,
        value=rounded(outcome.probability),
        unit=codes.UCUM.NoUnits,
        referenced_images=[
            sr.SourceImageForMeasurement(image.sop_class_uid, image.sop_instance_uid, frames)
        ],
    )
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(number, image, card),
        finding_type=finding,
        algorithm_id=_algorithm(outcome, card),
        measurements=[probability],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(name=finding, value=PRESENT if outcome.present else ABSENT)
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid, frames)
        ],
    )


def _refusal(
    number: int, image: ImageReference, outcome: NotEvaluated
) -> sr.MeasurementsAndQualitativeEvaluations:
    sources = None
    if image.is_image:
        sources = [sr.SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid)]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(number, image, None),
        finding_type=NOT_EVALUATED,
        source_images=sources,
    )
    group[0].ContentSequence.append(_comment(refusal_text(outcome)))
    return group


def _algorithm(outcome: Evaluated, card: ModelCard) -> sr.AlgorithmIdentification:
    """TID 4019."""
    return sr.AlgorithmIdentification(
        name=fitted(card.model_name, 64),
        version=str(card.model_version),
        parameters=[
            f"operating threshold = {rounded(outcome.threshold)}",
            fitted(f"threshold chosen by {card.threshold.rule}", 1024),
            fitted(f"preprocess profile = {card.preprocess_profile}", 1024),
            SERIES_DESCRIPTION,
        ],
        family=ARTIFICIAL_INTELLIGENCE,
        manufacturer=fitted(card.manufacturer, 64),
    )


def _tracking(number: int, image: ImageReference, card: ModelCard | None) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(
        uid=tracking_uid(image.sop_instance_uid, card),
        identifier=tracking_identifier(number, card),
    )


def tracking_identifier(number: int, card: ModelCard | None) -> str:
    """What a reader sees in a list of measurements."""
    if card is None:
        return f"Image {number}: not evaluated"
    return fitted(f"Image {number}: {card.finding.meaning}", 128)


def refusal_text(outcome: NotEvaluated) -> str:
    return fitted(f"Not evaluated ({outcome.reason.value}): {outcome.detail}", 1024)


def finding_code(card: ModelCard) -> Code:
    return Code(
        fitted(card.finding.value, 16),
        fitted(card.finding.scheme_designator, 16),
        fitted(card.finding.meaning, 64),
    )


def rounded(value: float) -> float:
    """Six decimals: more than the model knows, and exact in 16 characters (VR DS)."""
    return round(float(value), 6)


def _comment(text: str) -> sr.TextContentItem:
    return sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=_CONTAINS)


# ---------------------------------------------------------------- what it speaks of


def _image_library(images: Sequence[ImageReference]) -> sr.ContainerContentItem | None:
    """TID 1600, with those descriptors that the headers hold."""
    if not images:
        return None
    library = sr.ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    group = sr.ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = sr.ContentSequence([_library_entry(image) for image in images])
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _library_entry(image: ImageReference) -> Dataset:
    """TID 1601, 1602 and 1603."""
    entry = sr.ImageContentItem(
        name=_SOURCE,
        referenced_sop_class_uid=image.sop_class_uid,
        referenced_sop_instance_uid=image.sop_instance_uid,
        relationship_type=_CONTAINS,
    )
    descriptors: list[Dataset] = []
    modality = _ACQUISITION_MODALITIES.get(image.modality)
    if modality is not None:
        descriptors.append(
            sr.CodeContentItem(
                name=codes.DCM.Modality, value=modality, relationship_type=_HAS_ACQ_CONTEXT
            )
        )
    if image.rows and image.columns:
        descriptors += [
            _number(codes.DCM.PixelDataRows, image.rows, _PIXELS),
            _number(codes.DCM.PixelDataColumns, image.columns, _PIXELS),
        ]
    if image.orientation:
        descriptors += [
            _text(codes.DCM.PatientOrientationRow, image.orientation[0]),
            _text(codes.DCM.PatientOrientationColumn, image.orientation[1]),
        ]
    if image.pixel_spacing:
        rows, columns = image.pixel_spacing
        descriptors += [
            _number(codes.DCM.HorizontalPixelSpacing, rounded(columns), codes.UCUM.Millimeter),
            _number(codes.DCM.VerticalPixelSpacing, rounded(rows), codes.UCUM.Millimeter),
        ]
    if descriptors:
        entry.ContentSequence = sr.ContentSequence(descriptors)
    return entry


def _number(name: Code, value: float, unit: Code) -> sr.NumContentItem:
    return sr.NumContentItem(name=name, value=value, unit=unit, relationship_type=_HAS_ACQ_CONTEXT)


def _text(name: Code, value: str) -> sr.TextContentItem:
    return sr.TextContentItem(name=name, value=value, relationship_type=_HAS_ACQ_CONTEXT)
