"""The anatomy of a phantom: smooth shapes in film coordinates, added up as attenuation.

Film coordinates run from -1 (left edge of the film, the patient's right; top) to 1. Every
structure is a product of logistic edges, so the whole chest costs a few dozen array
operations. Names are those of radiographic anatomy; lengths are in half film widths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Field = NDArray[Any]
"""float32 [rows, columns]; numpy keeps it so in arithmetic, its stubs do not know."""


@dataclass(frozen=True, kw_only=True)
class Contour:
    """A border as half width over height: knots from the films' look, smoothed once."""

    heights: NDArray[np.float32]
    widths: NDArray[np.float32]

    @classmethod
    def through(cls, *knots: tuple[float, float], smooth: int = 17) -> Self:
        heights = np.linspace(-1.4, 1.4, 401, dtype=np.float32)
        at, half_widths = zip(*knots, strict=True)
        widths = np.interp(heights, at, half_widths)
        kernel = np.hanning(smooth + 2)
        padded = np.pad(widths, smooth, mode="edge")
        widths = np.convolve(padded, kernel / kernel.sum(), mode="same")[smooth:-smooth]
        return cls(heights=heights, widths=widths.astype(np.float32))

    def at(self, v: Field) -> Field:
        """The half width at each height of `v`; the table is finer than a pixel."""
        index = np.clip((v + np.float32(1.4)) * np.float32(400 / 2.8) + 0.5, 0, 400)
        found: Field = self.widths[index.astype(np.int16)]
        return found


