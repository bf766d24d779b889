"""One self-contained page about a model: `report.html`, its pictures beside it.

Nothing is loaded from anywhere, no script runs, and no patient is named: patients and films
are counted, for the name of a file may be somebody's. The names of films that were left out
lie beside the page in `skipped.csv`, for its owner only. It reads in print without colour.
"""

from __future__ import annotations

import base64
import csv
import errno
import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final, Protocol

from dicomnode.modelcard import ModelCard
from trainer.data.manifest import private_file
from trainer.errors import StorageFull, TrainerError
from trainer.evaluate import tables
from trainer.evaluate.assessment import Assessment
from trainer.evaluate.history import epochs_of
from trainer.evaluate.plots import pictures

REPORT_NAME: Final = "report.html"
FIGURES_NAME: Final = "assessment.json"
SKIPPED_NAME: Final = "skipped.csv"
_ALTERNATIVES: Final = {
    "roc": "ROC curve with the operating threshold",
    "precision_recall": "precision-recall curve",
    "reliability": "share of positive films over the probability told",
    "scores": "histogram of the scores by class",
    "sources": "sensitivity, specificity and AUC per source",
    "training": "loss and accuracy per epoch",
}
_LISTED_REASONS: Final = 100
_LEARNED: Final = {
    True: "it learned from none of them",
    False: "it learned from some of them, so the figures flatter it",
    None: "whether it learned from some of them is not known",
}


class SkippedFilm(Protocol):
    """The part of `data.Skipped` that is listed."""

    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...


