"""Everything that is said about a model on one set of held-out films."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UsageError
from trainer.evaluate import calibration, confounding, groups, proportions, ranking
from trainer.evaluate.confounding import Confounding, Mixed, SourceCounts
from trainer.evaluate.predictions import Predictions, numbered
from trainer.evaluate.thresholds import Rule, choose_threshold

_HISTOGRAM_BINS: Final = 20
_FEW_PATIENTS: Final = 30


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Figures on the held-out films, at one threshold, of calibrated probabilities."""

    classes: tuple[str, ...]
    positive_class: str
    films: int
    patients: int
    positives: int
    negatives: int
    temperature: float
    """Fitted on the validation part; 1.0 when a published model is judged as it answers."""
    threshold: float
    threshold_rule: str
    prevalence: float | None
    """Stated for PPV and NPV; None when nobody stated one."""
    metrics: dict[str, Any]
    """In the form of a model card: each figure with value, low, high (95 %) and cases."""
    per_source: list[dict[str, Any]]
    per_view: list[dict[str, Any]]
    confounding: Confounding
    predictive_values: list[dict[str, Any]]
    """PPV and NPV over a range of prevalences."""
    curves: ranking.Curves
    reliability: list[dict[str, Any]]
    histogram: dict[str, list[int]]
    """Films per score bin (20 of equal width) of the `positive` and the `negative` films."""
    class_matrix: list[list[int]]
    """Films by own class (rows) and class of the highest probability (columns)."""
    notes: tuple[str, ...]
    """What a reader has to know before believing the figures."""

    def to_json(self) -> dict[str, Any]:
        """JSON values; no names of films, no patients."""
        told = dict(vars(self))
        told["classes"], told["notes"] = list(self.classes), list(self.notes)
        told["confounding"] = self.confounding.to_json()
        told["curves"] = self.curves.to_json()
        return told


def assess(
    validation: Predictions,
    test: Predictions,
    *,
    prevalence: float | None = None,
    resamples: int = 1000,
    seed: int = 42,
    rule: Rule | None = None,
    training: SourceCounts | None = None,
) -> Assessment:
    """Judge a fresh model: temperature and threshold from `validation`, figures from `test`.

    Both are uncalibrated. `training` (see `source_counts`) makes the baseline that guesses
    by the source alone. Raises `UsageError` for an impossible prevalence, `ValueError` when
    a film is in both parts or when there is no test film.
    """
    rule = rule or Rule()
    shared = set(zip(validation.patients, validation.names, strict=True)) & set(
        zip(test.patients, test.names, strict=True)
    )
    if shared:
        raise ValueError(f"{len(shared)} films are in the validation part and in the test part")
    found = calibration.fit_temperature(validation)
    calibrated = validation.scaled(found.value)
    threshold = choose_threshold(calibrated.truth, calibrated.scores, rule)
    patients = len(set(validation.patients))
    notes = [found.note] if found.note else []
    if not calibrated.truth.any() or calibrated.truth.all():
        notes.append("the validation part holds one label only: the threshold is 0.5 by default")
    both = len(set(validation.patients) & set(test.patients))
    if both:
        notes.append(f"{both} patients are in the validation part and in the test part")
    return _assessed(
        test.scaled(found.value),
        temperature=found.value,
        threshold=threshold,
        threshold_rule=f"{rule.sentence} ({len(validation.names)} films, {patients} patients)",
        prevalence=prevalence,
        resamples=resamples,
        seed=seed,
        training=training,
        notes=notes,
    )


def judge(
    test: Predictions,
    *,
    threshold: float,
    prevalence: float | None = None,
    resamples: int = 1000,
    seed: int = 42,
    threshold_rule: str = "fixed",
    training: SourceCounts | None = None,
) -> Assessment:
    """Judge a published model at its threshold; `test` is as the model answers (calibrated).

    Raises `UsageError` for an impossible prevalence, `ValueError` without any film.
    """
    return _assessed(
        test,
        temperature=1.0,
        threshold=threshold,
        threshold_rule=threshold_rule,
        prevalence=prevalence,
        resamples=resamples,
        seed=seed,
        training=training,
        notes=[],
    )


