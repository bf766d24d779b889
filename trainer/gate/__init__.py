"""May a candidate take the place of the version that serves?

Pure: answers of both on the same held-out films in, `Promote` or `Refuse` out, each with
the checks that were made, as sentences and as figures. No files, no clock, no tensorflow.
"""

from __future__ import annotations

from trainer.gate.decision import (
    Check,
    Decision,
    Judged,
    Promote,
    Refuse,
    SourceRow,
    decide,
    shortage,
)
from trainer.gate.paired import Difference
from trainer.gate.policy import Policy, policy_from

__all__ = [
    "Check",
    "Decision",
    "Difference",
    "Judged",
    "Policy",
    "Promote",
    "Refuse",
    "SourceRow",
    "decide",
    "policy_from",
    "shortage",
]
