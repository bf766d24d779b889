"""Whose study a report belongs to: read from the images, verbatim or not at all.

A truncated or altered Patient ID files a report under another patient, and so does the
identity of one image on the report of another. Both end in `ReportUnbuildable`; what
merely describes is left empty when it cannot be carried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicomnode.errors import ReportUnbuildable
from dicomnode.sr import values
from dicomnode.sr.headers import Header

Check = Callable[[str], bool]


def _long_string(value: str) -> bool:
    return values.is_text(value, 64)


def _short_string(value: str) -> bool:
    return values.is_text(value, 16)


def _sex(value: str) -> bool:
    return value in ("M", "F", "O")


_TYPE_2: tuple[tuple[str, Check], ...] = (
    ("PatientName", values.is_person_name),
    ("PatientID", _long_string),
    ("PatientBirthDate", values.is_date),
    ("PatientSex", _sex),
    ("AccessionNumber", _short_string),
    ("StudyID", _short_string),
    ("StudyDate", values.is_date),
    ("StudyTime", values.is_time),
    ("ReferringPhysicianName", values.is_person_name),
)
"""Always in the document, empty when there is no valid value (PS3.3 C.7.1.1, C.7.2.1)."""

_TYPE_3: tuple[tuple[str, Check], ...] = (
    ("IssuerOfPatientID", _long_string),
    ("PatientBirthTime", values.is_time),
    ("PatientAge", values.is_age),
    ("StudyDescription", _long_string),
)
"""In the document only with a valid value."""

_REQUEST_TYPE_2: tuple[tuple[str, Check], ...] = (
    ("AccessionNumber", _short_string),
    ("PlacerOrderNumberImagingServiceRequest", _long_string),
    ("FillerOrderNumberImagingServiceRequest", _long_string),
    ("RequestedProcedureID", _short_string),
    ("RequestedProcedureDescription", _long_string),
)
"""Of an item of Referenced Request Sequence (PS3.3 C.17.2)."""


_MOST_ITEMS = 32
"""Of other patient IDs and of requests: a header with more is not telling of a study."""


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """One image as a document points at it. Every UID is valid (PS3.5 9.1)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    frames: int
    modality: str
    rows: int | None
    columns: int | None
    pixel_spacing: tuple[float, float] | None
    """Imager Pixel Spacing in mm: between rows, between columns."""
    orientation: tuple[str, str] | None

    @property
    def is_image(self) -> bool:
        """Whether the SOP Class is one of the standard's image storage classes."""
        return "Image Storage" in self._sop_class_name

    @property
    def first_frame(self) -> list[int] | None:
        """The frame that the model saw, where the SOP Class lets a reference name one."""
        name = self._sop_class_name
        many = "Multi-frame" in name or "Enhanced" in name or name.startswith("X-Ray")
        return [1] if self.frames > 1 and many else None

    @property
    def _sop_class_name(self) -> str:
        return UID(self.sop_class_uid).name


