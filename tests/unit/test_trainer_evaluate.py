"""Figures: the right names, the right arithmetic, intervals that hold the value."""

from __future__ import annotations

import numpy as np
import pytest

from trainer import evaluate

TRUTH = np.array([True] * 4 + [False] * 6)
SCORES = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.2, 0.1, 0.1, 0.1])


def test_sensitivity_is_of_the_positive_films_and_specificity_of_the_negative_ones():
    figures = evaluate.metrics(TRUTH, SCORES, 0.5)
    assert figures["sensitivity"]["value"] == 0.75  # 3 of 4 positive films
    assert figures["specificity"]["value"] == 0.8333  # 5 of 6 negative films
    assert figures["accuracy"]["value"] == 0.8
    assert figures["confusion"] == {
        "true_positive": 3,
        "false_negative": 1,
        "true_negative": 5,
        "false_positive": 1,
    }
    assert [figures[name]["cases"] for name in ("sensitivity", "specificity")] == [4, 6]


def test_auc_counts_pairs_and_halves_ties():
    # of 24 pairs: 0.9, 0.8 and 0.7 win all 18; 0.2 beats three 0.1 and ties with one 0.2
    assert evaluate.auc(TRUTH, SCORES) == pytest.approx((18 + 3 + 0.5) / 24)


def test_auc_agrees_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    truth = rng.random(200) < 0.3
    scores = np.round(np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1), 2)
    assert evaluate.auc(truth, scores) == pytest.approx(sklearn.roc_auc_score(truth, scores))


def test_every_interval_holds_its_value():
    figures = evaluate.metrics(TRUTH, SCORES, 0.5)
    for name in ("accuracy", "sensitivity", "specificity", "auc"):
        figure = figures[name]
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1


def test_a_wilson_interval_is_that_of_the_textbook():
    # 8 of 10: 0.4902 to 0.9433 (Brown, Cai, DasGupta 2001)
    assert evaluate._proportion(8, 10) == {"value": 0.8, "low": 0.4902, "high": 0.9433, "cases": 10}


def test_the_threshold_lies_in_the_middle_of_the_gap_that_parts_the_films():
    truth, scores = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9])
    assert evaluate.choose_threshold(truth, scores) == pytest.approx(0.5)


def test_the_threshold_has_the_largest_youden_index():
    chosen = evaluate.choose_threshold(TRUTH, SCORES)
    best = max(evaluate._youden(TRUTH, t <= SCORES) for t in np.linspace(0, 1, 101))
    assert evaluate._youden(TRUTH, chosen <= SCORES) == pytest.approx(best)


def test_a_source_with_one_label_has_no_auc():
    sources = ["a"] * 4 + ["b"] * 6
    rows = evaluate.by_source(sources, TRUTH, SCORES, 0.5)
    assert [row["auc"] for row in rows] == [None, None]
    mixed = evaluate.by_source(["c"] * 10, TRUTH, SCORES, 0.5)
    assert mixed[0]["auc"] == 0.8958
    assert mixed[0]["positives"] == 4
