"""Named, versioned preprocess profiles.

The trainer and the node use this registry, and a model card names the profile it was
trained with, so training and serving cannot drift apart. A change of any step that moves
a pixel is a new version; old versions stay.

`unit-rgb-224/1` is the preprocessing of the first network of this kind: the picture is
stretched to 224 x 224 whatever its aspect (no letterbox: a black border would tell the
network the shape of the detector, which differs by hospital), by an antialiased bilinear
filter, the grey repeated in three channels. Integers are sent; the scaling to 0..1 or to
whatever the backbone expects is the first step of the exported graph.

`unit-rgb-299/1` is the same at 299 x 299, the size that Xception was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class PreprocessProfile:
    """One way to turn uint8 [rows, columns] into the model's input."""

    name: str
    """Name and version, as the model card has it."""
    height: int
    width: int
    scale: float
    """What the exported graph multiplies the uint8 tensor with ..."""
    offset: float
    """... and adds, to reach the range that `serving_default` takes."""
    channels: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    def apply(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [rows, columns] to uint8 [height, width, channels]."""
        grey_resized = resized(grey, self.width, self.height)
        return np.repeat(grey_resized[:, :, np.newaxis], self.channels, axis=2)


PROFILES: Mapping[str, PreprocessProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            PreprocessProfile(
                name="unit-rgb-224/1", height=224, width=224, scale=1 / 255, offset=0.0
            ),
            PreprocessProfile(
                name="unit-rgb-299/1", height=299, width=299, scale=1 / 255, offset=0.0
            ),
        )
    }
)


def profile_named(name: str) -> PreprocessProfile:
    """Raises ValueError that lists the known profiles."""
    if name not in PROFILES:
        raise ValueError(
            f"preprocess profile {name!r} is unknown; this version has {', '.join(PROFILES)}"
        )
    return PROFILES[name]


def resized(grey: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """uint8 [height, width], antialiased: every source pixel counts."""
    image = Image.fromarray(np.ascontiguousarray(grey))
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR), np.uint8)
