"""The picture of a heatmap: image, activations, scale and words on one canvas.

What is burnt in survives viewers that show nothing but pixels: the finding, its numbers,
who says so, and that it is investigational. No patient data.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicomnode.sr.colours import ramp
from dicomnode.sr.content import NOTICE, HeatmapContent

_LONG_SIDE = 896
_NARROWEST = 640
_BACKGROUND = (14, 16, 20)
_PANEL = (24, 28, 34)
_INK = (236, 239, 244)
_FAINT = (160, 168, 180)
_WARNING = (255, 196, 61)
_PRESENT = (255, 122, 89)
_ABSENT = (122, 204, 255)
_STRONGEST = 0.62
"""Share of colour where the activation is 1; the anatomy stays visible beneath it."""


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where things go, in pixels. Banner on top, image, scale at its right, words below."""

    width: int
    height: int
    margin: int
    banner: int
    image: tuple[int, int, int, int]
    """left, top, width, height"""
    scale: tuple[int, int, int, int]
    words_top: int


_GRID_COLUMNS = 3
_GAP = 8


def heatmap_pixels(content: HeatmapContent, *others: HeatmapContent) -> NDArray[np.uint8]:
    """The finished picture, uint8 [rows, columns, 3]: one panel, or a grid of panels."""
    panels = [_panel(panel) for panel in (content, *others)]
    if len(panels) == 1:
        return np.asarray(panels[0], dtype=np.uint8)
    width = max(panel.width for panel in panels)
    height = max(panel.height for panel in panels)
    columns = min(_GRID_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP)
    canvas = Image.new("RGB", size, _BACKGROUND)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        canvas.paste(panel, (column * (width + _GAP), row * (height + _GAP)))
    return np.asarray(canvas, dtype=np.uint8)


def _panel(content: HeatmapContent) -> Image.Image:
    picture = _overlay(content.display, content.activations)
    layout = _layout(picture.width, picture.height)
    canvas = Image.new("RGB", (layout.width, layout.height), _BACKGROUND)
    canvas.paste(picture, layout.image[:2])
    pen = ImageDraw.Draw(canvas)
    _draw_banner(pen, layout)
    _draw_scale(canvas, pen, layout)
    _draw_words(pen, layout, content)
    return canvas


def heatmap_png(content: HeatmapContent, *others: HeatmapContent) -> bytes:
    """The finished picture as a PNG file, for those without a DICOM viewer."""
    buffer = BytesIO()
    Image.fromarray(heatmap_pixels(content, *others)).save(buffer, format="PNG")
    return buffer.getvalue()


def _overlay(display: NDArray[np.uint8], cam: NDArray[np.float32]) -> Image.Image:
    """The grey image, long side 896 pixels, with the activations smoothly spread over it."""
    rows, columns = display.shape
    zoom = _LONG_SIDE / max(rows, columns)
    size = (max(1, round(columns * zoom)), max(1, round(rows * zoom)))
    grey = np.asarray(
        Image.fromarray(display).resize(size, Image.Resampling.LANCZOS), dtype=np.float32
    )
    spread = Image.fromarray(cam.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    activation = np.clip(np.asarray(spread, dtype=np.float32), 0, 1)
    colour = ramp()[np.round(activation * 255).astype(np.intp)].astype(np.float32)
    share = (_STRONGEST * np.sqrt(activation) * activation)[..., None]
    blended = grey[..., None] * (1 - share) + colour * share
    return Image.fromarray(np.round(blended).clip(0, 255).astype(np.uint8))


def _layout(width: int, height: int) -> _Layout:
    margin = 20
    banner = 48
    bar = 26
    scale_width = margin + bar + 56
    inner = max(width + scale_width, _NARROWEST - 2 * margin)
    left = margin + (inner - scale_width - width) // 2
    top = banner + margin
    scale_height = max(height, 220)
    middle = top + (scale_height - height) // 2
    return _Layout(
        width=inner + 2 * margin,
        height=top + scale_height + margin + 138,
        margin=margin,
        banner=banner,
        image=(left, middle, width, height),
        scale=(left + width + margin, top, bar, scale_height),
        words_top=top + scale_height + margin,
    )


def _draw_banner(pen: ImageDraw.ImageDraw, layout: _Layout) -> None:
    pen.rectangle((0, 0, layout.width, layout.banner), fill=_WARNING)
    font = _fitting(pen, NOTICE, layout.width - 2 * layout.margin, largest=26)
    pen.text(
        (layout.width / 2, layout.banner / 2), NOTICE, font=font, fill=_BACKGROUND, anchor="mm"
    )


def _draw_scale(canvas: Image.Image, pen: ImageDraw.ImageDraw, layout: _Layout) -> None:
    left, top, width, height = layout.scale
    title = 22
    top, height = top + title, height - title
    colours = ramp()[::-1][np.linspace(0, 255, height).astype(np.intp)]
    bar = np.repeat(colours[:, None, :], width, axis=1)
    canvas.paste(Image.fromarray(bar), (left, top))
    pen.rectangle((left, top, left + width - 1, top + height - 1), outline=_FAINT)
    font = _font(16)
    pen.text((left, top - 6), "activation", font=font, fill=_FAINT, anchor="ls")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + (height - 1) * (1 - tick)
        pen.line((left + width, y, left + width + 5, y), fill=_FAINT)
        anchor = {0.0: "ls", 1.0: "lt"}.get(tick, "lm")
        pen.text((left + width + 9, y), f"{tick:g}", font=font, fill=_INK, anchor=anchor)


def _draw_words(pen: ImageDraw.ImageDraw, layout: _Layout, content: HeatmapContent) -> None:
    outcome, card = content.outcome, content.card
    left, right = layout.margin, layout.width - layout.margin
    pen.rectangle((0, layout.words_top, layout.width, layout.height), fill=_PANEL)
    verdict = "PRESENT" if outcome.present else "ABSENT"
    colour = _PRESENT if outcome.present else _ABSENT
    pen.rectangle((0, layout.words_top, 8, layout.height), fill=colour)

    y = layout.words_top + 16
    badge = _font(30)
    space = right - left - pen.textlength(verdict, font=badge) - 24
    name = card.finding.meaning
    pen.text((left, y + 26), name, font=_fitting(pen, name, space, 30), fill=_INK, anchor="ls")
    pen.text((right, y + 26), verdict, font=badge, fill=colour, anchor="rs")

    numbers = f"probability {outcome.probability:.3f}     threshold {outcome.threshold:.3f}"
    font = _fitting(pen, numbers, right - left, 22)
    pen.text((left, y + 62), numbers, font=font, fill=_INK, anchor="ls")
    model = f"model {card.model_name} version {card.model_version}"
    node = f"dicomnode {content.software_version}"
    source = f"{model}  |  {node}"
    font = _fitting(pen, source, right - left, 18)
    pen.text((left, y + 100), source, font=font, fill=_FAINT, anchor="ls")


def _fitting(
    pen: ImageDraw.ImageDraw, text: str, width: float, largest: int
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font in which `text` is at most `width` pixels wide."""
    for size in range(largest, 8, -1):
        font = _font(size)
        if pen.textlength(text, font=font) <= width:
            return font
    return _font(8)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
