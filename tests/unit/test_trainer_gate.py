"""The gate: who may serve, who may not, and why, with figures that were computed apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.errors import UsageError
from trainer.gate import Judged, Policy, Promote, Refuse, decide, policy_from
from trainer.gate.paired import auc, difference

POLICY = Policy(resamples=400)


@dataclass(frozen=True, kw_only=True)
class Told:
    """Answers about films; as much as the gate reads."""

    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    sources: tuple[str, ...]
    names: tuple[str, ...]
    patients: tuple[str, ...]


def told(truth, scores, sources=None) -> Told:
    """A film per patient, all from one source unless said otherwise."""
    names = tuple(f"film-{number}" for number in range(len(truth)))
    return Told(
        truth=np.array(truth, dtype=bool),
        scores=np.array(scores, dtype=float),
        sources=tuple(sources or ["XRAY1"] * len(truth)),
        names=names,
        patients=names,
    )


def judged(truth, scores, sources=None, threshold=0.5) -> Judged:
    return Judged(predictions=told(truth, scores, sources), threshold=threshold)


def answers(truth, skill: float, seed: int) -> NDArray[np.float64]:
    """Scores whose two classes lie `skill` standard deviations apart, 0.5 in the middle."""
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal(len(truth)) + skill * (np.array(truth) - 0.5)
    return 1 / (1 + np.exp(-spread))


TRUTH = [True, False] * 60
SOURCES = ["XRAY1", "XRAY1", "XRAY2", "XRAY2"] * 30


# --------------------------------------------------------------------------------- figures


def by_counting(truth, scores, strata=None) -> float:
    """AUC as its definition says, pair by pair."""
    won = pairs = 0.0
    for i in np.flatnonzero(truth):
        for j in np.flatnonzero(~truth):
            if strata is not None and strata[i] != strata[j]:
                continue
            pairs += 1
            won += 1 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0
    return won / pairs


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 2)), min_size=2, max_size=30
    )
)
def test_auc_is_the_share_of_pairs_in_order_ties_counted_half(films):
    truth = np.array([film[0] for film in films])
    scores = np.array([film[1] / 5 for film in films])
    strata = np.array([film[2] for film in films])
    if truth.all() or not truth.any():
        assert auc(truth, scores) is None
    else:
        assert auc(truth, scores) == pytest.approx(by_counting(truth, scores))
    within = auc(truth, scores, strata)
    if within is not None:
        assert within == pytest.approx(by_counting(truth, scores, strata))


def test_two_films_of_a_patient_widen_the_interval_as_one_film_would_not():
    """Every patient's film doubled: the same information, so the same interval."""
    truth = np.array(TRUTH)
    first, second = answers(truth, 2, 1), answers(truth, 1.5, 2)
    options = {"resamples": 500, "seed": 3}
    once = difference(truth, first, second, np.arange(120), **options)
    twice = np.repeat(np.arange(120), 2)
    doubled = difference(truth[twice], first[twice], second[twice], twice, **options)
    apart = difference(truth[twice], first[twice], second[twice], np.arange(240), **options)
    assert once is not None
    assert doubled is not None
    assert apart is not None
    assert (doubled.low, doubled.high) == pytest.approx((once.low, once.high))
    assert apart.high - apart.low < 0.8 * (once.high - once.low)


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says():
    """Fifty draws from models of known skill: AUC = Phi(skill / sqrt(2)), so 0.921 and 0.856."""
    truth, held = np.array(TRUTH), 0
    for seed in range(50):
        better, worse = answers(truth, 2, 2 * seed), answers(truth, 1.5, 2 * seed + 1)
        found = difference(truth, better, worse, np.arange(120), resamples=300, seed=seed)
        assert found is not None
        held += found.low <= 0.9214 - 0.8556 <= found.high
    assert held >= 43


def test_the_order_of_the_films_and_the_number_of_resamples_in_memory_change_nothing(monkeypatch):
    truth = np.array(TRUTH)
    first, second = answers(truth, 2, 1), answers(truth, 1.5, 2)
    whole = difference(truth, first, second, np.arange(120), resamples=300, seed=3)
    monkeypatch.setattr("trainer.evaluate.ranking._CELLS", 1000)
    assert difference(truth, first, second, np.arange(120), resamples=300, seed=3) == whole


# -------------------------------------------------------------------------------- verdicts


def test_a_candidate_that_answers_as_the_current_version_does_is_promoted():
    scores = answers(TRUTH, 3, 1)
    decision = decide(judged(TRUTH, scores, SOURCES), judged(TRUTH, scores, SOURCES), POLICY)
    assert isinstance(decision, Promote)
    assert decision.reasons == ()
    assert decision.warnings == ()
    assert {check.outcome for check in decision.checks} == {"passed"}


def test_a_better_candidate_is_promoted_and_the_figures_say_by_how_much():
    candidate, current = answers(TRUTH, 4, 1), answers(TRUTH, 2, 1)
    decision = decide(judged(TRUTH, candidate), judged(TRUTH, current), POLICY)
    assert isinstance(decision, Promote)
    (check,) = [check for check in decision.checks if check.name == "auc_not_worse"]
    assert check.figures["difference"] == pytest.approx(
        by_counting(np.array(TRUTH), candidate) - by_counting(np.array(TRUTH), current)
    )
    assert "difference +0." in check.sentence


