"""Has a model learned the finding, or where a film comes from?"""

from __future__ import annotations

from typing import Literal

from trainer.gate.answers import Answers
from trainer.gate.checks import Check, Figures, auc_difference, told
from trainer.gate.paired import auc
from trainer.gate.policy import Policy


def confounding(own: Answers, pair: tuple[Answers, Answers] | None, policy: Policy) -> Check:
    """Does it know the finding, or the source that a film is from?

    Over all sources a model can be good by knowing which of them send positive films.
    Pairs of films of the same source do not reward that.
    """
    outcome: Literal["failed", "flagged"] = (
        "failed" if policy.confounding == "refuse" else "flagged"
    )
    over_all = auc(own.truth, own.scores)
    if own.source_names == ("",):
        return Check(
            name="confounding",
            outcome="flagged",
            sentence="the films do not say their source; what a source may have taught is unknown",
            figures={"auc": over_all},
        )
    if len(own.source_names) == 1:
        return Check(
            name="confounding",
            outcome="passed",
            sentence="all held-out films are of one source",
            figures={"auc": over_all, "auc_within_sources": over_all},
        )
    mixed = own.mixed
    positives, negatives = int((mixed & own.truth).sum()), int((mixed & ~own.truth).sum())
    within = auc(own.truth, own.scores, own.strata)
    figures: Figures = {
        "auc": over_all,
        "auc_within_sources": within,
        "mixed_positives": positives,
        "mixed_negatives": negatives,
    }
    if within is None or min(positives, negatives) < policy.within_minimum_films:
        sentence = (
            "whether it knows the finding or the source cannot be told: the sources that hold "
            f"both labels have {positives} positive and {negatives} negative held-out films, "
            f"{policy.within_minimum_films} of each are needed"
        )
    elif within < policy.within_auc_floor:
        sentence = (
            f"it knows the source rather than the finding: AUC {told(over_all)} over all "
            f"sources, {told(within)} between films of the same source (floor "
            f"{policy.within_auc_floor:g})"
        )
    else:
        return _gain(pair, policy, outcome, figures)
    return Check(name="confounding", outcome=outcome, sentence=sentence, figures=figures)


def _gain(
    pair: tuple[Answers, Answers] | None,
    policy: Policy,
    outcome: Literal["failed", "flagged"],
    figures: Figures,
) -> Check:
    """Whether what was gained over all sources is there within them too."""
    over_all = auc_difference(*pair, policy) if pair else None
    within = auc_difference(*pair, policy, strata=pair[0].strata) if pair else None
    if over_all is None or within is None:
        sentence = (
            f"AUC {told(figures['auc'])} over all sources, "
            f"{told(figures['auc_within_sources'])} between films of the same source"
        )
        return Check(name="confounding", outcome="passed", sentence=sentence, figures=figures)
    changes = (
        f"over all sources AUC changes by {over_all.value:+.3f}, between films of the same source "
        f"by {within.value:+.3f} (95 % {within.low:+.3f} to {within.high:+.3f})"
    )
    figures = figures | {
        "gain": over_all.value,
        "gain_within_sources": within.value,
        "gain_within_sources_low": within.low,
        "gain_within_sources_high": within.high,
    }
    gained = over_all.value >= policy.confounding_gain
    if gained and within.value < policy.within_share * over_all.value:
        sentence = f"better by source confounding: {changes}"
    elif within.value < -policy.source_drop:
        sentence = f"worse within sources than over all: {changes}"
    else:
        return Check(name="confounding", outcome="passed", sentence=changes, figures=figures)
    return Check(name="confounding", outcome=outcome, sentence=sentence, figures=figures)
