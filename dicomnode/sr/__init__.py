"""Builds the documents of a study from findings: the report (SR) and the heatmap (SC).

Pure: no clock, no network, no files. The caller passes time and UIDs, so the same
content gives the same bytes. Tolerant of the images' headers, strict in what is written:
a value of the patient is carried verbatim or not at all, and a document that would be
invalid, or could belong to another patient, is not built (`errors.ReportUnbuildable`).

Sources: PS3.3 A.35.13 and C.17 (Comprehensive 3D SR), A.8 (Secondary Capture), PS3.16
TID 1500, 1501, 1002, 1004, 1204, 300, 1600, 4019; IHE AI Results.
"""

from __future__ import annotations

from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from dicomnode.sr.content import (
    NOTICE,
    SERIES_DESCRIPTION,
    HeatmapContent,
    ReportContent,
    tracking_uid,
)
from dicomnode.sr.drawing import heatmap_pixels, heatmap_png
from dicomnode.sr.equipment import to_bytes
from dicomnode.sr.heatmap import build_heatmap
from dicomnode.sr.report import build_report
from dicomnode.sr.summary import report_json, report_json_bytes, report_text
from dicomnode.sr.tables import release_tables

DOCUMENT_CLASSES = frozenset({str(Comprehensive3DSRStorage), str(SecondaryCaptureImageStorage)})
"""SOP Class UIDs of everything that is built here: report and heatmap."""

__all__ = [
    "DOCUMENT_CLASSES",
    "NOTICE",
    "SERIES_DESCRIPTION",
    "HeatmapContent",
    "ReportContent",
    "build_heatmap",
    "build_report",
    "heatmap_pixels",
    "heatmap_png",
    "release_tables",
    "report_json",
    "report_json_bytes",
    "report_text",
    "to_bytes",
    "tracking_uid",
]
