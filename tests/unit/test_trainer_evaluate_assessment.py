"""The whole assessment: what it takes, what it says, and what it never says."""

from __future__ import annotations

import dataclasses
import json
import resource

import numpy as np
import pytest

from tests.unit.trainer_predictions import predictions
from trainer.errors import UsageError
from trainer.evaluate import Predictions, Rule, assess, judge, source_counts


def part(count: int, seed: int, prefix: str, *, films_each: int = 1) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 0
    scores = 1 / (1 + np.exp(-3 * (rng.normal(0, 1, count) + truth - 0.5)))
    return predictions(
        truth,
        scores,
        prefix=prefix,
        patients=[f"SECRET-{prefix}-{number // films_each}" for number in range(count)],
        sources=[f"hospital {number % 3}" for number in range(count)],
        views=["PA" if number % 5 else "AP" for number in range(count)],
    )


@pytest.fixture(scope="module")
def validation() -> Predictions:
    return part(120, 1, "validation")


@pytest.fixture(scope="module")
def held_out() -> Predictions:
    return part(200, 2, "test", films_each=2)


def test_temperature_and_threshold_are_of_the_validation_part_and_figures_of_the_test_part(
    validation, held_out
):
    told = assess(validation, held_out, prevalence=0.1, resamples=100)
    assert (told.films, told.patients, told.positives, told.negatives) == (200, 100, 100, 100)
    assert told.temperature > 1.5, "the scores are three times too sure"
    assert "(120 films, 120 patients)" in told.threshold_rule
    again = judge(
        held_out.scaled(told.temperature),
        threshold=told.threshold,
        prevalence=0.1,
        resamples=100,
    )
    assert again.metrics == told.metrics
    other = assess(validation, part(40, 9, "other"), resamples=10)
    assert (other.threshold, other.temperature) == (told.threshold, told.temperature)


def test_every_figure_of_the_card_is_there_with_value_low_high_and_cases(validation, held_out):
    told = assess(validation, held_out, prevalence=0.1, resamples=100).metrics
    names = (
        *("accuracy", "sensitivity", "specificity", "ppv", "npv", "sample_ppv", "sample_npv"),
        *("auc", "average_precision", "auc_mixed_sources", "auc_by_source_alone", "ece", "brier"),
    )
    assert set(told) == {*names, "confusion"}
    for name in names:
        figure = told[name]
        assert {"value", "low", "high", "cases"} <= set(figure), name
        assert figure["value"] is not None
        if name not in ("ece", "auc_by_source_alone"):
            assert figure["low"] <= figure["value"] <= figure["high"], name
    assert told["auc_mixed_sources"]["sources"] == 3


def test_the_rule_of_the_threshold_can_be_stated(validation, held_out):
    rule = Rule(minimum_sensitivity=0.95)
    told = assess(validation, held_out, rule=rule, resamples=10)
    assert told.threshold_rule.startswith("best specificity with sensitivity >= 0.95")
    assert told.metrics["sensitivity"]["value"] > 0.85
    assert told.threshold < assess(validation, held_out, resamples=10).threshold


def test_an_assessment_is_json_and_names_nobody(validation, held_out):
    told = assess(validation, held_out, prevalence=0.1, resamples=50)
    text = json.dumps(told.to_json(), allow_nan=False)
    assert "SECRET" not in text
    assert "test-1" not in text
    assert json.loads(text)["confounding"]["verdict"] == told.confounding.verdict


def test_the_same_seed_gives_the_same_assessment(validation, held_out):
    first = assess(validation, held_out, resamples=100, seed=3)
    assert first == assess(validation, held_out, resamples=100, seed=3)
    assert first != assess(validation, held_out, resamples=100, seed=4)


def test_the_order_of_the_films_changes_no_figure_but_the_luck_of_the_draw(validation, held_out):
    shuffled = held_out.chosen(np.random.default_rng(1).permutation(200))
    first = assess(validation, held_out, resamples=50)
    second = assess(validation, shuffled, resamples=50)
    assert first.per_source == second.per_source
    assert first.per_view == second.per_view
    assert first.curves == second.curves
    assert first.metrics["auc"]["value"] == second.metrics["auc"]["value"]
    assert first.histogram == second.histogram


def test_a_film_in_both_parts_is_refused_and_a_patient_in_both_is_told(validation, held_out):
    with pytest.raises(ValueError, match="1 films are in the validation part and in the test"):
        assess(validation, validation.chosen([0]))
    related = dataclasses.replace(
        held_out, patients=(validation.patients[0], *held_out.patients[1:])
    )
    told = assess(validation, related, resamples=10)
    assert "1 patients are in the validation part and in the test part" in told.notes


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, 5.0])
def test_a_prevalence_that_is_none_is_a_usage_error(held_out, prevalence):
    with pytest.raises(UsageError, match="prevalence must be above 0 and below 1"):
        judge(held_out, threshold=0.5, prevalence=prevalence)


def test_no_film_cannot_be_judged(held_out):
    with pytest.raises(ValueError, match="no film"):
        judge(held_out.chosen([]), threshold=0.5)


def test_few_patients_are_said_to_be_few(held_out):
    told = judge(held_out.chosen(range(20)), threshold=0.5, resamples=50)
    assert any("10 patients with a positive" in note for note in told.notes)


def test_more_than_two_classes_are_judged_as_one_against_the_rest():
    rng = np.random.default_rng(1)
    labels = tuple(rng.choice(["covid", "normal", "pneumonia"], 90))
    classes = ("covid", "normal", "pneumonia")
    logits = rng.normal(0, 1, (90, 3)) + 2 * (np.array(labels)[:, None] == np.array(classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = tuple(map(str, range(90)))
    nothing = ("",) * 90
    told = judge(
        Predictions(
            names=names,
            patients=names,
            sources=nothing,
            views=nothing,
            labels=labels,
            probabilities=probabilities,
            classes=classes,
            positive_class="pneumonia",
        ),
        threshold=0.4,
        resamples=50,
    )
    assert told.positives == labels.count("pneumonia")
    assert np.sum(told.class_matrix) == 90
    assert [sum(row) for row in told.class_matrix] == [labels.count(name) for name in classes]
    assert any("do not say whose they are" in note for note in told.notes)


def test_the_baseline_uses_the_training_part_when_it_is_given(validation, held_out):
    counts = source_counts([], "positive") | {"hospital 0": (9, 1), "hospital 1": (1, 9)}
    told = assess(validation, held_out, training=counts, resamples=10)
    assert told.metrics["auc_by_source_alone"]["guess"] == "share of positives in the training part"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patients": ("p",)}, "have 1 patients"),
        ({"probabilities": np.ones((2, 3)) / 3}, "expected \\[2, 2\\]"),
        ({"probabilities": np.full((2, 2), np.nan)}, "not finite"),
        ({"probabilities": np.ones((2, 2))}, "do not sum to 1"),
        ({"positive_class": "other"}, "'other' is none of the classes"),
        ({"labels": ("positive", "odd")}, "label 'odd' is none of the classes"),
    ],
)
def test_predictions_that_do_not_belong_together_are_refused(change, message):
    films = predictions(np.array([True, False]), np.array([0.9, 0.1]))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(films, **change)


def test_a_thousand_resamples_of_many_films_stay_small_in_memory():
    """All resamples at once would be 5,000 x 1,000 x 8 bytes = 40 MB per array, of which
    some ten are alive; in chunks the process grows by less than that one array."""
    many = part(5000, 4, "many", films_each=2)
    judge(many.chosen(range(100)), threshold=0.5, resamples=10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    judge(many, threshold=0.5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
