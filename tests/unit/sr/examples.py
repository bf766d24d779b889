"""Headers and contents to build documents from. Nobody's data: every value is invented."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicomnode.findings import Evaluated, NotEvaluated, Outcome, Reason
from dicomnode.modelcard import Code, ModelCard, Threshold
from dicomnode.sr import HeatmapContent, ReportContent

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
REFUSAL = NotEvaluated(reason=Reason.VIEW, detail="the view is LL, expected AP or PA")


def header(number: int = 1, **elements: Any) -> Dataset:
    """A CR chest radiograph's header; keyword arguments replace elements, None removes one."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    ds.SOPInstanceUID = f"1.2.826.0.1.3680043.10.99.3.{number}"
    ds.SeriesInstanceUID = "1.2.826.0.1.3680043.10.99.2"
    ds.StudyInstanceUID = "1.2.826.0.1.3680043.10.99.1"
    ds.PatientID = "PID-0042"
    ds.PatientName = "Phantom^Ada"
    ds.PatientBirthDate = "19700102"
    ds.PatientSex = "F"
    ds.AccessionNumber = "ACC-7"
    ds.StudyID = "S1"
    ds.StudyDate = "20260301"
    ds.StudyTime = "081500"
    ds.ReferringPhysicianName = "House^Gregory"
    ds.Modality = "CR"
    ds.Rows = 2048
    ds.Columns = 1760
    ds.ImagerPixelSpacing = [0.2, 0.2]
    ds.PatientOrientation = ["L", "F"]
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def put_bytes(ds: Dataset, keyword: str, value: bytes, vr: str | None = None) -> None:
    """Set an element as it would come from a file: bytes that nobody has looked at."""
    tag = BaseTag(tag_for_keyword(keyword) or 0)
    ds[tag] = RawDataElement(
        tag, vr or dictionary_VR(tag), len(value), value, 0, is_implicit_VR=False,
        is_little_endian=True,
    )  # fmt: skip


def card(version: int = 3, **changes: Any) -> ModelCard:
    facts: dict[str, Any] = {
        "model_name": "covid19",
        "model_version": version,
        "network": "vgg16",
        "classes": ("negative", "positive"),
        "positive_class": "positive",
        "finding": Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
        "preprocess_profile": "unit-rgb-224/1",
        "threshold": Threshold(value=0.5, rule="Youden index on the validation part"),
        "created_at": f"2026-01-{version:02d}T00:00:00Z",
    }
    return ModelCard(**(facts | changes))


def evaluated(probability: float = 0.873, version: int = 3, threshold: float = 0.5) -> Evaluated:
    return Evaluated(
        model_name="covid19",
        model_version=version,
        backend="127.0.0.1:8500",
        probability=probability,
        threshold=threshold,
        present=probability >= threshold,
        cam=activations(),
    )


def activations() -> np.ndarray[Any, Any]:
    rows, columns = np.mgrid[0:7, 0:7]
    return np.exp(-((rows - 4) ** 2 + (columns - 2) ** 2) / 4).astype(np.float32)


def content(
    headers: list[Dataset] | None = None,
    outcomes: list[Outcome] | None = None,
    **changes: Any,
) -> ReportContent:
    headers = [header()] if headers is None else headers
    facts: dict[str, Any] = {
        "headers": tuple(headers),
        "outcomes": tuple([evaluated() for _ in headers] if outcomes is None else outcomes),
        "cards": {version: card(version) for version in (2, 3)},
        "model_name": "covid19",
        "sop_instance_uid": "2.25.1001",
        "series_instance_uid": "2.25.1002",
        "content_time": NOW,
        "software_version": "0.1.0",
    }
    return ReportContent(**(facts | changes))


def heatmap_content(ds: Dataset | None = None, **changes: Any) -> HeatmapContent:
    grey = np.linspace(0, 255, 90 * 70).astype(np.uint8).reshape(90, 70)
    facts: dict[str, Any] = {
        "header": header() if ds is None else ds,
        "outcome": evaluated(),
        "card": card(),
        "display": grey,
        "sop_instance_uid": "2.25.2001",
        "series_instance_uid": "2.25.2002",
        "content_time": NOW,
        "software_version": "0.1.0",
    }
    return HeatmapContent(**(facts | changes))
