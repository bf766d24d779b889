"""From anatomy to film: exposure, noise and size. Pure and seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicomnode.testing.phantom_anatomy import Patient, render_anatomy, render_opacities

_FINEST_ANATOMY = 400
"""Pixels on the long side at which anatomy is computed; it is smooth, so larger phantoms
are resampled from it and only the noise is drawn at full size."""

Field = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A phantom and the truth about it.

    `attenuation` and `opacities` are float32 [rows, columns] in 0..1; `opacities` is 0
    where nothing was added, and everywhere in a negative phantom.
    """

    attenuation: Field
    opacities: Field


def draw_phantom(
    seed: int, positive: bool, rows: int = 512, columns: int = 512, *, take: int = 1
) -> Phantom:
    """The phantom of `seed`; its positive and negative twin share anatomy and exposure.

    Another `take` is the same patient filmed again: only exposure and noise differ.
    Raises ValueError when `rows` or `columns` is below 32.
    """
    if min(rows, columns) < 32:
        raise ValueError(f"a phantom needs at least 32 rows and columns, got {rows} x {columns}")
    patient = Patient.draw(np.random.default_rng((seed, 1))).filmed_again(take)
    shrink = min(1.0, _FINEST_ANATOMY / max(rows, columns))
    grid = (max(32, round(rows * shrink)), max(32, round(columns * shrink)))
    scene = render_anatomy(patient, np.random.default_rng((seed, 2)), *grid)
    attenuation = scene.attenuation
    opacities = np.zeros_like(attenuation)
    if positive:
        opacities = render_opacities(patient, scene, np.random.default_rng((seed, 3)))
        attenuation = attenuation + opacities * patient.opacity_density
    film = _resized(_film(attenuation, patient), rows, columns)
    film += _noise(film, patient, np.random.default_rng((seed, 4, take)))
    np.clip(film, 0.0, 1.0, out=film)
    return Phantom(
        attenuation=film, opacities=np.clip(_resized(opacities, rows, columns), 0.0, 1.0)
    )


def chest_phantom(
    seed: int, positive: bool, rows: int = 512, columns: int = 512, *, take: int = 1
) -> Field:
    """The attenuation image of a phantom, float32 [rows, columns] in 0..1, bright = dense."""
    return draw_phantom(seed, positive, rows, columns, take=take).attenuation


def _film(attenuation: Field, patient: Patient) -> Field:
    """Attenuation to film density: a soft S-curve, moved by the exposure."""
    curve = (attenuation - patient.exposure) * np.float32(patient.contrast)
    film: Field = (0.5 + 0.5 * np.tanh(curve)).astype(np.float32)
    return film


def _noise(film: Field, patient: Patient, rng: np.random.Generator) -> Field:
    """Quantum noise: fewer photons behind dense tissue, so more noise there."""
    fine = rng.standard_normal(film.shape, dtype=np.float32)
    return fine * (np.float32(patient.noise) * (0.35 + film))


def _resized(field: Field, rows: int, columns: int) -> Field:
    if field.shape == (rows, columns):
        return field.copy()
    image = Image.fromarray(field).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.array(image, dtype=np.float32)