def test_a_worse_candidate_is_refused_with_the_loss_that_cannot_be_excluded():
    decision = decide(
        judged(TRUTH, answers(TRUTH, 2, 1)), judged(TRUTH, answers(TRUTH, 4, 2)), POLICY
    )
    assert isinstance(decision, Refuse)
    assert any("cannot be excluded, the margin is 0.02" in reason for reason in decision.reasons)


def test_a_candidate_that_learned_nothing_fails_every_floor():
    scores = 1 - answers(TRUTH, 3, 1)
    decision = decide(judged(TRUTH, scores), None, POLICY)
    assert isinstance(decision, Refuse)
    failed = {check.name for check in decision.checks if check.outcome == "failed"}
    assert failed == {"sensitivity_floor", "specificity_floor", "auc_floor"}


def test_the_first_model_ever_needs_the_floors_only():
    decision = decide(judged(TRUTH, answers(TRUTH, 3, 1)), None, POLICY)
    assert isinstance(decision, Promote)
    assert decision.sources[0].current_accuracy is None


def test_sensitivity_counts_positive_films_and_shows_its_lower_bound():
    """54 of 60 positives called: 0.9, from 0.799 (Wilson); specificity 48 of 60: 0.8."""
    scores = [0.9] * 54 + [0.1] * 6 + [0.1] * 48 + [0.9] * 12
    decision = decide(
        judged([True] * 60 + [False] * 60, scores), None, Policy(sensitivity_floor=0.91)
    )
    sensitivity, specificity = (
        next(check for check in decision.checks if check.name == name)
        for name in ("sensitivity_floor", "specificity_floor")
    )
    assert sensitivity.outcome == "failed"
    assert sensitivity.sentence == (
        "sensitivity at the threshold is 0.900 (95 % from 0.799, 60 positive films), "
        "the floor is 0.91"
    )
    assert specificity.figures["value"] == pytest.approx(0.8)


def test_too_few_patients_cannot_be_judged_and_the_figure_needed_is_said():
    truth = [True] * 4 + [False] * 8
    decision = decide(judged(truth, answers(truth, 5, 1)), None, POLICY)
    assert isinstance(decision, Refuse)
    (reason,) = decision.reasons
    assert reason == (
        "cannot be judged: the candidate's held-out part stands on 12 patients (4 with a "
        "positive, 8 with a negative film), the gate asks for 30 (10 and 10); held out must be "
        "18 more patients, 6 more with a positive film, 2 more with a negative film"
    )


def test_the_comparison_stands_on_the_films_that_both_answered_and_says_when_they_are_few():
    scores = answers(TRUTH, 4, 1)
    current = told(TRUTH, scores)
    fewer = replace(
        current,
        **{name: getattr(current, name)[:20] for name in ("names", "patients", "sources")},
        truth=current.truth[:20],
        scores=current.scores[:20],
    )
    decision = decide(judged(TRUTH, scores), Judged(predictions=fewer, threshold=0.5), POLICY)
    assert isinstance(decision, Refuse)
    assert decision.reasons[0].startswith("cannot be judged: the comparison stands on 20 patients")


def test_films_are_matched_by_name_and_not_by_place():
    scores = answers(TRUTH, 4, 1)
    candidate = told(TRUTH, scores)
    turned = replace(
        candidate,
        **{name: getattr(candidate, name)[::-1] for name in ("names", "patients", "sources")},
        truth=candidate.truth[::-1],
        scores=candidate.scores[::-1],
    )
    decision = decide(
        Judged(predictions=candidate, threshold=0.5),
        Judged(predictions=turned, threshold=0.5),
        POLICY,
    )
    (check,) = [check for check in decision.checks if check.name == "auc_not_worse"]
    assert (check.figures["low"], check.figures["high"]) == (0, 0)


def test_versions_that_disagree_about_a_label_are_not_compared():
    scores = answers(TRUTH, 4, 1)
    with pytest.raises(ValueError, match="disagree about the label"):
        decide(judged(TRUTH, scores), judged([not label for label in TRUTH], scores), POLICY)


def test_a_source_that_collapses_is_refused_although_the_whole_is_not_worse():
    """XRAY2 has a sixth of the films, and there the candidate calls everything negative."""
    truth = [True, False] * 90
    sources = (["XRAY1"] * 10 + ["XRAY2"] * 2) * 15
    there = np.array([source == "XRAY2" for source in sources])
    current = answers(truth, 3, 1)
    candidate = np.where(there, current * 0.4, answers(truth, 6, 2))
    decision = decide(judged(truth, candidate, sources), judged(truth, current, sources), POLICY)
    assert isinstance(decision, Refuse)
    (reason,) = [text for text in decision.reasons if "fell by more" in text]
    assert reason.startswith("fell by more than 0.1 at XRAY2: accuracy 0.500 against 0.9")