_CAGE = Contour.through(
    (-0.90, -0.06), (-0.85, 0.06), (-0.81, 0.20), (-0.75, 0.32), (-0.66, 0.42), (-0.50, 0.53),
    (-0.30, 0.625), (-0.10, 0.69), (0.10, 0.735), (0.30, 0.755), (0.55, 0.775), (1.4, 0.76),
    smooth=21,
)  # fmt: skip
_LEFT_BORDER = Contour.through(
    (-1.4, 0.10), (-0.80, 0.105), (-0.55, 0.115), (-0.36, 0.145), (-0.30, 0.180), (-0.24, 0.178),
    (-0.17, 0.150), (-0.10, 0.178), (0.00, 0.215), (0.10, 0.290), (0.20, 0.370), (0.30, 0.425),
    (0.38, 0.440), (0.46, 0.420), (0.55, 0.36), (0.70, 0.30), (1.4, 0.30),
    smooth=13,
)  # fmt: skip
_RIGHT_BORDER = Contour.through(
    (-1.4, 0.09), (-0.80, 0.095), (-0.55, 0.105), (-0.30, 0.110), (-0.12, 0.120), (0.00, 0.150),
    (0.12, 0.190), (0.24, 0.205), (0.34, 0.185), (0.46, 0.155), (1.4, 0.15),
    smooth=17,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What differs from one phantom to the next."""

    rotation: float
    """Radians; the patient is never quite straight."""
    scale: float
    shift: tuple[float, float]
    turn: float
    """Rotation about the long axis: one lung looks wider than the other."""
    width: float
    """Of the rib cage, relative to the average."""
    inspiration: float
    """How far the diaphragm lies below the average."""
    heart: float
    """Size of the heart relative to the average."""
    tissue: float
    """Thickness of soft tissue relative to the average."""
    ribs: float
    """How plainly the ribs show."""
    rib_spacing: float
    rib_phase: float
    vessels: float
    breast: float
    exposure: float
    contrast: float
    noise: float
    opacity_density: float
    marker: bool
    """A lead letter R lies on the film."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        def between(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        return cls(
            rotation=float(np.clip(rng.normal(0.0, 0.022), -0.06, 0.06)),
            scale=between(0.93, 1.06),
            shift=(between(-0.04, 0.04), between(-0.04, 0.05)),
            turn=between(-0.045, 0.045),
            width=between(0.93, 1.07),
            inspiration=between(-0.07, 0.07),
            heart=between(0.86, 1.17),
            tissue=between(0.88, 1.14),
            ribs=between(0.7, 1.2),
            rib_spacing=between(0.158, 0.182),
            rib_phase=between(0.0, 1.0),
            vessels=between(0.65, 1.25),
            breast=max(0.0, between(-0.08, 0.08)),
            exposure=between(0.46, 0.58),
            contrast=between(1.75, 2.25),
            noise=between(0.010, 0.026),
            opacity_density=between(0.36, 0.50),
            marker=between(0.0, 1.0) < 0.7,
        )

    def filmed_again(self, take: int) -> Self:
        """The same patient on film number `take` (1, 2 ...): a little more or less exposed."""
        step = 0.012 * ((take - 1) % 5) * (-1) ** take
        return replace(self, exposure=self.exposure + step)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Attenuation (about 0..1.2) and the geometry that the opacities are placed by."""

    attenuation: Field
    lungs: Field
    """0..1, soft edges."""
    u: Field
    v: Field


def render_anatomy(patient: Patient, rng: np.random.Generator, rows: int, columns: int) -> Scene:
    """The chest of `patient` on a grid of `rows` x `columns`."""
    u, v = _coordinates(patient, rows, columns)
    side = np.abs(u)
    left = _edge(u, 0.03)  # the patient's left lies on the right of the film
    cage = _cage_half_width(patient, v)
    diaphragm = _diaphragm(patient, side, left)
    in_cage = _edge(cage - side, 0.011)
    above = _edge(diaphragm - v, 0.009)
    central, heart = _central_shadow(patient, u, v)
    lungs = in_cage * above * (1.0 - central)

    body, thickness = _body(patient, side, v)
    attenuation = (0.40 + 0.24 * thickness) * np.float32(patient.tissue)
    attenuation += (1.0 - above) * 0.26 * _edge(cage - side, 0.05) + 0.07 * _edge(v - 0.5, 0.13)
    attenuation -= lungs * (0.16 + 0.36 * _lung_depth(side, cage, v))
    attenuation += central * (0.13 + 0.12 * heart) * (0.55 + 0.45 * above)
    attenuation += _spine(u, v) + _hila(u, v) * lungs
    attenuation -= _air(patient, u, v)
    attenuation += patient.breast * _breasts(side, v)
    attenuation += patient.ribs * _ribs(patient, v, side, cage, left) * (0.45 + 0.55 * above)
    attenuation += 0.12 * _clavicles(patient, u, v, side) + 0.045 * _scapulae(side, v)
    attenuation += (0.19 * patient.vessels) * _vessels(rng, u, v) * lungs
    attenuation += _cloud(rng, rows, columns, cells=7) * 0.020
    attenuation += _cloud(rng, rows, columns, cells=60) * 0.010
    attenuation *= body
    if patient.marker:
        attenuation += 1.2 * _marker(rows, columns)
    return Scene(attenuation=attenuation.astype(np.float32), lungs=lungs, u=u, v=v)


def render_opacities(patient: Patient, scene: Scene, rng: np.random.Generator) -> Field:
    """Patchy peripheral opacities in both lungs, mostly in the lower zones; 0..1."""
    opacities = np.zeros_like(scene.lungs)
    for sign in (-1.0, 1.0):
        for _ in range(int(rng.integers(3, 6))):
            v0 = float(np.clip(rng.normal(0.16, 0.17), -0.40, 0.42))
            cage = float(_cage_half_width(patient, np.array([v0], np.float32))[0])
            u0 = sign * (cage - float(rng.uniform(0.05, 0.24)))
            long, short = float(rng.uniform(0.11, 0.22)), float(rng.uniform(0.07, 0.13))
            tilt = float(rng.uniform(-0.5, 0.5)) + sign * 0.2
            du, dv = scene.u - np.float32(u0), scene.v - np.float32(v0)
            cosine, sine = math.cos(tilt), math.sin(tilt)
            along = (dv * cosine + du * sine) / long
            across = (du * cosine - dv * sine) / short
            blob = np.exp(-0.9 * (along**2 + across**2)).astype(np.float32)
            opacities += blob * np.float32(rng.uniform(0.55, 1.0))
    rows, columns = opacities.shape
    patches = 1.0 + 0.55 * _cloud(rng, rows, columns, cells=13)
    patches += 0.30 * _cloud(rng, rows, columns, cells=34)
    soft = 1.0 - np.exp(-1.3 * opacities * np.clip(patches, 0.15, 2.0))
    return (soft * scene.lungs).astype(np.float32)


# ------------------------------------------------------------------------------ structures


def _coordinates(patient: Patient, rows: int, columns: int) -> tuple[Field, Field]:
    x = np.linspace(-1.0, 1.0, columns, dtype=np.float32)[None, :]
    y = np.linspace(-1.0, 1.0, rows, dtype=np.float32)[:, None]
    cosine, sine = math.cos(patient.rotation), math.sin(patient.rotation)
    u = (x * cosine + y * sine) / patient.scale - patient.shift[0]
    v = (y * cosine - x * sine) / patient.scale - patient.shift[1]
    u = u + patient.turn * (1.0 - np.minimum(u * u, 1.0))
    return u.astype(np.float32), v.astype(np.float32)


def _edge(distance: Field, softness: float) -> Field:
    """0 outside, 1 inside, soft over about `softness`."""
    return (0.5 + 0.5 * np.tanh(distance * np.float32(0.5 / softness))).astype(np.float32)


def _bell(distance: Field, width: float) -> Field:
    """Gaussian, 1 in the middle."""
    scaled = distance * np.float32(1.0 / width)
    found: Field = np.exp(-scaled * scaled)
    return found


def _cage_half_width(patient: Patient, v: Field) -> Field:
    """Inner chest wall, from the blunt apex to the costophrenic angle."""
    return _CAGE.at(v) * np.float32(patient.width)


def _diaphragm(patient: Patient, side: Field, left: Field) -> Field:
    """Height of the domes; the right one lies higher, the angles dip to the sides."""
    off = side - (0.35 + 0.05 * left)
    lateral = np.maximum(off, 0.0)
    dome = 0.40 + 0.06 * left + patient.inspiration
    return (dome + 0.35 * off * off + 2.3 * lateral * lateral * lateral).astype(np.float32)


def _central_shadow(patient: Patient, u: Field, v: Field) -> tuple[Field, Field]:
    """Mediastinum and heart as one silhouette, and where in it the heart lies."""
    height = v - np.float32(0.6 * patient.inspiration)
    grow = 1.0 + (patient.heart - 1.0) * _edge(height, 0.06)
    to_left = _LEFT_BORDER.at(height) * grow - u
    to_right = _RIGHT_BORDER.at(height) * grow + u
    silhouette = _edge(np.minimum(to_left, to_right), 0.012)
    bulk = np.minimum(np.minimum(to_left, to_right) / 0.16, 1.0)
    return silhouette, np.maximum(bulk, 0.0) * _edge(height + 0.02, 0.07)


def _body(patient: Patient, side: Field, v: Field) -> tuple[Field, Field]:
    """Silhouette with neck and shoulders, and the relative thickness of the trunk."""
    trunk = 0.80 * patient.width + 0.13 * patient.tissue
    high = (v + 0.62) / 0.34
    outer = np.maximum(side - 0.62, 0.0)
    shoulder = -0.985 + 0.20 * np.maximum(side - 0.24, 0.0) + 0.55 * outer * outer
    arms = trunk + 0.16 * np.exp(-high * high) + 0.035 * (v - 0.2)
    silhouette = _edge(arms - side, 0.008) * np.maximum(
        _edge(v - shoulder, 0.014), _edge(0.26 - side, 0.018)
    )
    ratio = side / (arms + 0.02)
    thickness = np.sqrt(np.maximum(1.0 - ratio * ratio, 0.0))
    return silhouette, thickness * (0.78 + 0.22 * _edge(v + 0.55, 0.16))


def _lung_depth(side: Field, cage: Field, v: Field) -> Field:
    """How much air the beam crosses: least at the wall and the apex."""
    from_wall = np.clip((cage - side) / 0.42, 0.0, 1.0)
    depth = np.sqrt(from_wall * (2.0 - from_wall))
    return (depth * (0.62 + 0.38 * _edge(v + 0.50, 0.12))).astype(np.float32)


def _spine(u: Field, v: Field) -> Field:
    column = _edge(0.068 - np.abs(u), 0.012)
    vertebrae = 0.75 + 0.25 * np.cos(v * np.float32(2 * np.pi / 0.155))
    pedicles = _bell(np.abs(u) - 0.048, 0.014) * np.maximum(vertebrae - 0.6, 0.0)
    return (0.075 * column * vertebrae + 0.09 * pedicles).astype(np.float32)


def _hila(u: Field, v: Field) -> Field:
    right = np.exp(-(((u + 0.185) / 0.075) ** 2 + ((v - 0.02) / 0.13) ** 2))
    left = np.exp(-(((u - 0.225) / 0.065) ** 2 + ((v + 0.04) / 0.12) ** 2))
    return (0.13 * (right + left)).astype(np.float32)


def _air(patient: Patient, u: Field, v: Field) -> Field:
    """Trachea, main bronchi and the gastric bubble."""
    trachea = _edge(0.034 - np.abs(u + 0.008), 0.012) * _edge(-0.22 - v, 0.03)
    bronchi = _edge(0.022 - np.abs(v + 0.20 - 0.75 * np.abs(u)), 0.010) * _edge(
        0.15 - np.abs(u), 0.02
    )
    bubble = np.hypot((u - 0.36) / 0.15, (v - 0.61 - patient.inspiration) / 0.075)
    return (0.11 * trachea + 0.05 * bronchi + 0.17 * _edge(1.0 - bubble, 0.10)).astype(np.float32)


def _breasts(side: Field, v: Field) -> Field:
    return _edge(1.0 - np.hypot((side - 0.46) / 0.30, (v - 0.22) / 0.34), 0.07)


def _ribs(patient: Patient, v: Field, side: Field, cage: Field, left: Field) -> Field:
    """Posterior ribs arch down from the spine, anterior ribs climb to the sides.

    Each family is one periodic function of the height above a common arc, so twelve ribs
    cost as much as one.
    """
    spacing = patient.rib_spacing
    t = side / np.maximum(cage, 0.05)
    posterior = v - (-0.10 * t + 0.36 * t * t) + 0.10 * v * t
    anterior = v + 0.34 * t - 0.62 * t * t * t + 0.05
    phase = patient.rib_phase + 0.06 * left
    inside = _edge(cage + 0.035 - side, 0.012) * _edge(v + 0.86, 0.02) * _edge(0.80 - v, 0.08)
    back = _bone(posterior / spacing + phase, 0.24) * _edge(side - 0.06, 0.015)
    front = _bone(anterior / (spacing * 1.12) + phase * 0.7, 0.25) * _edge(side - 0.34, 0.05)
    front = front * _edge(v + 0.62, 0.05)
    rim = _bell(cage + 0.008 - side, 0.022)
    return (inside * (0.095 * back + 0.055 * front + 0.045 * rim)).astype(np.float32)


def _bone(cycles: Field, half_width: float) -> Field:
    """A rib in cross section: a flat shadow whose two cortices are a little denser."""
    distance = np.abs(cycles - np.round(cycles))
    shadow = _edge(half_width - distance, 0.028)
    cortex = _bell(distance - half_width * 0.88, 0.045)
    return (0.72 * shadow + 0.42 * cortex).astype(np.float32)


def _clavicles(patient: Patient, u: Field, v: Field, side: Field) -> Field:
    lift = 0.9 * patient.turn * np.sign(u)
    arc = -0.50 - lift - 0.33 * (side - 0.08) + 0.035 * np.sin((side - 0.08) * 8.0)
    distance = np.minimum(np.abs(v - arc) / 0.034, 2.0)
    shaft = _edge(1.0 - distance, 0.09) * (0.72 + 0.38 * np.minimum(distance * distance, 1.0))
    found: Field = shaft * _edge(side - 0.075, 0.012) * _edge(0.74 - side, 0.02)
    return found


def _scapulae(side: Field, v: Field) -> Field:
    edge = 0.66 - 0.10 * (v + 0.55)
    blade = _edge(side - edge, 0.012) * _edge(v + 0.72, 0.03) * _edge(0.02 - v + side - 0.72, 0.04)
    spine = _bell(v + 0.66 + 0.25 * (side - 0.6), 0.03) * _edge(side - 0.58, 0.03)
    return blade + 0.8 * spine


def _vessels(rng: np.random.Generator, u: Field, v: Field) -> Field:
    """Vessels that leave the hila, branch and taper: drawn as lines, then softened."""
    rows, columns = u.shape
    canvas = Image.new("L", (columns, rows))
    pen = ImageDraw.Draw(canvas)
    unit = min(rows, columns) / 2.0
    centre_x = float(np.interp(0.0, u[rows // 2], np.arange(columns)))
    centre_y = float(np.interp(0.0, v[:, columns // 2], np.arange(rows)))
    for sign, hilum in ((-1.0, (-0.15, 0.0)), (1.0, (0.19, -0.05))):
        for angle in np.linspace(-1.35, 1.45, 11) + rng.normal(0.0, 0.08, 11):
            stack = [(*hilum, float(angle), float(rng.uniform(0.016, 0.026)), 0)]
            while stack:
                a, b, heading, thick, depth = stack.pop()
                length = float(rng.uniform(0.09, 0.17))
                c, d = a + sign * np.cos(heading) * length, b + np.sin(heading) * length
                ends = [(centre_x + p * unit, centre_y + q * unit) for p, q in ((a, b), (c, d))]
                grey = int(255 * max(0.25, 1.0 - 0.21 * depth))
                pen.line(ends, fill=grey, width=max(1, round(thick * unit)))
                if depth < 4:
                    turn = float(rng.normal(0.0, 0.22))
                    stack.append((c, d, heading + turn, thick * 0.74, depth + 1))
                    if rng.random() < 0.45:
                        stack.append((c, d, heading - 2.2 * turn, thick * 0.6, depth + 1))
    soft = canvas.filter(ImageFilter.GaussianBlur(max(0.6, unit * 0.0065)))
    return np.asarray(soft, dtype=np.float32) / np.float32(255.0)


def _cloud(rng: np.random.Generator, rows: int, columns: int, *, cells: int) -> Field:
    """Smooth noise of unit variance with about `cells` cells along a side."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    image = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.array(image, dtype=np.float32)


def _marker(rows: int, columns: int) -> Field:
    """The lead letter that marks the patient's right."""
    canvas = Image.new("L", (columns, rows))
    pen = ImageDraw.Draw(canvas)
    pen.text((columns * 0.045, rows * 0.055), "R", fill=255, font_size=max(10, rows // 17))
    return np.asarray(canvas, dtype=np.float32) / np.float32(255.0)
