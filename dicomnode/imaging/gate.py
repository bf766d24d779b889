"""Is this a frontal chest radiograph that the model may judge?

The header's facts are asked in this order; the first that speaks against it is the reason.

====================  ===================================================================
Reason                Not evaluated when
====================  ===================================================================
`own_product`         Manufacturer, or a contributing one of a derived image, is this program
`localizer`           Image Type says LOCALIZER, SCOUT, SURVIEW or TOPOGRAM
`sop_class`           neither CR, DX - For Presentation nor Secondary Capture (raw detector
                      data, DX - For Processing, is not what a model of displayed images
                      has learned)
`modality`            not CR, DX, RG (or DR, which some devices write)
`species`             Patient Species is not human, a breed is given, or a description
                      speaks of an animal
`secondary_capture`   Secondary Capture with text burnt in, drawn, synthetic or scanned
                      from paper
`body_part`           Body Part Examined, Anatomic Region or the description of series or
                      image name another part and not the chest; or the study's description
                      does, and nothing names the chest
`view`                View Position, View Code Sequence or the description of series or
                      image name a lateral, oblique, decubitus or lordotic view; or Patient
                      Orientation runs front to back
`pixel_size`          shorter side below 200 pixels, longer above twice the shorter, or
                      several frames
====================  ===================================================================

Then the pixels: `contrast` when the image is blank after its look-up tables;
`secondary_capture` when it is coloured (an overlay, a screen shot, a photograph; grey that
is stored as RGB passes); and, only where no element names the chest (`names_chest`),
`appearance` when it does not look like one (see `appearance`). View Position absent, AP or
PA are equally good.

Placeholder body parts (OTHER, UNKNOWN ...) count as silence. A study's description may
name several parts and views, so it never outweighs what series and image say. Details
name elements and coded values of closed vocabularies, never free text of the header.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicomnode.findings import NotEvaluated, Reason
from dicomnode.imaging import words
from dicomnode.imaging.appearance import MINIMUM_LIKENESS, likeness
from dicomnode.imaging.elements import integer, items, text, texts, value

MINIMUM_SIDE = 200
"""Pixels of the shorter side: fewer is a thumbnail."""
MAXIMUM_ASPECT = 2.0
"""Longer by shorter side."""
MINIMUM_SPREAD = 16
"""Greys between the 1st and 99th percentile: fewer is a blank image."""
MAXIMUM_COLOURED = 0.002
"""Part of the pixels: more is an overlay or a photograph."""

_OWN_MANUFACTURER = "dicomnode"
_SECONDARY_CAPTURE = {
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
}
_ACCEPTED_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    *_SECONDARY_CAPTURE,
}
_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_MODALITIES = {"CR", "DX", "RG", "DR"}
_LOCALIZERS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"}
_MADE_UP = {"DRW", "SYN", "SD"}
_PLACEHOLDERS = {
    "", "ANY", "DEFAULT", "GENERAL", "MISC", "N/A", "NA", "NONE", "OTHER", "UNDEFINED",
    "UNKNOWN", "UNSPECIFIED",
}  # fmt: skip
_HUMAN_CODES = {"L-85B00", "337915000"}
_CHEST_CODES = {
    "T-D3000", "51185008", "T-D3050", "43799004", "302551006", "T-28000", "39607008", "816094009",
}  # fmt: skip
_LATERAL_CODES = {
    "R-10236", "R-10232", "R-10228", "399067008", "399173006", "399198007", "260427002",
    "399135007", "399184004", "399006002", "399182000", "399356000", "399236003", "399038007",
    "399312000", "399059000",
}  # fmt: skip
_LATERAL_POSITIONS = {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO"}
_IMAGE_DESCRIPTIONS = (
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "AcquisitionProtocolName",
)
_STUDY_DESCRIPTIONS = (
    "StudyDescription",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")


def judge_header(ds: Dataset) -> NotEvaluated | None:
    """The first fact of the header that forbids a judgement; None when there is none.

    Needs no pixel data.
    """
    for fact in (
        _own_product,
        _localizer,
        _sop_class,
        _modality,
        _species,
        _secondary_capture,
        _body_part,
        _view,
        _pixel_size,
    ):
        refusal = fact(ds)
        if refusal is not None:
            return refusal
    return None


def names_chest(ds: Dataset) -> bool:
    """Whether any element names the chest, so that the pixels need not prove it."""
    return (
        words.CHEST.named_in([_body_part_examined(ds)])
        or any(_is_chest(item) for item in items(ds, "AnatomicRegionSequence"))
        or words.CHEST.named_in(_described(ds, *_IMAGE_DESCRIPTIONS, *_STUDY_DESCRIPTIONS))
    )


def judge_pixels(
    grey: NDArray[np.uint8], *, chest_is_named: bool = False, coloured: float = 0.0
) -> NotEvaluated | None:
    """What the 8-bit grey image [rows, columns] itself says.

    `chest_is_named` is `names_chest` of its header; without it the image must look like a
    frontal chest radiograph. `coloured` is the part of its pixels that was not grey.
    """
    if coloured > MAXIMUM_COLOURED:
        return NotEvaluated(
            reason=Reason.SECONDARY_CAPTURE,
            detail=f"{coloured:.1%} of the pixels are coloured; expected a grey image.",
        )
    low, high = np.percentile(grey[:: max(1, grey.shape[0] // 512)], [1, 99])
    if high - low < MINIMUM_SPREAD:
        return NotEvaluated(
            reason=Reason.CONTRAST,
            detail=f"After its look-up tables the image spans {high - low:.0f} of 255 greys, "
            f"at least {MINIMUM_SPREAD} are expected.",
        )
    if not chest_is_named:
        found = likeness(grey)
        if found < MINIMUM_LIKENESS:
            return NotEvaluated(
                reason=Reason.APPEARANCE,
                detail="The header does not name the body part, and the image does not look "
                f"like a frontal chest radiograph (likeness {found:.2f}, at least "
                f"{MINIMUM_LIKENESS:.2f} is expected): another body part, view or polarity.",
            )
    return None


def _own_product(ds: Dataset) -> NotEvaluated | None:
    makers = [text(ds, "Manufacturer")]
    if "SECONDARY" in texts(ds, "ImageType"):
        makers += [
            text(item, "Manufacturer") for item in items(ds, "ContributingEquipmentSequence")
        ]
    if _OWN_MANUFACTURER in (maker.lower() for maker in makers):
        return _no(Reason.OWN_PRODUCT, "The image was made by this program from another image.")
    return None


def _sop_class(ds: Dataset) -> NotEvaluated | None:
    uid = UID(text(ds, "SOPClassUID"))
    if uid in _ACCEPTED_SOP_CLASSES:
        if text(ds, "PresentationIntentType").upper() != "FOR PROCESSING":
            return None
        uid = UID(_DX_FOR_PROCESSING)
    found = (
        "raw detector data (For Processing)"
        if uid == _DX_FOR_PROCESSING
        else (uid.name if uid.name != uid else "an unknown SOP class")
    )
    return _no(
        Reason.SOP_CLASS,
        f"SOP class: {found}; expected Computed Radiography, Digital X-Ray - For Presentation "
        "or Secondary Capture.",
    )


def _modality(ds: Dataset) -> NotEvaluated | None:
    modality = text(ds, "Modality").upper()
    if modality in _MODALITIES:
        return None
    return _no(Reason.MODALITY, f"Modality: {_coded(modality)}; expected CR, DX or RG.")


def _species(ds: Dataset) -> NotEvaluated | None:
    species = text(ds, "PatientSpeciesDescription")
    codes = items(ds, "PatientSpeciesCodeSequence")
    descriptions = _described(ds, *_IMAGE_DESCRIPTIONS, *_STUDY_DESCRIPTIONS)
    meanings = [text(item, "CodeMeaning") for item in codes]
    human_code = any(text(item, "CodeValue") in _HUMAN_CODES for item in codes)
    if (species or codes) and not (human_code or words.HUMAN.named_in([species, *meanings])):
        return _no(Reason.SPECIES, "Patient Species is not human; expected a human patient.")
    if text(ds, "PatientBreedDescription") or items(ds, "PatientBreedCodeSequence"):
        return _no(Reason.SPECIES, "A breed is given; expected a human patient.")
    if words.ANIMAL.named_in(descriptions):
        return _no(Reason.SPECIES, "A description speaks of an animal; expected a human patient.")
    return None


def _localizer(ds: Dataset) -> NotEvaluated | None:
    kinds = {kind.upper() for kind in texts(ds, "ImageType")} & _LOCALIZERS
    if kinds:
        return _no(
            Reason.LOCALIZER, f"Image Type says {min(kinds)}; expected a radiograph of its own."
        )
    return None


def _secondary_capture(ds: Dataset) -> NotEvaluated | None:
    if text(ds, "SOPClassUID") not in _SECONDARY_CAPTURE:
        return None
    conversion = text(ds, "ConversionType").upper()
    if conversion in _MADE_UP:
        return _no(
            Reason.SECONDARY_CAPTURE,
            f"Secondary Capture with Conversion Type {conversion}; expected a digital radiograph.",
        )
    if text(ds, "BurnedInAnnotation").upper() == "YES":
        return _no(
            Reason.SECONDARY_CAPTURE,
            "Secondary Capture with Burned In Annotation YES; expected an image without text.",
        )
    return None


def _body_part(ds: Dataset) -> NotEvaluated | None:
    part = _body_part_examined(ds)
    if part and not words.CHEST.named_in([part]):
        named = f": {_coded(part)}" if words.OTHER_PART.named_in([part]) else " is not the chest"
        return _no(Reason.BODY_PART, f"Body Part Examined{named}; expected the chest.")
    if part and words.OTHER_PART.named_in([part]):
        return _no(Reason.BODY_PART, "Body Part Examined names more than the chest.")
    regions = items(ds, "AnatomicRegionSequence")
    if regions and not any(_is_chest(region) for region in regions):
        return _no(Reason.BODY_PART, "Anatomic Region is not the chest; expected the chest.")
    described = _described(ds, *_IMAGE_DESCRIPTIONS)
    if words.OTHER_PART.named_in(described) and not _names_chest_proper(described):
        return _no(
            Reason.BODY_PART,
            "The description of series or image names another body part; expected the chest.",
        )
    study = _described(ds, *_STUDY_DESCRIPTIONS)
    if not (part or regions or words.CHEST.named_in(described)) and (
        words.OTHER_PART.named_in(study) and not _names_chest_proper(study)
    ):
        return _no(
            Reason.BODY_PART,
            "The description of the study names another body part; expected the chest.",
        )
    return None


def _view(ds: Dataset) -> NotEvaluated | None:
    position = text(ds, "ViewPosition")
    if position.upper() in _LATERAL_POSITIONS or _turned([position]):
        return _no(Reason.VIEW, f"View Position: {_coded(position)}; expected AP or PA.")
    views = items(ds, "ViewCodeSequence")
    meanings = [text(view, "CodeMeaning") for view in views]
    if _turned(meanings) or any(text(view, "CodeValue") in _LATERAL_CODES for view in views):
        return _no(Reason.VIEW, "View Code is lateral, oblique or decubitus; expected AP or PA.")
    described = _described(ds, *_IMAGE_DESCRIPTIONS)
    stated = words.FRONTAL.named_in([position, *meanings])
    if any(map(words.names_turned_view, described)) or (_turned(described) and not stated):
        return _no(
            Reason.VIEW,
            "The description of series or image names a lateral, oblique, decubitus or lordotic "
            "view; expected AP or PA.",
        )
    if any(direction[:1] in ("A", "P") for direction in texts(ds, "PatientOrientation")[:2]):
        return _no(
            Reason.VIEW,
            "Patient Orientation runs from front to back, as in a lateral view; expected AP or PA.",
        )
    return None


def _turned(descriptions: list[str]) -> bool:
    """A view other than frontal; a text that names both (`PA and lateral`) decides nothing."""
    return any(map(words.names_turned_view, descriptions)) or any(
        words.LATERAL.named_in([one]) and not words.FRONTAL.named_in([one]) for one in descriptions
    )


def _pixel_size(ds: Dataset) -> NotEvaluated | None:
    frames = integer(ds, "NumberOfFrames") or 1
    if frames > 1:
        return _no(Reason.PIXEL_SIZE, f"The image has {frames} frames; expected one.")
    rows, columns = integer(ds, "Rows"), integer(ds, "Columns")
    if rows is None or columns is None:
        return None
    short, long = sorted((rows, columns))
    if short < MINIMUM_SIDE:
        return _no(
            Reason.PIXEL_SIZE,
            f"{rows} Rows x {columns} Columns; expected at least {MINIMUM_SIDE} of each.",
        )
    if long > MAXIMUM_ASPECT * short:
        return _no(
            Reason.PIXEL_SIZE,
            f"{rows} Rows x {columns} Columns; expected a longer side of at most "
            f"{MAXIMUM_ASPECT:g} times the shorter.",
        )
    return None


def _body_part_examined(ds: Dataset) -> str:
    part = text(ds, "BodyPartExamined")
    return "" if part.upper() in _PLACEHOLDERS else part


def _is_chest(region: Dataset) -> bool:
    return text(region, "CodeValue") in _CHEST_CODES or words.CHEST.named_in(
        [text(region, "CodeMeaning")]
    )


def _names_chest_proper(descriptions: list[str]) -> bool:
    """Chest in a text that is not about the thoracic spine or the ribs."""
    return any(
        words.CHEST.named_in([one]) and not words.OTHER_PART.named_in([one]) for one in descriptions
    )


def _described(ds: Dataset, *keywords: str) -> list[str]:
    return [one for keyword in keywords for one in texts(ds, keyword) if one]


def _coded(word: str) -> str:
    """A code string for a message; anything that is none is not repeated."""
    if not word:
        return "absent"
    return word.strip() if _CODE_STRING.fullmatch(word.upper()) else "not a code string"


def _no(reason: Reason, detail: str) -> NotEvaluated:
    return NotEvaluated(reason=reason, detail=detail)


def has_pixels(ds: Dataset) -> bool:
    """Whether there is pixel data at all."""
    return value(ds, "PixelData") is not None