def require_prevalence(prevalence: float | None) -> None:
    """Raises `UsageError` for what is no prevalence."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise UsageError(f"the prevalence must be above 0 and below 1, got {prevalence:g}")


def _assessed(
    test: Predictions,
    *,
    temperature: float,
    threshold: float,
    threshold_rule: str,
    prevalence: float | None,
    resamples: int,
    seed: int,
    training: SourceCounts | None,
    notes: list[str],
) -> Assessment:
    require_prevalence(prevalence)
    if not test.names:
        raise ValueError("there is no film to judge by")
    truth, scores = test.truth, test.scores
    counts = proportions.confusion(truth, scores, threshold)
    ranked, verdict = _ranked(test, resamples, seed, training)
    return Assessment(
        classes=test.classes,
        positive_class=test.positive_class,
        films=len(truth),
        patients=len(set(test.patients)),
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        temperature=temperature,
        threshold=threshold,
        threshold_rule=threshold_rule,
        prevalence=prevalence,
        metrics=proportions.shares(counts)
        | proportions.predictive(counts, prevalence)
        | ranked
        | {"confusion": counts},
        per_source=groups.group_rows("source", test.sources, test, threshold),
        per_view=groups.group_rows("view", test.views, test, threshold),
        confounding=verdict,
        predictive_values=proportions.predictive_table(counts, prevalence),
        curves=ranking.curves(truth, scores),
        reliability=calibration.reliability(truth, scores),
        histogram={
            "positive": _histogram(scores[truth]),
            "negative": _histogram(scores[~truth]),
        },
        class_matrix=_class_matrix(test),
        notes=(*notes, *_remarks(test)),
    )


def _ranked(
    test: Predictions, resamples: int, seed: int, training: SourceCounts | None
) -> tuple[dict[str, Any], Confounding]:
    """The figures that are resampled by patient, all on the same resamples."""
    truth, scores, films = test.truth, test.scores, len(test.names)
    mixed, everything = Mixed.of(test.sources, truth), np.ones(films, dtype=np.bool_)
    statistics = [
        ranking.area(truth, scores),
        ranking.precision_area(truth, scores),
        ranking.area(truth, scores, mixed.strata),
        ranking.area(truth, scores, mixed.pooled),
        ranking.mean_of((scores - truth) ** 2),
    ]
    drawn = ranking.resampled(statistics, numbered(test.patients), resamples, seed)
    over_all, precision, within, pooled, _ = (
        (ranking.once(statistic, films), values)
        for statistic, values in zip(statistics, drawn, strict=True)
    )
    baseline, guessed_by = confounding.baseline_auc(test.sources, truth, training)
    figures = {
        "auc": ranking.area_figure(*over_all, films, _patients_by_label(test, everything)),
        "average_precision": ranking.bootstrap_figure(*precision, films),
        "auc_mixed_sources": confounding.mixed_figure(
            mixed, within, pooled, _patients_by_label(test, mixed.strata >= 0)
        ),
        "auc_by_source_alone": proportions.figure(baseline, None, None, films)
        | {"guess": guessed_by},
        **calibration.calibration_figures(truth, scores, drawn[4], seed),
    }
    return figures, confounding.judge_confounding(test.sources, mixed, over_all, within, baseline)


def _patients_by_label(test: Predictions, among: NDArray[np.bool_]) -> tuple[int, int]:
    """Patients with a positive and with a negative film among the films."""
    numbers, truth = numbered(test.patients), test.truth
    return len(np.unique(numbers[among & truth])), len(np.unique(numbers[among & ~truth]))


def _histogram(scores: NDArray[np.float64]) -> list[int]:
    counts, _ = np.histogram(scores, bins=_HISTOGRAM_BINS, range=(0.0, 1.0))
    return [int(count) for count in counts]


def _class_matrix(test: Predictions) -> list[list[int]]:
    size = len(test.classes)
    cells = Counter(
        zip(test.targets.tolist(), test.probabilities.argmax(axis=1).tolist(), strict=True)
    )
    return [[cells[row, column] for column in range(size)] for row in range(size)]


def _remarks(test: Predictions) -> list[str]:
    remarks = []
    positives, negatives = _patients_by_label(test, np.ones(len(test.names), dtype=np.bool_))
    if not positives or not negatives:
        missing = "positive" if not positives else "negative"
        remarks.append(f"no {missing} film: sensitivity, specificity and AUC are not all there")
    elif min(positives, negatives) < _FEW_PATIENTS:
        remarks.append(
            f"{positives} patients with a positive and {negatives} with a negative film: "
            "the intervals are wide, and a difference of a few films means nothing"
        )
    if len(set(test.names)) < len(test.names):
        remarks.append("a film is named twice: it counts twice")
    if test.patients == test.names:
        remarks.append(
            "the films do not say whose they are: each counts as another patient's, and the "
            "intervals are too narrow if several are of one"
        )
    return remarks
