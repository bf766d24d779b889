"""The report in other words: JSON for programs, text for a terminal. No patient data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydicom.uid import Comprehensive3DSRStorage

from dicomnode.findings import NotEvaluated, Outcome
from dicomnode.sr.content import NOTICE, SERIES_DESCRIPTION, ReportContent, tracking_uid
from dicomnode.sr.identity import ImageReference, read_identity, read_image
from dicomnode.sr.tree import finding_code, rounded, tracking_identifier
from dicomnode.sr.values import fitted


def report_json(content: ReportContent) -> dict[str, Any]:
    """What `build_report` says, as plain values. Raises what `build_report` raises."""
    identity = read_identity(content.headers, study_instance_uid=content.study_instance_uid)
    predecessor = content.predecessor
    return {
        "notice": SERIES_DESCRIPTION,
        "study_instance_uid": identity.study_instance_uid,
        "revision": content.revision,
        "content_time": content.content_time.isoformat(),
        "software_version": content.software_version,
        "model_name": content.model_name,
        "completion": "COMPLETE",
        "verification": "UNVERIFIED",
        "predecessor_sop_instance_uid": predecessor[2] if predecessor else None,
        "documents": [
            {
                "kind": "sr",
                "sop_class_uid": str(Comprehensive3DSRStorage),
                "series_instance_uid": content.series_instance_uid,
                "sop_instance_uid": content.sop_instance_uid,
            }
        ],
        "images": [
            _image(
                number,
                content,
                read_image(header, study_instance_uid=content.study_instance_uid),
                outcome,
            )
            for number, (header, outcome) in enumerate(
                zip(content.headers, content.outcomes, strict=True), start=1
            )
        ],
    }


def report_json_bytes(content: ReportContent) -> bytes:
    """`report_json` as a file in UTF-8; the same content gives the same bytes."""
    return (json.dumps(report_json(content), indent=2, ensure_ascii=False) + "\n").encode()


def report_text(report: ReportContent | Mapping[str, Any]) -> str:
    """The report for a terminal, from its content or from its JSON form."""
    facts = report_json(report) if isinstance(report, ReportContent) else report
    lines = [
        NOTICE,
        f"Study      {facts['study_instance_uid']}",
        f"Report     {facts['documents'][0]['sop_instance_uid']} (revision {facts['revision']})",
    ]
    if facts["predecessor_sop_instance_uid"]:
        lines.append(f"Replaces   {facts['predecessor_sop_instance_uid']}")
    lines.append(f"Written    {facts['content_time']} by dicomnode {facts['software_version']}")
    for image in facts["images"]:
        lines += ["", f"Image {image['number']}    {image['sop_instance_uid']}"]
        lines += _result_lines(image) if image["evaluated"] else _refusal_lines(image)
    return "\n".join(lines)


def _image(
    number: int, content: ReportContent, image: ImageReference, outcome: Outcome
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "number": number,
        "series_instance_uid": image.series_instance_uid,
        "sop_instance_uid": image.sop_instance_uid,
        "sop_class_uid": image.sop_class_uid,
        "evaluated": not isinstance(outcome, NotEvaluated),
    }
    if isinstance(outcome, NotEvaluated):
        return facts | {
            "reason": outcome.reason.value,
            "detail": fitted(outcome.detail, 1024),
            "tracking_identifier": tracking_identifier(number, None),
            "tracking_uid": tracking_uid(image.sop_instance_uid, None),
        }
    card = content.card(outcome)
    code = finding_code(card)
    return facts | {
        "finding": {
            "value": code.value,
            "scheme_designator": code.scheme_designator,
            "meaning": code.meaning,
        },
        "present": outcome.present,
        "probability": rounded(outcome.probability),
        "threshold": rounded(outcome.threshold),
        "model": {
            "name": card.model_name,
            "version": card.model_version,
            "manufacturer": card.manufacturer,
            "device_uid": card.device_uid,
        },
        "tracking_identifier": tracking_identifier(number, card),
        "tracking_uid": tracking_uid(image.sop_instance_uid, card),
    }


def _result_lines(image: Mapping[str, Any]) -> list[str]:
    model = image["model"]
    return [
        f"           {image['finding']['meaning']}: {'PRESENT' if image['present'] else 'ABSENT'}",
        f"           probability {image['probability']:.3f}, threshold {image['threshold']:.3f}",
        f"           model {model['name']} version {model['version']}",
    ]


def _refusal_lines(image: Mapping[str, Any]) -> list[str]:
    return [f"           not evaluated ({image['reason']}): {image['detail']}"]
