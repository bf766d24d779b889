"""Phantoms: computer-generated frontal chest radiographs, as arrays, DICOM and folders.

A phantom has the anatomy that a frontal chest film shows (soft tissue, lungs, heart,
mediastinum, diaphragm, ribs, clavicles, scapulae, spine, vessels) with the variation of
patients and exposures, and, when it is *positive*, patchy, peripheral, mostly lower-zone,
bilateral soft opacities. It stands in for patients in demonstrations and tests. A model
that separates phantoms has learned nothing about disease.

Seeded: the same arguments give the same pixels and the same UIDs. Needs numpy, Pillow and
pydicom with its codecs, nothing else. `phantom_film` and `phantom_anatomy` draw,
`phantom_dicom` writes the headers, `phantom_folder` writes training folders.
"""

from __future__ import annotations

from dicomnode.testing.phantom_dicom import (
    TRANSFER_SYNTAXES,
    part10_bytes,
    phantom_dataset,
    phantom_study,
)
from dicomnode.testing.phantom_film import Phantom, chest_phantom, draw_phantom
from dicomnode.testing.phantom_folder import write_training_folder

__all__ = [
    "TRANSFER_SYNTAXES",
    "Phantom",
    "chest_phantom",
    "draw_phantom",
    "part10_bytes",
    "phantom_dataset",
    "phantom_study",
    "write_training_folder",
]
