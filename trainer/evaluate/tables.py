"""The tables of a report, as HTML with everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final, Literal

from dicomnode.modelcard import ModelCard
from trainer.evaluate.assessment import Assessment
from trainer.evaluate.plots import spoken

__all__ = [
    "FIGURE_NAMES",
    "class_matrix",
    "confusion",
    "figures",
    "groups",
    "model",
    "predictive",
    "spoken",
    "table",
]

FIGURE_NAMES: Final = {
    "auc": "ROC AUC, all films",
    "auc_mixed_sources": "ROC AUC, within sources that hold both labels",
    "auc_by_source_alone": "ROC AUC of guessing by the source alone",
    "average_precision": "average precision (PR AUC)",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "ppv": "PPV",
    "npv": "NPV",
    "sample_ppv": "PPV",
    "sample_npv": "NPV",
    "brier": "Brier score",
    "ece": "expected calibration error",
}


def figure_name(name: str, figure: dict[str, Any]) -> str:
    """In words; predictive values with the prevalence that they are for."""
    told = FIGURE_NAMES[name]
    if name in ("ppv", "npv"):
        stated = figure["prevalence"]
        return f"{told} at the stated prevalence" + ("" if stated is None else f" {stated:g}")
    if name.startswith("sample_"):
        return f"{told} in this sample (prevalence {figure['prevalence']:g})"
    return told


def figures(told: Assessment) -> str:
    """Value, interval and number of films of every figure."""
    rows = []
    for name in FIGURE_NAMES:
        figure = told.metrics[name]
        value = spoken(figure)
        if name in ("ppv", "npv") and figure["prevalence"] is None:
            value = "no prevalence stated"
        rows.append((figure_name(name, figure), value, str(figure["cases"])))
    return table(("figure", "value (95 % interval)", "films"), rows, numbers=(1, 2))


def confusion(told: Assessment) -> str:
    """Two by two, at the threshold."""
    counts = told.metrics["confusion"]
    rows = [
        (
            f"{told.positive_class} (positive)",
            str(counts["true_positive"]),
            str(counts["false_negative"]),
        ),
        ("not positive", str(counts["false_positive"]), str(counts["true_negative"])),
    ]
    return table(("the film is", "called positive", "called negative"), rows, numbers=(1, 2))


def class_matrix(told: Assessment) -> str:
    """All classes, by the highest probability."""
    rows = [
        (name, *(str(count) for count in counts))
        for name, counts in zip(told.classes, told.class_matrix, strict=True)
    ]
    heads = ("the film is", *(f"most likely {name}" for name in told.classes))
    return table(heads, rows, numbers=range(1, len(heads)))


def predictive(told: Assessment) -> str:
    """PPV and NPV over a range of prevalences."""
    rows = [
        (
            f"{row['prevalence']:g}"
            + (" (stated)" if row["prevalence"] == told.prevalence else ""),
            spoken(row["ppv"]),
            spoken(row["npv"]),
        )
        for row in told.predictive_values
    ]
    return table(("prevalence", "PPV (95 %)", "NPV (95 %)"), rows, numbers=(1, 2))


def groups(name: Literal["source", "view"], rows: Sequence[dict[str, Any]]) -> str:
    """Per source or per view."""
    shares = ("sensitivity", "specificity")
    cells = [
        (
            row[name],
            *(str(row[count]) for count in ("films", "patients", "positives", "negatives")),
            *(
                spoken(
                    {
                        "value": row[share],
                        "low": row[f"{share}_interval"][0],
                        "high": row[f"{share}_interval"][1],
                    }
                )
                for share in shares
            ),
            "one label only" if row["auc"] is None else f"{row['auc']:.3f}",
        )
        for row in rows
    ]
    heads = (name, "films", "patients", "positive", "not", *shares, "AUC")
    return table(heads, cells, numbers=range(1, len(heads)))


def model(card: ModelCard) -> str:
    """What the card says of where the model comes from."""
    code = card.finding
    facts = {
        "classes": ", ".join(card.classes),
        "positive class": card.positive_class,
        "finding": f"{code.meaning} ({code.value} {code.scheme_designator})",
        "preprocess profile": card.preprocess_profile,
        "threshold": f"{card.threshold.value:.4f}: {card.threshold.rule}",
        "calibration": f"{card.calibration.method}, temperature {card.calibration.temperature:g}",
        "created": card.created_at,
        "parent version": card.parent_version,
        "data manifest (sha256)": card.data_manifest_sha256,
        "seed": card.seed,
        "training time": card.training_seconds and f"{card.training_seconds:g} s",
        "libraries": ", ".join(f"{name} {value}" for name, value in card.libraries.items()),
    }
    rows = [(name, str(value)) for name, value in facts.items() if value not in (None, "")]
    return table(("", ""), rows)


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    """Escaped; the columns in `numbers` are set to the right."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in numbers else ''}>{escape(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    head = f"<tr>{cells('th', heads)}</tr>" if any(heads) else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}{body}</table></div>'
