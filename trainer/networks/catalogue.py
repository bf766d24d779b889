"""What is particular to each backbone of keras.applications: constants only.

`scale` and `offset` bring 0..1 to the range that the published weights were trained with;
`widths` are the parameters without top of each width, so that a file tells its width by its
size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_UNIT_224: Final = "unit-rgb-224/1"
_UNIT_299: Final = "unit-rgb-299/1"

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: Final = (0.229, 0.224, 0.225)
"""Red, green, blue of ImageNet's photographs in 0..1 (torchvision's constants)."""


@dataclass(frozen=True, kw_only=True)
class Application:
    """One constructor of keras.applications."""

    constructor: str
    scale: tuple[float, ...] | float = 1.0
    offset: tuple[float, ...] | float = 0.0
    profile: str = _UNIT_224
    head: str = "pooled"
    widths: Mapping[int, float] = field(default_factory=dict)

    @property
    def scales(self) -> bool:
        return (self.scale, self.offset) != (1.0, 0.0)


APPLICATIONS: Final[Mapping[str, Application]] = {
    "vgg16": Application(constructor="VGG16", head="thesis"),
    "mobilenet": Application(
        constructor="MobileNet",
        scale=2.0,
        offset=-1.0,
        widths={218_544: 0.25, 829_536: 0.5, 1_832_976: 0.75, 3_228_864: 1.0},
    ),
    "mobilenet_v2": Application(
        constructor="MobileNetV2",
        scale=2.0,
        offset=-1.0,
        widths={
            410_208: 0.35,
            706_224: 0.5,
            1_382_064: 0.75,
            2_257_984: 1.0,
            3_766_048: 1.3,
            4_363_712: 1.4,
        },
    ),
    "efficientnet_b0": Application(constructor="EfficientNetB0", scale=255.0),
    "xception": Application(constructor="Xception", scale=2.0, offset=-1.0, profile=_UNIT_299),
    "densenet121": Application(
        constructor="DenseNet121",
        scale=tuple(1 / deviation for deviation in IMAGENET_DEVIATION),
        offset=tuple(
            -mean / deviation
            for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)
        ),
    ),
}