@dataclass(frozen=True, kw_only=True)
class StudyIdentity:
    """What every document about a study says of patient, study and request."""

    study_instance_uid: str
    elements: tuple[tuple[str, str], ...]
    """Keyword and value, verbatim; type 2 elements may be ""."""
    other_patient_ids: tuple[tuple[tuple[str, str], ...], ...]
    """Per item of Other Patient IDs Sequence, keyword and value."""
    requests: tuple[tuple[tuple[str, str], ...], ...]
    """Per requested procedure, keyword and value."""
    timezone_offset: str
    """Timezone Offset From UTC of the images, or "" when they do not say."""

    def write_to(self, dataset: Dataset) -> None:
        """Set patient and study on a document, encoded in UTF-8."""
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.StudyInstanceUID = self.study_instance_uid
        for keyword, value in self.elements:
            setattr(dataset, keyword, value)
        if self.other_patient_ids:
            dataset.OtherPatientIDsSequence = [_item(item) for item in self.other_patient_ids]
        if self.timezone_offset:
            dataset.TimezoneOffsetFromUTC = self.timezone_offset

    def referenced_requests(self) -> list[Dataset]:
        """Items of Referenced Request Sequence (PS3.3 C.17.2)."""
        return [self._referenced_request(request) for request in self.requests]

    def _referenced_request(self, request: tuple[tuple[str, str], ...]) -> Dataset:
        item = _item(request)
        item.StudyInstanceUID = self.study_instance_uid
        item.ReferencedStudySequence = []
        item.RequestedProcedureCodeSequence = []
        return item

    def request_attributes(self) -> list[Dataset]:
        """Items of Request Attributes Sequence (PS3.3 10.6), of those that have an ID."""
        kept = ("AccessionNumber", "RequestedProcedureID", "RequestedProcedureDescription")
        items = []
        for request in self.requests:
            elements = tuple((key, value) for key, value in request if key in kept and value)
            if any(key == "RequestedProcedureID" for key, _ in elements):
                items.append(_item(elements))
        return items


def read_image(dataset: Dataset, *, study_instance_uid: str | None = None) -> ImageReference:
    """The reference to one image; `study_instance_uid` stands in when the header has none.

    Raises `ReportUnbuildable` naming the UID that is missing or is not a UID: without
    it nothing can point at the image.
    """
    header = Header(dataset)
    study = header.read("StudyInstanceUID", values.is_uid)
    if study == "" and study_instance_uid is not None:
        study = study_instance_uid
    return ImageReference(
        study_instance_uid=_required("StudyInstanceUID", study),
        series_instance_uid=_required(
            "SeriesInstanceUID", header.read("SeriesInstanceUID", values.is_uid)
        ),
        sop_instance_uid=_required("SOPInstanceUID", header.read("SOPInstanceUID", values.is_uid)),
        sop_class_uid=_required("SOPClassUID", header.read("SOPClassUID", values.is_uid)),
        frames=_count(header, "NumberOfFrames") or 1,
        modality=header.valid("Modality", values.is_code_string),
        rows=_count(header, "Rows"),
        columns=_count(header, "Columns"),
        pixel_spacing=_pair(header.numbers("ImagerPixelSpacing")),
        orientation=_orientation(dataset),
    )


def read_identity(
    datasets: Sequence[Dataset], *, study_instance_uid: str | None = None
) -> StudyIdentity:
    """The identity that all images of one study agree on.

    Raises `ReportUnbuildable` when Patient ID cannot be carried verbatim, or when two
    images disagree about study, Patient ID, name, birth date or issuer. The message names
    the attribute, never a value.
    """
    if not datasets:
        raise ReportUnbuildable("a report needs at least one image of its study, got none")
    headers = [Header(dataset) for dataset in datasets]
    studies = [
        read_image(dataset, study_instance_uid=study_instance_uid).study_instance_uid
        for dataset in datasets
    ]
    if len(set(studies)) > 1:
        raise _disagreement("StudyInstanceUID")
    if study_instance_uid is not None and studies[0] != study_instance_uid:
        raise _disagreement("StudyInstanceUID")
    _require_one_patient(headers)
    elements = [(keyword, _first(headers, keyword, check)) for keyword, check in _TYPE_2]
    optional = [(keyword, _first(headers, keyword, check)) for keyword, check in _TYPE_3]
    return StudyIdentity(
        study_instance_uid=studies[0],
        elements=(*elements, *((keyword, value) for keyword, value in optional if value)),
        other_patient_ids=_unique(item for header in headers for item in _other_ids(header)),
        requests=_unique(item for header in headers for item in _requests(header)),
        timezone_offset=_first(headers, "TimezoneOffsetFromUTC", values.is_utc_offset),
    )