def test_a_small_source_is_shown_but_not_judged():
    truth = [True, False] * 60
    sources = ["XRAY1"] * 110 + ["XRAY2"] * 10
    scores = answers(truth, 4, 1)
    there = np.array([source == "XRAY2" for source in sources])
    decision = decide(
        judged(truth, np.where(there, 0.1, scores), sources, threshold=0.3),
        judged(truth, scores, sources, threshold=0.3),
        Policy(resamples=400, margin=0.2),
    )
    assert isinstance(decision, Promote)
    small = decision.sources[1]
    assert (small.source, small.positives, small.negatives) == ("XRAY2", 5, 5)
    assert small.candidate_accuracy == 0.5


# ----------------------------------------------------------------------------- confounding


def confounded() -> tuple[list[bool], list[str], NDArray[np.bool_]]:
    """60 positives from WARD, 60 negatives from CLINIC, and 40 of each from XRAY."""
    truth = [True] * 60 + [False] * 60 + [True, False] * 40
    sources = ["WARD"] * 60 + ["CLINIC"] * 60 + ["XRAY"] * 80
    return truth, sources, np.array([source != "XRAY" for source in sources])


def test_a_candidate_that_is_better_by_source_confounding_only_is_refused():
    """It looks at the film as well as the current version does, and at where it is from."""
    truth, sources, pure = confounded()
    film = answers(truth, 2.5, 1)
    candidate = np.where(pure, np.where(truth, 0.99, 0.01), film)
    current = judged(truth, film, sources)
    decision = decide(judged(truth, candidate, sources), current, POLICY)
    assert isinstance(decision, Refuse)
    (reason,) = decision.reasons
    assert reason.startswith("better by source confounding: over all sources AUC changes by +0.")
    assert "between films of the same source by +0.000" in reason
    only_told = decide(
        judged(truth, candidate, sources),
        current,
        POLICY.model_copy(update={"confounding": "warn"}),
    )
    assert isinstance(only_told, Promote)
    assert only_told.warnings == (reason,)


def test_a_candidate_that_is_better_within_sources_too_is_promoted():
    truth, sources, _ = confounded()
    decision = decide(
        judged(truth, answers(truth, 4, 1), sources),
        judged(truth, answers(truth, 2.5, 1), sources),
        POLICY,
    )
    assert isinstance(decision, Promote)


def test_a_first_model_that_knows_the_source_and_not_the_finding_is_refused():
    truth, sources, pure = confounded()
    chance = np.random.default_rng(1).uniform(0.3, 0.7, len(truth))
    candidate = np.where(pure, np.where(truth, 0.99, 0.01), chance)
    decision = decide(
        judged(truth, candidate, sources), None, Policy(resamples=400, sensitivity_floor=0.7)
    )
    assert isinstance(decision, Refuse)
    (reason,) = decision.reasons
    assert reason.startswith("it knows the source rather than the finding: AUC 0.")


def test_when_every_source_holds_one_label_only_nothing_can_be_told_and_it_is_refused():
    sources = ["WARD" if label else "CLINIC" for label in TRUTH]
    decision = decide(judged(TRUTH, answers(TRUTH, 4, 1), sources), None, POLICY)
    assert isinstance(decision, Refuse)
    assert decision.reasons[0].startswith("whether it knows the finding or the source cannot be")


def test_films_without_a_source_are_flagged_and_not_refused():
    decision = decide(judged(TRUTH, answers(TRUTH, 4, 1), [""] * len(TRUTH)), None, POLICY)
    assert isinstance(decision, Promote)
    assert decision.warnings == (
        "the films do not say their source; what a source may have taught is unknown",
    )


def test_a_loss_within_sources_that_the_whole_hides_is_refused():
    truth, sources, pure = confounded()
    current = answers(truth, 3, 1)
    candidate = np.where(pure, np.where(truth, 0.99, 0.01), answers(truth, 1, 5))
    decision = decide(
        judged(truth, candidate, sources),
        judged(truth, current, sources),
        Policy(resamples=400, confounding_gain=1.0, source_drop=0.05, sensitivity_floor=0.5),
    )
    assert any(reason.startswith("worse within sources") for reason in decision.reasons)


# ---------------------------------------------------------------------------------- policy


def test_a_policy_is_read_from_a_table_and_its_mistakes_are_named_at_once():
    assert policy_from({"margin": 0.05}).margin == 0.05
    with pytest.raises(UsageError) as error:
        policy_from({"margn": 0.05, "sensitivity_floor": 2})
    assert "gate.margn is not a setting; did you mean gate.margin?" in str(error.value)
    assert "gate.sensitivity_floor: input should be less than or equal to 1" in str(error.value)


def test_a_decision_is_told_in_json():
    decision = decide(judged(TRUTH, answers(TRUTH, 4, 1)), None, POLICY)
    told_in_json = decision.to_json()
    assert told_in_json["verdict"] == "promote"
    assert told_in_json["sources"][0]["source"] == "XRAY1"
    assert {check["name"] for check in told_in_json["checks"]} >= {"auc_floor", "confounding"}
