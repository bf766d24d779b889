"""A training run on a Kubernetes cluster: one Indexed Job, from its manifest to its result.

`settings` reads the file; `manifests` and `pods` render the objects, `progress` says what an
observation means (pure: no clock, no network). `api` alone talks to the API server; `watching`
looks at it from threads, `following` waits for the outcome, `submission` is the whole
conversation: create, follow, clean up.
The Kubernetes client is imported inside functions: everything but the conversation works
without it.
"""

from __future__ import annotations

from trainer.submit.errors import CandidateRefused, ClusterError
from trainer.submit.following import Options
from trainer.submit.manifests import Manifests, generated_name, render
from trainer.submit.settings import Claim, ClusterSettings, Run, SubmitSettings, load
from trainer.submit.submission import submit

__all__ = [
    "CandidateRefused",
    "Claim",
    "ClusterError",
    "ClusterSettings",
    "Manifests",
    "Options",
    "Run",
    "SubmitSettings",
    "generated_name",
    "load",
    "render",
    "submit",
]
