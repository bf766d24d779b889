"""Calibration: reliability, its error, and the temperature that mends it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trainer_predictions import predictions
from trainer.evaluate import Predictions
from trainer.evaluate.calibration import (
    COLDEST,
    HOTTEST,
    calibration_figures,
    cross_entropy,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def drawn(count: int, temperature: float, seed: int = 1) -> Predictions:
    """Films whose labels follow calibrated scores; the scores told are `temperature` too sure."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, count)
    truth = rng.random(count) < 1 / (1 + np.exp(-logit))
    return predictions(truth, 1 / (1 + np.exp(-logit * temperature)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_scores_too_sure_is_found(temperature):
    found = fit_temperature(drawn(4000, temperature))
    assert found.value == pytest.approx(temperature, rel=0.1)
    assert found.note == ""


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.3, 4))
def test_no_other_temperature_has_a_lower_cross_entropy(seed, temperature):
    validation = drawn(60, temperature, seed)
    found = fit_temperature(validation)
    least = cross_entropy(validation.scaled(found.value))
    for factor in (0.8, 0.95, 1.05, 1.25):
        other = min(max(found.value * factor, COLDEST), HOTTEST)
        assert least <= cross_entropy(validation.scaled(other)) + 1e-7


def test_scaling_the_probabilities_is_dividing_the_logits():
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, 4.0, 1.0]])

    def softmax(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    told = Predictions(
        names=("a", "b"),
        patients=("a", "b"),
        sources=("", ""),
        views=("", ""),
        labels=("x", "z"),
        probabilities=softmax(logits),
        classes=("x", "y", "z"),
        positive_class="y",
    )
    assert np.allclose(told.scaled(2.5).probabilities, softmax(logits / 2.5))
    assert np.allclose(told.scaled(2.5).scaled(1 / 2.5).probabilities, told.probabilities)


def test_a_probability_of_exactly_0_stays_finite():
    told = predictions(np.array([True, False]), np.array([1.0, 0.0])).scaled(2.0)
    assert np.isfinite(told.probabilities).all()
    assert np.isfinite(cross_entropy(told))


def test_a_temperature_changes_no_order_and_no_auc():
    told = drawn(200, 1.0)
    order = np.argsort(told.scores, kind="stable")
    assert np.array_equal(np.argsort(told.scaled(3.0).scores, kind="stable"), order)


def test_a_validation_part_without_an_error_supports_no_more_than_its_size():
    truth = np.arange(22) % 2 == 0
    sure = predictions(truth, np.where(truth, 0.99999, 0.00001))
    found = fit_temperature(sure)
    assert "holds no error" in found.note
    # eleven of eleven right: (11 + 1) / (11 + 2), rule of succession
    assert sure.scaled(found.value).scores[truth][0] == pytest.approx(12 / 13, abs=1e-3)


def test_scores_that_are_worse_than_chance_end_at_the_bound_and_say_so():
    truth = np.arange(60) % 2 == 0
    found = fit_temperature(predictions(truth, np.where(truth, 0.1, 0.9)))
    assert found.value == HOTTEST
    assert "bound" in found.note


def test_too_few_films_are_not_calibrated():
    few = fit_temperature(drawn(12, 3.0))
    assert (few.value, few.note) == (1.0, few.note)
    assert "not calibrated" in few.note
    one_label = predictions(np.ones(50, dtype=bool), np.full(50, 0.9))
    assert fit_temperature(one_label).value == 1.0
    nothing = predictions(np.empty(0, dtype=bool), np.empty(0))
    assert fit_temperature(nothing).value == 1.0


def test_a_model_that_always_says_the_same_is_left_alone():
    truth = np.arange(60) % 2 == 0
    found = fit_temperature(predictions(truth, np.full(60, 0.5)))
    assert (found.value, found.note) == (1.0, "not calibrated: every film got the same answer")


# ----------------------------------------------------------------------- reliability


def test_the_error_is_the_weighted_distance_over_the_bins():
    truth = np.array([True, False, True, True])
    scores = np.array([0.12, 0.18, 0.95, 1.0])
    # bin 0.1-0.2: mean 0.15, share 0.5, two films; bin 0.9-1: mean 0.975, share 1, two films
    expected = (2 * 0.35 + 2 * 0.025) / 4
    assert expected_calibration_error(truth, scores) == pytest.approx(expected)
    rows = reliability(truth, scores)
    assert [(row["from"], row["films"], row["share"]["value"]) for row in rows] == [
        (0.1, 2, 0.5),
        (0.9, 2, 1.0),
    ]


def test_brier_agrees_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    told = drawn(100, 1.0)
    figures = calibration_figures(told.truth, told.scores, np.array([0.1, 0.2]), 1)
    expected = sklearn.brier_score_loss(told.truth, told.scores)
    assert figures["brier"]["value"] == round(expected, 4)


def test_the_error_by_chance_tells_how_much_of_it_is_the_number_of_films():
    honest, sure = drawn(150, 1.0, 3), drawn(150, 4.0, 3)
    nothing = np.empty(0)
    figure = calibration_figures(honest.truth, honest.scores, nothing, 1)["ece"]
    assert figure["value"] < figure["by_chance"]["high"]
    figure = calibration_figures(sure.truth, sure.scores, nothing, 1)["ece"]
    assert figure["value"] > figure["by_chance"]["high"]
    assert figure["low"] is None, "resampling inflates it: an interval would not be one"


def test_no_film_has_no_calibration():
    nothing = np.empty(0)
    figures = calibration_figures(np.empty(0, dtype=bool), nothing, nothing, 1)
    assert figures["ece"]["value"] is None
    assert figures["brier"]["value"] is None
