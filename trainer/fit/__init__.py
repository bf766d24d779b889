"""One training run, from the films to the published version.

=============  ==========================================================
`run`          the steps of a run in their order: `trained`, `fit`
`learning`     features, training and predictions, over the workers
`card`         what the version says of itself
`progress`     how it tells what it does
`storage`      a full disk is one clear error
=============  ==========================================================

Several workers run the same code; the chief alone writes models, cards and reports.
"""

from __future__ import annotations

from trainer.fit.progress import Progress
from trainer.fit.run import Candidate, FitResult, fit, trained

__all__ = ["Candidate", "FitResult", "Progress", "fit", "trained"]
