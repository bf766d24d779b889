"""Between rows and the records of `ports`, `findings` and `jobs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import RowMapping

from dicomnode.findings import Evaluated, NotEvaluated, Outcome, Reason
from dicomnode.jobs import Job, JobKind, JobState
from dicomnode.ports import (
    Delivery,
    DocumentPlan,
    ReceivedInstance,
    StoredInstance,
    WrittenDocument,
)

_TEXT_LIMIT = 2000


def clean(value: str, limit: int = _TEXT_LIMIT) -> str:
    """Text that both databases take: no NUL (PostgreSQL), no lone surrogates (UTF-8)."""
    text = value.replace("\0", "")[:limit]
    return text.encode("utf-8", "replace").decode("utf-8")


# ---------------------------------------------------------------- instances


def instance_values(received: ReceivedInstance, path: str) -> dict[str, Any]:
    """Columns of `instances`."""
    return {
        "study_instance_uid": received.study_instance_uid,
        "series_instance_uid": received.series_instance_uid,
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "calling_ae_title": clean(received.calling_ae_title, 64),
        "received_at": received.received_at,
        "digest": received.digest,
        "size": received.size,
        "path": path,
        "modality": clean(received.modality, 64),
        "own_product": received.own_product,
    }


def conflict_values(received: ReceivedInstance, path: str) -> dict[str, Any]:
    """Columns of `conflicts`."""
    values = instance_values(received, path)
    unused = ("sop_class_uid", "transfer_syntax_uid", "modality", "own_product")
    return {name: value for name, value in values.items() if name not in unused}


def stored_instance(row: RowMapping) -> StoredInstance:
    return StoredInstance(
        id=row["id"],
        study_instance_uid=row["study_instance_uid"],
        series_instance_uid=row["series_instance_uid"],
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        calling_ae_title=row["calling_ae_title"],
        received_at=row["received_at"],
        digest=row["digest"],
        size=row["size"],
        path=row["path"],
    )


# ---------------------------------------------------------------- outcomes


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """Columns of `outcomes`: scalars as JSON, arrays as little-endian float32."""
    facts = _facts(outcome)
    values: dict[str, Any] = {
        "evaluated": isinstance(outcome, Evaluated),
        "statement": statement(outcome),
        "content": json.dumps(facts, sort_keys=True),
        "cam": None,
        "cam_rows": None,
        "cam_columns": None,
        "embedding": None,
        "embedding_length": None,
    }
    if isinstance(outcome, Evaluated) and outcome.cam is not None:
        rows, columns = outcome.cam.shape
        values |= {"cam": _bytes(outcome.cam), "cam_rows": rows, "cam_columns": columns}
    if isinstance(outcome, Evaluated) and outcome.embedding is not None:
        values["embedding"] = _bytes(outcome.embedding)
        values["embedding_length"] = outcome.embedding.size
    return values


def statement(outcome: Outcome) -> str:
    """What a report would say of an outcome, as text: equal statements, equal reports.

    The replica that answered and the seventh digit of the probability (it differs between
    processors) say nothing new.
    """
    facts = _facts(outcome)
    if isinstance(outcome, Evaluated):
        del facts["backend"], facts["display_path"]
        facts["probability"] = round(outcome.probability, 6)
        facts["heatmap"] = outcome.cam is not None and outcome.display_path is not None
    return json.dumps(facts, sort_keys=True)


def outcome(row: Mapping[Any, Any]) -> Outcome:
    """From columns of `outcomes`."""
    facts = json.loads(row["content"])
    if not row["evaluated"]:
        return NotEvaluated(reason=Reason(facts["reason"]), detail=facts["detail"])
    cam = embedding = None
    if row["cam"] is not None:
        cam = _array(row["cam"]).reshape(row["cam_rows"], row["cam_columns"])
    if row["embedding"] is not None:
        embedding = _array(row["embedding"])
    return Evaluated(**facts, cam=cam, embedding=embedding)


def _facts(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, NotEvaluated):
        return {"reason": outcome.reason.value, "detail": clean(outcome.detail)}
    return {
        "model_name": outcome.model_name,
        "model_version": outcome.model_version,
        "backend": outcome.backend,
        "probability": float(outcome.probability),
        "threshold": float(outcome.threshold),
        "present": bool(outcome.present),
        "display_path": outcome.display_path,
    }


def _bytes(array: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def _array(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


# ---------------------------------------------------------------- documents and jobs


def document_plan(row: RowMapping) -> DocumentPlan:
    """From columns of `documents`."""
    return DocumentPlan(
        kind=row["kind"],
        sop_instance_uid=row["sop_instance_uid"],
        series_instance_uid=row["series_instance_uid"],
    )


def written_document(row: RowMapping) -> WrittenDocument:
    return WrittenDocument(
        id=row["id"],
        kind=row["kind"],
        study_instance_uid=row["study_instance_uid"],
        series_instance_uid=row["series_instance_uid"],
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        revision=row["revision"],
        path=row["path"],
        created_at=row["planned_at"],
    )


def job(row: RowMapping) -> Job:
    return Job(
        id=row["id"],
        kind=JobKind(row["kind"]),
        key=row["key"],
        study_instance_uid=row["study_instance_uid"],
        destination=row["destination"],
        state=JobState(row["state"]),
        attempts=row["attempts"],
        generation=row["generation"],
        created_at=row["created_at"],
        run_at=row["run_at"],
        lease_owner=row["lease_owner"],
        lease_until=row["lease_until"],
        last_error=row["last_error"],
        error_code=row["error_code"],
    )


def delivery(row: RowMapping) -> Delivery:
    return Delivery(
        document_id=row["document_id"],
        destination=row["destination"],
        state=JobState(row["state"]),
        status=row["status"],
        attempts=row["attempts"],
        error=row["last_error"],
        settled_at=row["settled_at"],
    )


def new_job(
    kind: JobKind, key: str, study_instance_uid: str, *, now: datetime, run_at: datetime
) -> dict[str, Any]:
    """Columns of `jobs` for work that nobody did yet."""
    return {
        "kind": kind.value,
        "key": key,
        "study_instance_uid": study_instance_uid,
        "state": JobState.QUEUED.value,
        "attempts": 0,
        "generation": 1,
        "created_at": now,
        "run_at": run_at,
    }
