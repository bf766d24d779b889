"""The model servers as the node sees them: adapters for `ports.Predictor` and `ports.ModelCards`.

`client` asks one of several backends and another when that one fails; `balancer` holds
the decisions (which backend, what a status means, when to leave one out), `backend` one
channel, `resolver` the addresses, `answers` the reading of a response, `cards` the model
cards by version, `embedded` the model server that the node starts itself.

The one home of grpc in the node. Never imports tensorflow.
"""

from __future__ import annotations

from dicomnode.serving.cards import DirectoryModelCards
from dicomnode.serving.client import ServingClient

__all__ = ["DirectoryModelCards", "ServingClient"]
