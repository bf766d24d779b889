"""What happens to one job: an image is judged, a study is reported.

No sockets, files or databases of its own: everything comes through ports. Whoever calls
decides when, and what to do with an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicomnode import sr
from dicomnode.errors import ModelRefused, OtherSizeWanted
from dicomnode.findings import Evaluated, NotEvaluated, Outcome, Prediction, PreparedImage
from dicomnode.imaging.display import png_bytes, png_pixels
from dicomnode.jobs import Job
from dicomnode.metrics import Metrics
from dicomnode.modelcard import ModelCard
from dicomnode.ports import (
    Clock,
    DocumentPlan,
    Files,
    Index,
    ModelCards,
    NewUid,
    Predictor,
    Preparer,
    ReportPlan,
    WrittenDocumentFacts,
)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What was found in one image, and the picture for its heatmap when it was evaluated."""

    outcome: Outcome
    image: PreparedImage | None = None


class Analyst:
    """Judges one image file: gate, decode, preprocess, inference, threshold."""

    def __init__(
        self, *, preparer: Preparer, predictor: Predictor, cards: ModelCards, metrics: Metrics
    ) -> None:
        self._preparer = preparer
        self._predictor = predictor
        self._cards = cards
        self._metrics = metrics

    def judge(self, path: Path) -> Judgement:
        """Judge the image at `path`.

        The image is prepared as the newest card says. When a version with another
        preprocess profile answers, or would if the image had its size (a roll-out in
        progress), that very version is asked again with the image prepared as *its* card
        says; a first answer is thrown away.
        """
        profile = self._cards.newest().preprocess_profile
        prepared = self._prepare(path, profile)
        if isinstance(prepared, NotEvaluated):
            return self._refused(prepared)
        try:
            prediction = self._predict(prepared, version=None)
            card = self._cards.get(prediction.model_version)
        except OtherSizeWanted as wanted:
            card = self._cards.get(wanted.model_version)
            if card.preprocess_profile == profile:
                raise
        if card.preprocess_profile != profile:
            prepared = self._prepare(path, card.preprocess_profile)
            if isinstance(prepared, NotEvaluated):
                return self._refused(prepared)
            prediction = self._predict(prepared, version=card.model_version)
        return Judgement(outcome=self._conclude(prediction, card), image=prepared)

    def _prepare(self, path: Path, profile: str) -> PreparedImage | NotEvaluated:
        prepared = self._preparer.prepare(path, profile=profile)
        if isinstance(prepared, PreparedImage):
            stages = self._metrics.stage_duration
            stages.labels("decode").observe(prepared.decode_seconds)
            stages.labels("preprocess").observe(prepared.preprocess_seconds)
        return prepared

    def _predict(self, prepared: PreparedImage, *, version: int | None) -> Prediction:
        with self._metrics.stage_duration.labels("inference").time():
            return self._predictor.predict(prepared.tensor, version=version)

    def _refused(self, refusal: NotEvaluated) -> Judgement:
        self._metrics.not_evaluated.labels(refusal.reason.value).inc()
        return Judgement(outcome=refusal)

    def _conclude(self, prediction: Prediction, card: ModelCard) -> Evaluated:
        if len(prediction.probabilities) != len(card.classes):
            raise ModelRefused(
                f"model {prediction.model_name!r} version {prediction.model_version} answered "
                f"{len(prediction.probabilities)} probabilities, its card names "
                f"{len(card.classes)} classes; publish a version whose card fits"
            )
        probability = prediction.probabilities[card.positive_index]
        version = str(prediction.model_version)
        self._metrics.prediction_probability.labels(version).observe(probability)
        return Evaluated(
            model_name=prediction.model_name,
            model_version=prediction.model_version,
            backend=prediction.backend,
            probability=probability,
            threshold=card.threshold.value,
            present=probability >= card.threshold.value,
            cam=prediction.cam,
            embedding=prediction.embedding,
        )


