"""Has it learned the finding, or where a film comes from? And the tables per group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tests.unit.trainer_predictions import predictions
from trainer.evaluate import Assessment, auc, judge, source_counts
from trainer.evaluate.confounding import Mixed, baseline_auc
from trainer.evaluate.groups import group_rows


@dataclass(frozen=True)
class Film:
    source: str
    label: str


def hospitals(
    count: int,
    shares: dict[str, float],
    *,
    knows_source: float,
    knows_finding: float,
    seed: int = 1,
) -> Assessment:
    """A model that knows so much of the source and so much of the finding, judged."""
    rng = np.random.default_rng(seed)
    names = list(shares)
    sources = [names[i] for i in rng.integers(0, len(names), count)]
    share = np.array([shares[source] for source in sources])
    truth = rng.random(count) < share
    logit = rng.normal(0, 1, count) + knows_source * (share - 0.5) + knows_finding * (truth - 0.5)
    told = predictions(truth, 1 / (1 + np.exp(-logit)), sources=sources)
    return judge(told, threshold=0.5, resamples=300)


UNEQUAL = {"clinic": 0.9, "screening": 0.1, "ward": 0.5}


def test_a_model_that_only_knows_the_source_is_called_confounded():
    told = hospitals(600, UNEQUAL, knows_source=4, knows_finding=0)
    assert told.metrics["auc"]["value"] > 0.75
    assert told.metrics["auc_mixed_sources"]["value"] < 0.6
    assert told.metrics["auc_mixed_sources"]["low"] < 0.5
    assert told.confounding.verdict == "confounded"
    assert told.confounding.warning
    assert "the source and not the finding" in told.confounding.sentence


def test_a_model_that_only_knows_the_finding_is_not():
    told = hospitals(600, UNEQUAL, knows_source=0, knows_finding=2)
    assert told.confounding.verdict == "no sign"
    assert not told.confounding.warning
    within, over_all = told.metrics["auc_mixed_sources"]["value"], told.metrics["auc"]["value"]
    assert within == pytest.approx(over_all, abs=0.04)


def test_pooling_mixed_sources_does_not_undo_the_confounding():
    """All sources hold both labels, yet only pairs of the same source tell the truth."""
    figure = hospitals(600, UNEQUAL, knows_source=4, knows_finding=0).metrics["auc_mixed_sources"]
    assert figure["cases"] == 600
    assert figure["pooled"]["value"] > 0.75
    assert figure["value"] < 0.6


def test_sources_with_one_label_each_cannot_be_judged():
    told = hospitals(200, {"clinic": 1.0, "screening": 0.0}, knows_source=4, knows_finding=0)
    assert told.metrics["auc_mixed_sources"]["value"] is None
    assert told.metrics["auc_mixed_sources"]["cases"] == 0
    assert told.confounding.verdict == "cannot be judged"
    assert told.confounding.warning
    assert told.metrics["auc_by_source_alone"]["value"] == 1.0
    assert "guessing by the source alone reaches 1.000" in told.confounding.sentence


def test_few_films_in_mixed_sources_cannot_be_judged():
    told = hospitals(40, {"clinic": 0.95, "ward": 0.05}, knows_source=4, knows_finding=0, seed=4)
    assert told.metrics["auc_mixed_sources"]["value"] is not None
    assert told.confounding.verdict == "cannot be judged"
    assert "10" in told.confounding.sentence


def test_films_without_a_source_are_of_no_source():
    truth = np.arange(40) % 2 == 0
    told = judge(predictions(truth, np.linspace(0.1, 0.9, 40)), threshold=0.5, resamples=50)
    assert told.confounding.verdict == "cannot be judged"
    assert "do not say their source" in told.confounding.sentence
    assert told.per_source[0]["source"] == "unknown"
    half = Mixed.of([""] * 4 + ["a"] * 4, np.array([True, False] * 4))
    assert half.strata.tolist() == [-1] * 4 + [0] * 4


def test_one_source_is_said_to_be_one():
    truth = np.arange(40) % 2 == 0
    films = predictions(truth, np.linspace(0.1, 0.9, 40), sources=["ward"] * 40)
    told = judge(films, threshold=0.5, resamples=50)
    assert told.confounding.verdict == "one source"
    assert told.metrics["auc_mixed_sources"]["value"] == told.metrics["auc"]["value"]


def test_films_of_one_label_cannot_be_judged():
    films = predictions(np.ones(5, dtype=bool), np.full(5, 0.5), sources=["a"] * 5)
    told = judge(films, threshold=0.5, resamples=50)
    assert told.confounding.verdict == "cannot be judged"
    assert told.metrics["specificity"]["value"] is None
    assert any("no negative film" in note for note in told.notes)


# ------------------------------------------------------------------------- the baseline


def test_the_baseline_guesses_by_the_shares_of_the_training_part():
    films = [Film("clinic", "positive")] * 9 + [Film("clinic", "negative")]
    films += [Film("ward", "negative")] * 5
    counts = source_counts(films, "positive")
    assert counts == {"clinic": (9, 1), "ward": (0, 5)}
    truth = np.array([True, False, True, False])
    sources = ["clinic", "clinic", "elsewhere", "ward"]
    # guesses 0.9, 0.9, 9/15 (of all: never seen), 0
    assert baseline_auc(sources, truth, counts)[0] == auc(truth, np.array([0.9, 0.9, 0.6, 0.0]))


def test_without_a_training_part_every_pair_is_judged_by_the_other_films():
    rng = np.random.default_rng(3)
    sources = [str(number) for number in rng.integers(0, 6, 80)]
    truth = rng.random(80) < np.array([int(source) / 6 for source in sources])
    ordered = []
    for first in np.flatnonzero(truth):
        for second in np.flatnonzero(~truth):
            rest = np.ones(80, dtype=bool)
            rest[[first, second]] = False

            def share(film: int, rest: np.ndarray = rest) -> float:
                same = rest & np.array([source == sources[film] for source in sources])
                return float((truth[same] if same.any() else truth[rest]).mean())

            ordered.append((np.sign(share(first) - share(second)) + 1) / 2)
    assert baseline_auc(sources, truth, None)[0] == pytest.approx(np.mean(ordered))


def test_an_uninformative_source_guesses_at_a_half_and_not_below():
    truth = np.arange(30) % 2 == 0
    assert baseline_auc(["ward"] * 30, truth, None)[0] == 0.5
    assert baseline_auc(["ward"] * 30, np.ones(30, dtype=bool), None)[0] is None


# ----------------------------------------------------------------------- tables per group


def test_a_row_has_counts_shares_and_auc_only_where_both_labels_are():
    truth = np.array([True, True, False, False, True])
    scores = np.array([0.9, 0.4, 0.6, 0.1, 0.8])
    films = predictions(
        truth, scores, sources=["b", "b", "b", "b", "a"], patients=["p", "p", "q", "r", "s"]
    )
    first, second = group_rows("source", films.sources, films, 0.5)
    assert (first["source"], first["films"], first["patients"]) == ("b", 4, 3)
    assert (first["sensitivity"], first["specificity"], first["auc"]) == (0.5, 0.5, 0.75)
    assert first["sensitivity_interval"][0] < 0.5 < first["sensitivity_interval"][1]
    assert (second["source"], second["positives"], second["negatives"]) == ("a", 1, 0)
    assert (second["sensitivity"], second["specificity"], second["auc"]) == (1.0, None, None)
    assert second["specificity_interval"] == [None, None]


def test_views_are_told_like_sources():
    truth = np.array([True, False])
    films = predictions(truth, np.array([0.9, 0.2]), views=["PA", ""])
    rows = judge(films, threshold=0.5, resamples=10).per_view
    assert [row["view"] for row in rows] == ["unknown", "PA"]
