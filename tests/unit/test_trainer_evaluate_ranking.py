"""ROC AUC and average precision, and their intervals over patients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluate import auc, average_precision
from trainer.evaluate.ranking import (
    area,
    area_figure,
    bootstrap_figure,
    curves,
    interval,
    once,
    precision_area,
    resampled,
    score_interval,
)

TRUTH = np.array([True] * 4 + [False] * 6)
SCORES = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.2, 0.1, 0.1, 0.1])

seeds = st.integers(0, 100_000)


def films(seed: int, count: int = 60, *, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    truth[:2] = (True, False)
    scores = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1)
    return truth, np.round(scores, 2) if ties else scores


def test_auc_counts_pairs_and_halves_ties():
    # of 24 pairs: 0.9, 0.8 and 0.7 win all 18; 0.2 beats three 0.1 and ties with one 0.2
    assert auc(TRUTH, SCORES) == pytest.approx((18 + 3 + 0.5) / 24)


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_both_areas_agree_with_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, scores = films(seed)
    assert auc(truth, scores) == pytest.approx(sklearn.roc_auc_score(truth, scores))
    expected = sklearn.average_precision_score(truth, scores)
    assert average_precision(truth, scores) == pytest.approx(expected)


@given(seeds)
def test_the_order_of_the_films_does_not_matter(seed):
    truth, scores = films(seed)
    shuffled = np.random.default_rng(seed).permutation(len(truth))
    assert auc(truth[shuffled], scores[shuffled]) == pytest.approx(auc(truth, scores))
    moved = average_precision(truth[shuffled], scores[shuffled])
    assert moved == pytest.approx(average_precision(truth, scores))


@given(seeds)
def test_only_the_order_of_the_scores_matters(seed):
    truth, scores = films(seed)
    assert auc(truth, np.exp(3 * scores) - 7) == pytest.approx(auc(truth, scores))
    assert average_precision(truth, scores**3) == pytest.approx(average_precision(truth, scores))


@given(seeds)
def test_with_the_labels_swapped_auc_is_one_minus_itself(seed):
    truth, scores = films(seed)
    assert auc(~truth, scores) == pytest.approx(1 - auc(truth, scores))
    assert auc(~truth, -scores) == pytest.approx(auc(truth, scores))


@given(seeds)
def test_a_film_drawn_twice_weighs_as_two_films(seed):
    truth, scores = films(seed, 20)
    weights = np.random.default_rng(seed).integers(0, 4, 20)
    weights[:2] = 1
    repeated = np.repeat(truth, weights), np.repeat(scores, weights)
    weighted = weights[np.newaxis].astype(float)
    assert area(truth, scores)(weighted)[0] == pytest.approx(auc(*repeated))
    assert precision_area(truth, scores)(weighted)[0] == pytest.approx(average_precision(*repeated))


def test_films_of_one_label_have_no_auc_and_negative_ones_no_precision():
    nothing = np.zeros(3, dtype=bool)
    assert auc(nothing, np.arange(3.0)) is None
    assert auc(~nothing, np.arange(3.0)) is None
    assert average_precision(nothing, np.arange(3.0)) is None
    assert auc(np.empty(0, dtype=bool), np.empty(0)) is None
    assert average_precision(np.empty(0, dtype=bool), np.empty(0)) is None


@given(seeds)
def test_pairs_within_strata_are_the_weighted_mean_of_the_strata(seed):
    truth, scores = films(seed)
    strata = np.random.default_rng(seed + 1).integers(-1, 3, len(truth))
    ordered = pairs = 0.0
    for stratum in range(3):
        inside = strata == stratum
        found = auc(truth[inside], scores[inside])
        if found is not None:
            of = truth[inside].sum() * (~truth[inside]).sum()
            ordered, pairs = ordered + found * of, pairs + of
    value = once(area(truth, scores, strata), len(truth))
    assert value == (pytest.approx(ordered / pairs) if pairs else None)


# ------------------------------------------------------------------------ intervals


def test_the_bootstrap_agrees_with_drawing_films_one_by_one():
    truth, scores = films(7, 80, ties=False)
    drawn = resampled([area(truth, scores)], np.arange(80), 2000, 1)[0]
    rng = np.random.default_rng(2)
    slow = []
    for _ in range(2000):
        picked = rng.integers(0, 80, 80)
        slow.append(auc(truth[picked], scores[picked]))
    assert interval(drawn) == pytest.approx(interval(np.array(slow, dtype=float)), abs=0.015)


def test_films_of_one_patient_are_drawn_together():
    """Every film four times is no more evidence than once, and the interval says so."""
    truth, scores = films(3, 60, ties=False)
    patients = np.arange(60)
    single = interval(resampled([area(truth, scores)], patients, 2000, 1)[0])
    four = [np.tile(values, 4) for values in (truth, scores, patients)]
    together = interval(resampled([area(four[0], four[1])], four[2], 2000, 1)[0])
    apart = interval(resampled([area(four[0], four[1])], np.arange(240), 2000, 1)[0])
    assert together == pytest.approx(single)
    assert apart[1] - apart[0] < 0.6 * (single[1] - single[0])


def test_the_same_seed_gives_the_same_interval_and_memory_does_not_depend_on_the_chunks(
    monkeypatch,
):
    truth, scores = films(4)
    patients = np.arange(60) // 2
    first = resampled([area(truth, scores)], patients, 300, 9)[0]
    assert np.array_equal(first, resampled([area(truth, scores)], patients, 300, 9)[0], True)
    monkeypatch.setattr("trainer.evaluate.ranking._CELLS", 500)  # eight resamples at a time
    assert np.array_equal(first, resampled([area(truth, scores)], patients, 300, 9)[0], True)


def test_the_interval_holds_the_true_auc_about_as_often_as_it_says():
    """Two normal scores one deviation apart: the true AUC is Phi(1/sqrt 2) = 0.7602."""
    rng = np.random.default_rng(5)
    truth = np.arange(120) % 2 == 0
    hits = 0
    for trial in range(120):
        scores = rng.normal(0, 1, 120) + truth
        low, high = interval(resampled([area(truth, scores)], np.arange(120), 300, trial)[0])
        hits += low <= 0.7602 <= high
    assert 106 <= hits <= 120  # 95 % of 120 is 114, three deviations are 7


def test_a_perfect_order_of_few_films_is_no_proof_of_a_perfect_model():
    truth, scores = np.arange(20) >= 10, np.arange(20.0)
    values = resampled([area(truth, scores)], np.arange(20), 200, 1)[0]
    assert interval(values) == (None, None), "no resample can differ"
    told = area_figure(1.0, values, 20, (10, 10))
    assert told["high"] == 1.0
    assert 0.7 < told["low"] < 0.9
    more = area_figure(1.0, values, 200, (100, 100))
    assert told["low"] < more["low"] < 1.0
    assert bootstrap_figure(1.0, values, 20)["low"] is None


def test_the_score_interval_solves_its_equation():
    low, high = score_interval(0.8, 30, 40)
    for edge in (low, high):
        star = 34
        inner = 1 + star * ((1 - edge) / (2 - edge) + edge / (1 + edge))
        variance = edge * (1 - edge) * inner / 1200
        assert (0.8 - edge) ** 2 == pytest.approx(1.959964**2 * variance)
    assert low < 0.8 < high
    assert score_interval(0.0, 10, 10)[0] == 0.0


def test_too_few_patients_to_resample_have_no_interval():
    truth = np.array([True, False])
    values = resampled([area(truth, np.array([0.9, 0.1]))], np.arange(2), 200, 1)[0]
    assert interval(values) == (None, None)
    assert interval(np.empty(0)) == (None, None)


# --------------------------------------------------------------------------- curves


@given(seeds)
def test_the_curves_enclose_the_areas(seed):
    truth, scores = films(seed)
    found = curves(truth, scores)
    inside = np.trapezoid(found.true_positive_rate, found.false_positive_rate)
    assert inside == pytest.approx(auc(truth, scores))
    steps = np.diff([0.0, *found.recall]) * np.array(found.precision)
    assert steps.sum() == pytest.approx(average_precision(truth, scores))
    assert (found.false_positive_rate[0], found.true_positive_rate[-1]) == (0.0, 1.0)


def test_films_of_one_label_have_no_curve():
    assert curves(np.ones(3, dtype=bool), np.arange(3.0)).recall == ()
