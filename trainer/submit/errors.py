"""What ends a submission.

::

    TrainerError
    ├── CandidateRefused     the gate kept the candidate: a result, no failure   exit code 1
    └── ClusterError         the cluster refused, was lost, or the Job failed    exit code 1
        ├── Refused              the API server said no, for good
        ├── NameTaken            an object of that name is there already
        ├── Gone                 the object, or that place in a watch, is no more
        └── Unreachable          no answer; asking again may help
"""

from __future__ import annotations

from trainer.errors import TrainerError


class CandidateRefused(TrainerError):
    """The retraining ran as it should, and its gate published nothing.

    Exit code 1, as of `trainer retrain`; what tells it from a failure is the code.
    """

    code = "refused"


class ClusterError(TrainerError):
    """The cluster refused, was lost, or the Job failed."""

    code = "cluster"


class Refused(ClusterError):
    """The API server said no, for good."""


class NameTaken(ClusterError):
    """An object of that name is there already."""


class Gone(ClusterError):
    """The object, or that place in a watch, is no more."""


class Unreachable(ClusterError):
    """No answer, or one that says: later. Asking again may help."""
