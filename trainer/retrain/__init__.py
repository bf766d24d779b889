"""The monthly run: what the node has collected becomes a candidate, and perhaps a version.

Snapshot of films and labels -> train -> candidate and current version on the same held-out
patients -> gate -> publish, or refuse and say why. Every run leaves a folder with its
snapshot, its report and its decision. Of several workers only the chief takes the
snapshot, judges and publishes.
"""

from __future__ import annotations

from trainer.retrain.flow import retrain
from trainer.retrain.outcome import Outcome
from trainer.retrain.preview import Preview, preview
from trainer.retrain.settings import RetrainSettings, load

__all__ = ["Outcome", "Preview", "RetrainSettings", "load", "preview", "retrain"]
