"""What the node says about an image: facts of the domain, frozen.

No clock, no network, no files. Everything that a report needs to be written, in the
words of the standard.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class Reason(enum.Enum):
    """Why an image was not evaluated. The value is the label of the metric
    `dicomnode_not_evaluated_total{reason}`."""

    MODALITY = "modality"
    SOP_CLASS = "sop_class"
    BODY_PART = "body_part"
    VIEW = "view"
    SPECIES = "species"
    LOCALIZER = "localizer"
    SECONDARY_CAPTURE = "secondary_capture"
    OWN_PRODUCT = "own_product"
    PIXEL_SIZE = "pixel_size"
    """Too few rows or columns, or a shape that no chest radiograph has."""
    NO_PIXELS = "no_pixels"
    CONTRAST = "contrast"
    """The image is blank or nearly so after its look-up tables."""
    APPEARANCE = "appearance"
    """The pixels do not look like a frontal chest radiograph."""
    UNDECODABLE = "undecodable"
    INFERENCE_FAILED = "inference_failed"


@dataclass(frozen=True, kw_only=True)
class NotEvaluated:
    """The node refuses to judge an image, and says why."""

    reason: Reason
    detail: str
    """One sentence for the report: what was found and what was expected."""


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image that passed the gate, ready for the model.

    `tensor` is uint8 [height, width, 3]; `display` is uint8 [rows, columns], the same
    8-bit greys (0 black, bright = dense) with the long side at most 1024 pixels, for
    the heatmap.
    """

    tensor: NDArray[np.uint8]
    display: NDArray[np.uint8]
    decode_seconds: float
    preprocess_seconds: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model server answered for one image.

    `probabilities` has one entry per class of the card. `cam` is float32 [h, w] in
    0..1 for the positive class, `embedding` float32 [d]; both are None when the model
    has no `explain` signature.
    """

    model_name: str
    model_version: int
    backend: str
    probabilities: tuple[float, ...]
    cam: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A judged image: the probability of the positive class and what follows from it."""

    model_name: str
    model_version: int
    backend: str
    probability: float
    """Of the positive class, 0..1, calibrated as the card says."""
    threshold: float
    present: bool
    cam: NDArray[np.float32] | None = None
    display_path: str | None = None
    """Where the 8-bit image for the heatmap waits, relative to the store's root."""
    embedding: NDArray[np.float32] | None = None
    """float32 [d], kept for the trainer and the drift watch; no report says it."""


Outcome = Evaluated | NotEvaluated