class Pipeline:
    """Carries out ANALYSE and REPORT jobs against the store."""

    def __init__(
        self,
        *,
        analyst: Analyst,
        files: Files,
        index: Index,
        cards: ModelCards,
        clock: Clock,
        new_uid: NewUid,
        metrics: Metrics,
        model_name: str,
        software_version: str,
        destinations: Sequence[str],
    ) -> None:
        self._analyst = analyst
        self._files = files
        self._index = index
        self._cards = cards
        self._clock = clock
        self._new_uid = new_uid
        self._metrics = metrics
        self._model_name = model_name
        self._software_version = software_version
        self._destinations = tuple(destinations)

    def analyse(self, job: Job) -> str:
        """Judge the instance of an ANALYSE job and record what was found."""
        instance = self._index.instance(int(job.key))
        judgement = self._analyst.judge(self._files.absolute(instance.path))
        outcome = judgement.outcome
        if isinstance(outcome, Evaluated) and judgement.image is not None:
            relative = f"display/{instance.study_instance_uid}/{instance.sop_instance_uid}.png"
            self._files.write_document(relative, png_bytes(judgement.image.display))
            outcome = replace(outcome, display_path=relative)
        self._index.record_outcome(job, outcome, now=self._clock())
        return "evaluated" if isinstance(outcome, Evaluated) else "not_evaluated"

    def report(self, job: Job) -> str:
        """Build, write and queue the documents of a settled study.

        UIDs, time and images are fixed in the index first, so a crash anywhere in here
        leads to the same bytes under the same UIDs when the job runs again.
        """
        plan = self._index.plan_report(job, now=self._clock(), new_uid=self._new_uid)
        if plan is None:
            return "unchanged"
        with self._metrics.stage_duration.labels("report").time():
            content = self._content(plan)
            facts = [self._write_report(plan, content)]
            if plan.heatmap is not None:
                facts.append(self._write_heatmap(plan, content, plan.heatmap))
        self._index.record_documents(
            job, plan, facts, destinations=self._destinations, now=self._clock()
        )
        return "reported"

    def _content(self, plan: ReportPlan) -> sr.ReportContent:
        outcomes = tuple(outcome for _, outcome in plan.images)
        versions = {o.model_version for o in outcomes if isinstance(o, Evaluated)}
        return sr.ReportContent(
            headers=tuple(self._files.read_header(image.path) for image, _ in plan.images),
            outcomes=outcomes,
            cards={version: self._cards.get(version) for version in versions},
            model_name=self._model_name,
            sop_instance_uid=plan.report.sop_instance_uid,
            series_instance_uid=plan.report.series_instance_uid,
            content_time=plan.planned_at,
            predecessor=_predecessor(plan),
            software_version=self._software_version,
            revision=plan.revision,
        )

    def _write_report(self, plan: ReportPlan, content: sr.ReportContent) -> WrittenDocumentFacts:
        dataset = sr.build_report(content)
        relative = _document_path(plan, plan.report)
        self._files.write_document(report_json_path(relative), sr.report_json_bytes(content))
        return self._write(plan.report, dataset.SOPClassUID, relative, sr.to_bytes(dataset))

    def _write_heatmap(
        self, plan: ReportPlan, content: sr.ReportContent, heatmap: DocumentPlan
    ) -> WrittenDocumentFacts:
        panels = [
            sr.HeatmapContent(
                header=header,
                outcome=outcome,
                card=content.cards[outcome.model_version],
                display=png_pixels(self._files.absolute(outcome.display_path).read_bytes()),
                sop_instance_uid=heatmap.sop_instance_uid,
                series_instance_uid=heatmap.series_instance_uid,
                content_time=plan.planned_at,
                software_version=self._software_version,
            )
            for header, outcome in zip(content.headers, content.outcomes, strict=True)
            if isinstance(outcome, Evaluated) and outcome.cam is not None and outcome.display_path
        ]
        dataset = sr.build_heatmap(*panels)
        relative = _document_path(plan, heatmap)
        return self._write(heatmap, dataset.SOPClassUID, relative, sr.to_bytes(dataset))

    def _write(
        self, plan: DocumentPlan, sop_class_uid: str, relative: str, data: bytes
    ) -> WrittenDocumentFacts:
        self._files.write_document(relative, data)
        return WrittenDocumentFacts(plan=plan, sop_class_uid=str(sop_class_uid), path=relative)


def report_json_path(relative: str) -> str:
    """Where the JSON form of a report lies: beside its DICOM form."""
    return relative.removesuffix(".dcm") + ".json"


def _document_path(plan: ReportPlan, document: DocumentPlan) -> str:
    return f"documents/{plan.study_instance_uid}/{document.sop_instance_uid}.dcm"


def _predecessor(plan: ReportPlan) -> tuple[str, str, str] | None:
    if plan.predecessor_sop_instance_uid is None or plan.predecessor_series_instance_uid is None:
        return None
    return (
        plan.study_instance_uid,
        plan.predecessor_series_instance_uid,
        plan.predecessor_sop_instance_uid,
    )
