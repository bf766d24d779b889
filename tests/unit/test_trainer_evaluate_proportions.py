"""Shares of films: the right names, the right arithmetic, intervals that hold the value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluate import Rule, choose_threshold
from trainer.evaluate.proportions import (
    confusion,
    predictive,
    predictive_table,
    proportion,
    shares,
)

TRUTH = np.array([True] * 4 + [False] * 6)
SCORES = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.2, 0.1, 0.1, 0.1])


def test_sensitivity_is_of_the_positive_films_and_specificity_of_the_negative_ones():
    counts = confusion(TRUTH, SCORES, 0.5)
    expected = {"true_positive": 3, "false_negative": 1, "true_negative": 5, "false_positive": 1}
    assert counts == expected
    figures = shares(counts)
    assert figures["sensitivity"]["value"] == 0.75  # 3 of 4 positive films
    assert figures["specificity"]["value"] == 0.8333  # 5 of 6 negative films
    assert figures["accuracy"]["value"] == 0.8
    assert figures["sample_ppv"]["value"] == 0.75  # 3 of 4 positive calls
    assert figures["sample_npv"]["value"] == 0.8333  # 5 of 6 negative calls
    assert [figures[name]["cases"] for name in ("sensitivity", "specificity")] == [4, 6]


def test_the_names_agree_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    figures = shares(confusion(TRUTH, SCORES, 0.5))
    called = SCORES >= 0.5
    assert figures["sensitivity"]["value"] == round(sklearn.recall_score(TRUTH, called), 4)
    negatives = sklearn.recall_score(TRUTH, called, pos_label=False)
    assert figures["specificity"]["value"] == round(negatives, 4)
    assert figures["sample_ppv"]["value"] == round(sklearn.precision_score(TRUTH, called), 4)


def test_a_film_at_the_threshold_is_called_positive_as_the_node_does():
    assert confusion(np.array([True]), np.array([0.5]), 0.5)["true_positive"] == 1


@pytest.mark.parametrize(
    ("count", "cases", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),  # Brown, Cai and DasGupta 2001
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_a_wilson_interval_is_that_of_the_textbook(count, cases, low, high):
    told = proportion(count, cases)
    assert (told["low"], told["high"], told["cases"]) == (low, high, cases)


def test_a_share_of_no_films_is_not_a_number_but_nothing():
    assert proportion(0, 0) == {"value": None, "low": None, "high": None, "cases": 0}


@given(st.integers(0, 400), st.integers(1, 400))
def test_every_wilson_interval_holds_its_value(count, cases):
    told = proportion(min(count, cases), cases)
    assert 0 <= told["low"] <= told["value"] <= told["high"] <= 1
    assert told["low"] < told["high"]


# --------------------------------------------------------------------------- Bayes


def counts_of(tp: int, fn: int, tn: int, fp: int) -> dict[str, int]:
    return {
        "true_positive": tp,
        "false_negative": fn,
        "true_negative": tn,
        "false_positive": fp,
    }


def test_predictive_values_follow_from_the_stated_prevalence_not_from_the_sample():
    # sensitivity 0.9, specificity 0.95; of 10,000 people 100 have it: 90 true alarms, 495 false
    told = predictive(counts_of(90, 10, 95, 5), 0.01)
    assert told["ppv"]["value"] == round(90 / (90 + 495), 4)
    assert told["npv"]["value"] == round(9405 / (9405 + 10), 4)
    assert told["ppv"]["prevalence"] == 0.01


def test_at_the_prevalence_of_the_sample_they_are_those_of_the_sample():
    counts = counts_of(90, 10, 95, 5)
    told, sample = predictive(counts, 0.5), shares(counts)
    assert told["ppv"]["value"] == sample["sample_ppv"]["value"]
    assert told["npv"]["value"] == sample["sample_npv"]["value"]


def test_the_logit_interval_is_that_of_its_formula():
    # by hand: logit(PPV) = ln(0.01/0.99 x 0.9/0.05) = -1.70475; its variance is
    # 0.1/(0.9 x 100) + 0.95/(0.05 x 100) = 0.191111
    ppv = predictive(counts_of(90, 10, 95, 5), 0.01)["ppv"]
    centre, half = -1.70475, 1.959964 * 0.191111**0.5
    low, high = (1 / (1 + np.exp(-(centre + sign * half))) for sign in (-1, 1))
    assert ppv["low"] == pytest.approx(low, abs=1e-4)
    assert ppv["high"] == pytest.approx(high, abs=1e-4)


def test_without_a_stated_prevalence_there_is_no_predictive_value():
    told = predictive(counts_of(90, 10, 95, 5), None)
    assert told["ppv"]["value"] is None
    assert told["npv"]["value"] is None


def test_a_model_without_a_false_alarm_in_few_films_is_not_proven_perfect():
    told = predictive(counts_of(9, 1, 10, 0), 0.05)["ppv"]
    assert told["value"] == 1.0
    # by hand, z^2 = 3.8415 added to the films and half of it to the calls: 0.78899 and 0.13877
    # are called so; logit -1.20650, variance 0.467694
    assert told["low"] == pytest.approx(0.0726, abs=1e-4)


def test_a_model_that_never_calls_positive_has_no_ppv():
    assert predictive(counts_of(0, 10, 10, 0), 0.05)["ppv"]["value"] is None


@given(
    *(st.integers(0, 60) for _ in range(4)),
    st.floats(0.001, 0.999),
)
def test_every_bayes_interval_holds_its_value(tp, fn, tn, fp, prevalence):
    for told in predictive(counts_of(tp, fn, tn, fp), prevalence).values():
        if told["value"] is not None:
            assert 0 <= told["low"] <= told["value"] <= told["high"] <= 1


def test_the_table_has_the_stated_prevalence_among_its_rows():
    rows = predictive_table(counts_of(90, 10, 95, 5), 0.03)
    assert [row["prevalence"] for row in rows] == [0.01, 0.03, 0.05, 0.1, 0.2, 0.5]
    values = [row["ppv"]["value"] for row in rows]
    assert values == sorted(values)


# ----------------------------------------------------------------------- threshold


def test_the_threshold_lies_in_the_middle_of_the_gap_that_parts_the_films():
    truth, scores = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9])
    assert choose_threshold(truth, scores) == pytest.approx(0.5)


def youden(truth: np.ndarray, called: np.ndarray) -> float:
    return float(called[truth].mean() + (~called[~truth]).mean() - 1)


@given(st.integers(0, 10_000))
def test_the_threshold_has_the_largest_youden_index(seed):
    rng = np.random.default_rng(seed)
    truth = np.arange(30) % 3 == 0
    scores = np.round(rng.random(30), 1)
    best = max(youden(truth, scores >= t) for t in np.linspace(0, 1, 101))
    assert youden(truth, scores >= choose_threshold(truth, scores)) == pytest.approx(best)


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_a_sensitivity_rule_is_kept_at_the_best_specificity(seed, minimum):
    rng = np.random.default_rng(seed)
    truth = np.arange(40) % 2 == 0
    scores = rng.random(40) * 0.8 + 0.2 * truth
    chosen = choose_threshold(truth, scores, Rule(minimum_sensitivity=minimum))
    assert (scores[truth] >= chosen).mean() >= minimum
    reaching = [t for t in scores if (scores[truth] >= t).mean() >= minimum]
    best = max((scores[~truth] < t).mean() for t in reaching)
    assert (scores[~truth] < chosen).mean() == pytest.approx(best)


def test_without_films_of_both_labels_the_threshold_is_a_half():
    assert choose_threshold(np.array([True, True]), np.array([0.2, 0.3])) == 0.5
