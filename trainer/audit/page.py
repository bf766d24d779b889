"""The audit as one page that needs nothing beside it, with small pictures of the films."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from PIL import Image
from pydicom.dataset import Dataset

from dicomnode.errors import NotAnInstance, UndecodableImage
from dicomnode.imaging import pixels, preprocess, reading
from trainer import data
from trainer.audit.confounding import Confounding
from trainer.audit.findings import Finding, Mention
from trainer.audit.inspection import Audit, told
from trainer.data.cases import MAXIMUM_PIXELS
from trainer.data.manifest import private_file
from trainer.errors import DataError

MAXIMUM_PICTURES: Final = 24
"""Of one finding; the others are counted, and listed in the JSON."""
_SIDE: Final = 160

_STYLE: Final = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}
th,td{padding:.25rem .75rem;border-bottom:1px solid #8886;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.error{color:#b3261e}.warning{color:#9a6700}.note{color:#57606a}
@media (prefers-color-scheme:dark){.error{color:#ff8a80}.warning{color:#ffcc66}.note{color:#9da7b1}}
.films{display:flex;flex-wrap:wrap;gap:.75rem;margin:.5rem 0}
.group{display:flex;flex-wrap:wrap;gap:.5rem;border:1px solid #8886;padding:.5rem}
figure{margin:0;width:160px;font-size:12px;overflow-wrap:anywhere}
figure img,figure div{width:160px;height:160px;object-fit:contain;background:#000;color:#999;
display:grid;place-items:center}
.bar{display:inline-block;height:.7em;background:#57606a}
.private{border:1px solid #b3261e;padding:.5rem 1rem}
"""


def write_page(audit: Audit, out: Path, *, title: str) -> None:
    """Write the page, for its owner only (0600): its pictures are patients'.

    Films are named by their file names; no patient is. Raises `DataError`.
    """
    try:
        with private_file(out) as stream:
            stream.writelines(_page(audit, title))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}") from error


def _page(audit: Audit, title: str) -> Iterator[str]:
    cases = {case.name: case for case in audit.cases}
    yield (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Audit of {escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"<h1>Audit of {escape(title)}</h1>\n"
        '<p class="private">The pictures on this page are images of patients. Keep the file where '
        "the films are kept; it is for its owner only.</p>\n"
    )
    yield _summary(audit)
    for table in (audit.source, audit.view):
        yield _contingency(table)
    for finding in audit.findings:
        yield (
            f'<h2 id="{finding.kind.name.lower()}" class="{finding.kind.severity}">'
            f"{escape(finding.kind.title)}</h2>\n"
            f"<p>{escape(finding.sentence)}. {escape(finding.kind.meaning)}</p>\n"
        )
        yield from _pictures(finding, cases)
    yield "</html>\n"


def _summary(audit: Audit) -> str:
    classes = "".join(
        f"<tr><td>{escape(label)}<td class=n>{found['films']}<td class=n>{found['patients']}\n"
        for label, found in audit.classes.items()
    )
    findings = "".join(
        f'<tr><td class="{one.kind.severity}">{one.kind.severity}'
        f'<td><a href="#{one.kind.name.lower()}">{escape(one.kind.title)}</a>'
        f"<td>{escape(one.sentence)}<td>{'left out' if one.kind.drops else ''}\n"
        for one in audit.findings
    )
    return (
        f"<p>{len(audit.cases)} films, {audit.usable} usable; a cleaned manifest would leave out "
        f"{len(audit.dropped)}.</p>\n"
        f"<table><tr><th>class<th>films<th>patients\n{classes}</table>\n"
        f"<table><tr><th><th>finding<th><th>when cleaned\n{findings}</table>\n"
    )


def _contingency(table: Confounding) -> str:
    widest = max(max(row) for row in table.counts.values())
    head = "".join(f"<th>{escape(label)}<th>" for label in table.labels)
    rows = "".join(
        f"<tr><td>{escape(value or 'not stated')}"
        + "".join(
            f'<td class=n>{count}<td><span class="bar" style="width:{120 * count // widest}px">'
            "</span>"
            for count in row
        )
        + "\n"
        for value, row in table.counts.items()
    )
    return (
        f"<h2>Label by {table.by}</h2>\n<p>{escape(told(table))}.</p>\n"
        f"<table><tr><th>{table.by}{head}\n{rows}</table>\n"
    )


def _pictures(finding: Finding, cases: dict[str, data.Case]) -> Iterator[str]:
    if not finding.films:
        return
    shown = _shown(finding.films)
    yield '<div class="films">\n'
    for number, films in groupby(shown, key=lambda film: film.group):
        figures = [_figure(film, cases[film.name]) for film in films]
        yield from (
            figures if number is None else (f'<div class="group">{"".join(figures)}</div>\n',)
        )
    yield "</div>\n"
    if len(shown) < len(finding.films):
        yield f"<p>and {len(finding.films) - len(shown)} more films (all are in the JSON)</p>\n"


def _shown(films: Sequence[Mention]) -> Sequence[Mention]:
    """The first ones, without tearing a group apart unless it alone is too large."""
    shown = films[:MAXIMUM_PICTURES]
    if len(shown) < len(films) and shown[-1].group is not None:
        whole = [film for film in shown if film.group != films[len(shown)].group]
        return whole or shown
    return shown


def _figure(film: Mention, case: data.Case) -> str:
    picture = _thumbnail(case)
    image = f'<img alt="" src="{picture}">' if picture else "<div>no picture</div>"
    words = " · ".join(filter(None, (film.label, film.source, film.detail)))
    return f"<figure>{image}{escape(film.name)}<br>{escape(words)}</figure>\n"


def _thumbnail(case: data.Case) -> str | None:
    """A JPEG as data URI; None for what cannot be decoded."""
    try:
        content = data.content(case)
        if case.is_image_file:
            grey = preprocess.image_file_grey8(content, maximum_pixels=MAXIMUM_PIXELS)
        else:
            ds: Dataset = reading.read_instance(io.BytesIO(content))
            grey = pixels.grey8(ds, maximum_pixels=MAXIMUM_PIXELS)
    except (data.UnusableFilm, UndecodableImage, NotAnInstance):
        return None
    image = Image.fromarray(grey)
    image.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