def write_report(
    folder: Path,
    *,
    title: str,
    card: ModelCard,
    assessment: Assessment,
    history: Sequence[Any] = (),
    skipped: Sequence[SkippedFilm] = (),
    notes: Sequence[str] = (),
    held_out: bool | None = True,
) -> Path:
    """Write the page, its pictures and `assessment.json` into `folder`; returns the page.

    `history` holds `train.Epoch` records or mappings; empty for a model that is evaluated
    later. `held_out` says whether the model learned from none of the films, None that nobody
    knows. Raises `StorageFull`, `TrainerError` when it cannot be written.
    """
    drawn = pictures(assessment, epochs_of(history))
    page = _page(title, _lead(card, assessment, held_out), card, assessment, drawn, skipped, notes)
    figures = json.dumps(assessment.to_json(), indent=2, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in drawn.items():
            (folder / f"{name}.png").write_bytes(picture)
        (folder / FIGURES_NAME).write_text(figures + "\n", encoding="utf-8")
        _list_skipped(folder / SKIPPED_NAME, skipped)
        path = folder / REPORT_NAME
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left for the report in {folder}") from error
        raise TrainerError(f"cannot write the report to {folder}: {error.strerror}") from error
    return path


# -------------------------------------------------------------------------------- the page


def _page(
    title: str,
    lead: str,
    card: ModelCard,
    told: Assessment,
    drawn: dict[str, bytes],
    skipped: Sequence[SkippedFilm],
    notes: Sequence[str],
) -> str:
    said = [*notes, *told.notes, card.notes]
    remarks = list(dict.fromkeys(remark for remark in said if remark))
    shown = {name: _picture(name, drawn[name]) if name in drawn else "" for name in _ALTERNATIVES}
    body = [
        f"<h1>{escape(title)}</h1>",
        '<p class="stamp">Investigational, not for diagnostic use</p>',
        f"<p>{escape(lead)}</p>",
        _warning(told),
        _list(remarks),
        "<h2>Figures</h2>",
        tables.figures(told),
        _explained(told),
        "<h2>Confusion</h2>",
        tables.confusion(told),
        tables.class_matrix(told) if len(told.classes) > 2 else "",
        "<h2>What a call is worth</h2>",
        "<p>Predictive values depend on how common the finding is among those examined; the "
        "films here were put together for training and say nothing about that.</p>",
        tables.predictive(told),
        "<h2>Per source</h2>",
        "" if told.confounding.warning else _paragraph(told.confounding.sentence),
        tables.groups("source", told.per_source),
        shown["sources"],
        "<h2>Per view</h2>",
        tables.groups("view", told.per_view),
        "<h2>Curves</h2>",
        f'<div class="row">{shown["roc"]}{shown["precision_recall"]}</div>',
        "<h2>Calibration</h2>",
        f"<p>{escape(_calibration(card, told))}</p>",
        f'<div class="row">{shown["reliability"]}{shown["scores"]}</div>',
        f"<h2>Training</h2>{shown['training']}" if shown["training"] else "",
        _skipped(skipped),
        "<h2>Model</h2>",
        tables.model(card),
    ]
    return _FRAME.format(title=escape(title), body="\n".join(part for part in body if part))


def _lead(card: ModelCard, told: Assessment, held_out: bool | None) -> str:
    return (
        f"{card.model_name}, network {card.network}, positive class {told.positive_class!r} "
        f"({card.finding.meaning}). Judged on {told.films} films of {told.patients} patients, "
        f"{told.positives} positive and {told.negatives} not; {_LEARNED[held_out]}. Called "
        f"positive from a probability of {told.threshold:.4f} ({told.threshold_rule})."
    )


def _warning(told: Assessment) -> str:
    if not told.confounding.warning:
        return ""
    return f'<p class="warning">{escape(_sentence(told.confounding.sentence))}</p>'


def _paragraph(text: str) -> str:
    return f"<p>{escape(_sentence(text))}</p>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _explained(told: Assessment) -> str:
    mixed = told.metrics["auc_mixed_sources"]
    text = (
        "Intervals are 95 %: Wilson for shares of films, logit for predictive values, a bootstrap "
        "over patients for the areas and the Brier score. AUC within sources counts only pairs of "
        "a positive and a negative film of the same source, so knowing the hospital earns "
        f"nothing; all pairs of films of the {mixed['sources']} sources that hold both labels "
        f"give {tables.spoken(mixed['pooled'])}."
    )
    return f'<p class="small">{escape(text)}</p>'


def _calibration(card: ModelCard, told: Assessment) -> str:
    ece = told.metrics["ece"]
    by_chance = ece["by_chance"]
    temperature = card.calibration.temperature
    text = f"Probabilities are calibrated with temperature {temperature:.3f}. "
    if ece["value"] is not None and by_chance["mean"] is not None:
        text += (
            f"Expected calibration error {ece['value']:.3f} ({ece['binning']}); scores that are "
            f"calibrated perfectly would show {by_chance['mean']:.3f} on as many films, and 95 % "
            f"of the time at most {by_chance['high']:.3f}. "
        )
    return text + f"Brier score {tables.spoken(told.metrics['brier'])}."


def _picture(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(_ALTERNATIVES[name])}" src="data:image/png;base64,{data}">'


def _list(items: Sequence[str]) -> str:
    if not items:
        return ""
    return "<ul>" + "".join(f"<li>{escape(_sentence(item))}</li>" for item in items) + "</ul>"


def _skipped(skipped: Sequence[SkippedFilm]) -> str:
    if not skipped:
        return "<h2>Skipped films</h2><p>None.</p>"
    counts = Counter(film.reason for film in skipped)
    rows = [(str(count), reason) for reason, count in counts.most_common(_LISTED_REASONS)]
    return (
        f"<h2>Skipped films</h2><p>Films that could not be used: {len(skipped)}. Their names are "
        f"in {SKIPPED_NAME} beside this page.</p>" + tables.table(("films", "reason"), rows)
    )


def _list_skipped(path: Path, skipped: Sequence[SkippedFilm]) -> None:
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with private_file(path) as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("film", "reason"))
        rows.writerows((film.name, film.reason) for film in skipped)


_FRAME: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #111; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.7rem; margin-bottom: .3rem; }}
h2 {{ font-size: 1.2rem; margin: 2rem 0 .6rem; border-bottom: 1px solid #999; }}
.stamp {{ border: 2px solid #111; display: inline-block; padding: .2rem .8rem; font-weight: 600; }}
.warning {{ border: 2px solid #111; border-left-width: 12px; padding: .6rem 1rem;
  font-weight: 600; }}
.small {{ font-size: .88rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }}
th, td {{ border-bottom: 1px solid #bbb; padding: .25rem .7rem; text-align: left;
  vertical-align: top; }}
th {{ border-bottom: 2px solid #111; }}
td.n, th.n {{ text-align: right; white-space: nowrap; }}
img {{ max-width: 100%; height: auto; }}
.row img {{ width: 48%; vertical-align: middle; }}
@media screen and (max-width: 44rem) {{ .row img {{ width: 100%; }} }}
@media print {{ @page {{ margin: 14mm; }}
  body {{ margin: 0; padding: 0; max-width: none; font-size: 10pt; }}
  h2 {{ break-after: avoid; }} img, tr {{ break-inside: avoid; }}
  .scroll {{ overflow: visible; }} table {{ font-size: 8pt; }}
  th, td {{ padding: .15rem .35rem; }} }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
