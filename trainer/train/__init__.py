"""Gradient descent: epochs of steps over the workers, the best epoch kept.

Adam and cross-entropy (on two softmax outputs its binary and its categorical form have the
same gradient). The rate falls as 1/(1 + step x rate/epochs), as the thesis had it, or along a
cosine to 0, which lets batch statistics settle in a network that learns from scratch.

Training is synchronous and data-parallel: every worker takes its rows of each global batch
(`order`), gradients are summed, and all make the same step (`steps`). Order, dropout and
augmentation follow from seed, epoch and film, never from the number of workers; so one worker
and several come to the same network but for rounding, and a run that continues from a
checkpoint (`checkpoint`) to the same as an undisturbed one.
"""

from __future__ import annotations

from trainer.train.checkpoint import Checkpoint, Epoch, State
from trainer.train.loop import Inputs, Part, Selected, predict, train

__all__ = ["Checkpoint", "Epoch", "Inputs", "Part", "Selected", "State", "predict", "train"]
