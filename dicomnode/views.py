"""What the API and the command line show of the store: plain dictionaries, no patient data."""

from __future__ import annotations

import json
from typing import Any

from dicomnode.findings import Evaluated, Outcome
from dicomnode.pipeline import report_json_path
from dicomnode.ports import (
    Delivery,
    Files,
    Index,
    StoredInstance,
    StudySummary,
    WrittenDocument,
)


class Views:
    """Reads studies and reports from the store."""

    def __init__(self, *, files: Files, index: Index) -> None:
        self._files = files
        self._index = index

    def studies(self, limit: int, offset: int, state: str | None) -> list[dict[str, Any]]:
        """Newest first."""
        found = self._index.studies(limit=limit, offset=offset, state=state)
        return [_summary(study) for study in found]

    def study(self, study_instance_uid: str) -> dict[str, Any] | None:
        """One study with its images, documents and deliveries; None when unknown."""
        summary = self._index.study(study_instance_uid)
        if summary is None:
            return None
        outcomes = self._index.outcomes(study_instance_uid)
        documents = self._index.documents(study_instance_uid)
        deliveries = self._index.deliveries(study_instance_uid)
        return {
            **_summary(summary),
            "images": [_image(instance, outcome) for instance, outcome in outcomes],
            "documents": [_document(document, deliveries) for document in documents],
        }

    def report(self, study_instance_uid: str) -> dict[str, Any] | None:
        """The newest report in its JSON form; None when there is none yet."""
        document = self.report_document(study_instance_uid)
        if document is None:
            return None
        path = self._files.absolute(report_json_path(document.path))
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def report_document(self, study_instance_uid: str) -> WrittenDocument | None:
        """The newest report of a study."""
        documents = self._index.documents(study_instance_uid)
        reports = [document for document in documents if document.kind == "sr"]
        return max(reports, key=lambda document: document.revision, default=None)


def _summary(study: StudySummary) -> dict[str, Any]:
    return {
        "study_instance_uid": study.study_instance_uid,
        "state": study.state,
        "instances": study.instances,
        "evaluated": study.evaluated,
        "not_evaluated": study.not_evaluated,
        "failed_jobs": study.failed_jobs,
        "revision": study.revision,
        "first_received_at": study.first_received_at.isoformat(),
        "last_received_at": study.last_received_at.isoformat(),
    }


def _image(instance: StoredInstance, outcome: Outcome | None) -> dict[str, Any]:
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "series_instance_uid": instance.series_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "calling_ae_title": instance.calling_ae_title,
        "received_at": instance.received_at.isoformat(),
        "outcome": _outcome(outcome),
    }


def _outcome(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    if isinstance(outcome, Evaluated):
        return {
            "evaluated": True,
            "present": outcome.present,
            "probability": outcome.probability,
            "threshold": outcome.threshold,
            "model_name": outcome.model_name,
            "model_version": outcome.model_version,
        }
    return {"evaluated": False, "reason": outcome.reason.value, "detail": outcome.detail}


def _document(document: WrittenDocument, deliveries: list[Delivery]) -> dict[str, Any]:
    return {
        "kind": document.kind,
        "sop_instance_uid": document.sop_instance_uid,
        "series_instance_uid": document.series_instance_uid,
        "revision": document.revision,
        "created_at": document.created_at.isoformat(),
        "deliveries": [
            {
                "destination": delivery.destination,
                "state": delivery.state.value,
                "status": None if delivery.status is None else f"0x{delivery.status:04X}",
                "attempts": delivery.attempts,
                "error": delivery.error,
            }
            for delivery in deliveries
            if delivery.document_id == document.id
        ],
    }
