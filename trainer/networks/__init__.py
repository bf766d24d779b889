"""The networks: a backbone that looks, and a head that decides.

Every network takes float32 [N, h, w, 3] in 0..1, of the size that its preprocess profile has,
and scales it for itself, so the exported graph does too. The backbone is cut in two: `base`
never changes, so its answers are worth computing once; `tail` is trained with the head. A
backbone gives a feature map float32 [N, h, w, d]; the head turns that into probabilities
float32 [N, classes].

===================  =========  =========  ==========================================
Network              Head       Input      Backbone
===================  =========  =========  ==========================================
`tiny`               `small`    224 x 224  five convolutions that learn from scratch in
                                           seconds; for phantoms and demos
`vgg16`              `thesis`   224 x 224  0..1 as the thesis had it
`mobilenet`          `pooled`   224 x 224  scaled to -1..1
`mobilenet_v2`       `pooled`   224 x 224  scaled to -1..1
`efficientnet_b0`    `pooled`   224 x 224  scaled to 0..255; normalises for itself
`xception`           `pooled`   299 x 299  scaled to -1..1
`densenet121`        `pooled`   224 x 224  less ImageNet's mean, by its deviation
===================  =========  =========  ==========================================

The published VGG16 was trained on BGR in 0..255 less the mean (Simonyan and Zisserman 2014);
the thesis fed it 0..1, and its tables stand on that, so it is kept. The others get the range
that they were trained with (`preprocess_input` of keras.applications).

Nothing here reads films, trains or writes; keras is imported when a network is built.
"""

from __future__ import annotations

from trainer.networks.build import build, profile_of
from trainer.networks.network import Network

__all__ = ["Network", "build", "profile_of"]