def _require_one_patient(headers: Sequence[Header]) -> None:
    identifiers = set()
    for header in headers:
        identifier = header.read("PatientID", _long_string)
        if identifier is None:
            raise ReportUnbuildable(
                f"{_named('PatientID')} of an image cannot be carried verbatim: expected one "
                "value of at most 64 printable characters in the declared character set; "
                "correct the header at the source and send the study again"
            )
        identifiers.add(identifier)
    if len(identifiers) > 1:
        raise _disagreement("PatientID")
    for keyword, check in (
        ("PatientBirthDate", values.is_date),
        ("IssuerOfPatientID", _long_string),
    ):
        if len({value for value in (h.valid(keyword, check) for h in headers) if value}) > 1:
            raise _disagreement(keyword)
    names = [header.valid("PatientName", values.is_person_name) for header in headers]
    groups = [values.canonical_name(name) for name in dict.fromkeys(names)]
    for position in range(3):
        written = {name[position] for name in groups if len(name) > position and name[position]}
        if len(written) > 1:
            raise _disagreement("PatientName")


def _first(headers: Sequence[Header], keyword: str, check: Check) -> str:
    return next((value for h in headers if (value := h.valid(keyword, check))), "")


def _other_ids(header: Header) -> Iterator[tuple[tuple[str, str], ...]]:
    """Items of Other Patient IDs Sequence that have both of their type 1 elements."""
    for item in header.items("OtherPatientIDsSequence"):
        identifier = item.long_string("PatientID")
        kind = item.valid("TypeOfPatientID", lambda v: v in ("TEXT", "RFID", "BARCODE"))
        if not identifier or not kind:
            continue
        issuer = item.long_string("IssuerOfPatientID")
        elements = [("PatientID", identifier), ("TypeOfPatientID", kind)]
        yield (*elements, ("IssuerOfPatientID", issuer)) if issuer else tuple(elements)


def _requests(header: Header) -> Iterator[tuple[tuple[str, str], ...]]:
    """What an image says about the order it fulfils, in either of its two places."""
    for keyword in ("ReferencedRequestSequence", "RequestAttributesSequence"):
        for item in header.items(keyword):
            request = tuple((key, item.valid(key, check)) for key, check in _REQUEST_TYPE_2)
            if any(value for _, value in request):
                yield request


def _unique(
    items: Iterator[tuple[tuple[str, str], ...]],
) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(islice(dict.fromkeys(islice(items, 1000)), _MOST_ITEMS))


def _orientation(dataset: Dataset) -> tuple[str, str] | None:
    """Patient Orientation: the directions of the rows and of the columns."""
    value = Header(dataset).read("PatientOrientation", lambda text: text.count("\\") == 1)
    if not value:
        return None
    row, column = (part.strip(" ") for part in value.split("\\"))
    if not all(part and values.is_code_string(part) for part in (row, column)):
        return None
    return row, column


def _count(header: Header, keyword: str) -> int | None:
    numbers = header.numbers(keyword)
    if len(numbers) == 1 and 1 <= numbers[0] < 2**31:
        return int(numbers[0])
    return None


def _pair(numbers: tuple[float, ...]) -> tuple[float, float] | None:
    if len(numbers) == 2 and all(0 < number < 1000 for number in numbers):
        return numbers[0], numbers[1]
    return None


def _required(keyword: str, value: str | None) -> str:
    if value:
        return value
    found = "nothing" if value == "" else "no UID"
    raise ReportUnbuildable(
        f"{_named(keyword)} of an image holds {found}; expected a UID (PS3.5 9.1), "
        "without it no report can point at the image"
    )


def _disagreement(keyword: str) -> ReportUnbuildable:
    return ReportUnbuildable(
        f"images under one Study Instance UID disagree about {_named(keyword)}; "
        "expected one patient per study, correct the headers and send the study again"
    )


def _named(keyword: str) -> str:
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x}) {keyword}"


def _item(elements: tuple[tuple[str, str], ...]) -> Dataset:
    item = Dataset()
    for keyword, value in elements:
        setattr(item, keyword, value)
    return item
