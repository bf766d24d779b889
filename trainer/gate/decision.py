"""The decision and what it stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainer.gate import checks
from trainer.gate.answers import Answers, Judged, paired
from trainer.gate.checks import Check, SourceRow
from trainer.gate.confounding import confounding
from trainer.gate.policy import Policy

__all__ = ["Check", "Decision", "Judged", "Promote", "Refuse", "SourceRow", "decide", "shortage"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was checked, what came out, and the table of sources."""

    checks: tuple[Check, ...]
    sources: tuple[SourceRow, ...]

    @property
    def verdict(self) -> Literal["promote", "refuse"]:
        return "promote" if isinstance(self, Promote) else "refuse"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not, a sentence each; empty for `Promote`."""
        return tuple(check.sentence for check in self.checks if check.outcome == "failed")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a human should look at although it does not decide."""
        return tuple(check.sentence for check in self.checks if check.outcome == "flagged")

    def to_json(self) -> dict[str, Any]:
        """JSON values; for `decision.json`."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "sources": [asdict(row) for row in self.sources],
        }


class Promote(Decision):
    """The candidate may serve."""


class Refuse(Decision):
    """It may not, for `reasons`."""


def decide(candidate: Judged, current: Judged | None, policy: Policy) -> Promote | Refuse:
    """Compare a candidate with the version that serves, on films that neither learned from.

    Figures at a threshold and the floors stand on all of the candidate's held-out films,
    the comparison on those that both answered. Without a `current` version (the first
    model ever) the floors and the look for confounding decide alone.

    Raises `ValueError` when the two disagree about a film's label or name a film twice.
    """
    own = Answers.of(candidate)
    pair = paired(candidate, current) if current is not None else None
    made = [_enough(own, policy, "the candidate's held-out part")]
    if pair is not None:
        made.append(_enough(pair[0], policy, "the comparison"))
    if all(check.outcome == "passed" for check in made):
        made += checks.floors(own, policy)
        if pair is not None:
            made += checks.comparison(*pair, policy)
        made.append(confounding(own, pair, policy))
    rows = checks.source_rows(*(pair or (own, None)))
    refused = any(check.outcome == "failed" for check in made)
    return (Refuse if refused else Promote)(checks=tuple(made), sources=rows)


def shortage(patients: Sequence[str], truth: Sequence[bool], policy: Policy) -> str | None:
    """Why these held-out films (a patient and a truth each) are too few to judge by; None
    when they are enough."""
    check = checks.enough_patients(patients, truth, policy, "the held-out part")
    return None if check.outcome == "passed" else check.sentence


def _enough(answers: Answers, policy: Policy, where: str) -> Check:
    return checks.enough_patients(answers.patients, answers.truth, policy, where)
