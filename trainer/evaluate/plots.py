"""The pictures of a report, as PNG bytes.

matplotlib without a display and without global state, so that a thread may draw. Lines
differ by dash and marker and bars by hatch, not by colour alone: reports are printed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

from trainer.evaluate.assessment import Assessment

Epochs = Sequence[Mapping[str, float]]
"""One mapping per epoch: number, loss, validation_loss, validation_accuracy, ..."""

_DPI: Final = 110
_DARK, _LIGHT, _GREY = "#10446e", "#e08a1e", "#777777"
_SHOWN_SOURCES: Final = 20


def pictures(assessment: Assessment, history: Epochs) -> dict[str, bytes]:
    """PNG by name: `roc`, `precision_recall`, `reliability`, `scores`, `sources` and, with a
    history, `training`. Those that the films do not allow are left out."""
    drawn = {
        "reliability": _reliability(assessment),
        "scores": _scores(assessment),
        "sources": _sources(assessment),
    }
    if assessment.curves.recall:
        drawn["roc"] = _roc(assessment)
        drawn["precision_recall"] = _precision_recall(assessment)
    if history:
        drawn["training"] = _training(history)
    return drawn


def _roc(told: Assessment) -> bytes:
    figure, axes = _canvas(5, 5)
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1, label="guessing")
    axes.plot(
        told.curves.false_positive_rate,
        told.curves.true_positive_rate,
        color=_DARK,
        linewidth=2,
        label=f"AUC {spoken(told.metrics['auc'])}",
    )
    sensitivity = told.metrics["sensitivity"]["value"]
    specificity = told.metrics["specificity"]["value"]
    axes.plot(
        [1 - specificity],
        [sensitivity],
        marker="D",
        markersize=8,
        color="black",
        markerfacecolor=_LIGHT,
        linestyle="none",
        label=f"threshold {told.threshold:.3f}",
    )
    axes.set(
        xlabel="1 - specificity",
        ylabel="sensitivity",
        title="ROC curve",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(loc="lower right")
    return _png(figure)


def _precision_recall(told: Assessment) -> bytes:
    figure, axes = _canvas(5, 5)
    share = told.positives / told.films
    axes.axhline(share, color=_GREY, linestyle=":", linewidth=1, label=f"guessing ({share:.2f})")
    axes.step(
        [0.0, *told.curves.recall],
        [told.curves.precision[0], *told.curves.precision],
        where="pre",
        color=_DARK,
        linewidth=2,
        label=f"average precision {spoken(told.metrics['average_precision'])}",
    )
    axes.set(
        xlabel="sensitivity (recall)",
        ylabel="PPV in this sample (precision)",
        title="Precision-recall curve",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.05),
    )
    axes.legend(loc="lower left")
    return _png(figure)


def _reliability(told: Assessment) -> bytes:
    figure, axes = _canvas(5, 5)
    rows = told.reliability
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1, label="perfect")
    means = [row["mean_score"] for row in rows]
    shares = [row["share"]["value"] for row in rows]
    spread = [
        [row["share"]["value"] - row["share"]["low"] for row in rows],
        [row["share"]["high"] - row["share"]["value"] for row in rows],
    ]
    axes.errorbar(
        means,
        shares,
        yerr=spread,
        color=_DARK,
        marker="o",
        linewidth=1.5,
        capsize=3,
        label="share that is positive, 95 %",
    )
    for mean, share, row in zip(means, shares, rows, strict=True):
        axes.annotate(
            f"{row['films']}", (mean, share), xytext=(6, -12), textcoords="offset points", size=8
        )
    ece = told.metrics["ece"]["value"]
    axes.set(
        xlabel="mean probability told (numbers: films)",
        ylabel="share of films that are positive",
        title="Reliability" if ece is None else f"Reliability, ECE {ece:.3f}",
        xlim=(-0.02, 1.02),
        ylim=(-0.06, 1.04),
        aspect="equal",
    )
    _legend_below(figure)
    return _png(figure)


def _scores(told: Assessment) -> bytes:
    figure, axes = _canvas(6.4, 4)
    positive, negative = told.histogram["positive"], told.histogram["negative"]
    width = 1 / len(positive)
    left = [number * width for number in range(len(positive))]
    style = {"width": width, "align": "edge", "edgecolor": "black", "linewidth": 0.6}
    axes.bar(left, negative, color="white", hatch="///", label="not positive", **style)
    axes.bar(
        left,
        positive,
        bottom=negative,
        color=_LIGHT,
        label=_shortened(told.positive_class, 24),
        **style,
    )
    axes.axvline(told.threshold, color="black", linestyle="--", label="threshold")
    axes.set(
        xlabel="probability told of the positive class",
        ylabel="films",
        title="Scores by class (stacked)",
        xlim=(0, 1),
    )
    _legend_below(figure)
    return _png(figure)


def _sources(told: Assessment) -> bytes:
    rows = told.per_source[:_SHOWN_SOURCES]
    figure, axes = _canvas(8, 1.6 + 0.62 * len(rows))
    bars = (
        ("sensitivity", -0.27, _DARK, ""),
        ("specificity", 0.0, "white", "///"),
        ("auc", 0.27, _LIGHT, ""),
    )
    for name, offset, colour, hatch in bars:
        shown = [(place, row[name]) for place, row in enumerate(rows) if row[name] is not None]
        axes.barh(
            [place + offset for place, _ in shown],
            [value for _, value in shown],
            height=0.25,
            color=colour,
            hatch=hatch,
            edgecolor="black",
            linewidth=0.6,
            label="AUC" if name == "auc" else name,
        )
        for place, value in shown:
            axes.annotate(
                f"{value:.2f}",
                (value, place + offset),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                size=7,
            )
    labels = [
        f"{_shortened(row['source'])}\n{row['positives']} positive, {row['negatives']} not"
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), labels, size=8)
    more = len(told.per_source) - len(rows)
    axes.set(
        xlim=(0, 1.08),
        ylim=(len(rows) - 0.5, -0.5),
        title="Per source" + (f" (the {_SHOWN_SOURCES} largest, {more} more)" if more else ""),
    )
    _legend_below(figure)
    return _png(figure)


def _training(history: Epochs) -> bytes:
    figure, axes = _canvas(9, 3.8, columns=2)
    for panel, word in zip(axes, ("loss", "accuracy"), strict=True):
        names = sorted(
            (name for name in history[0] if name.endswith(word)),
            key=lambda name: name.startswith("validation"),
        )
        for name in names:
            held_out = name.startswith("validation")
            panel.plot(
                [epoch.get("number", place) for place, epoch in enumerate(history, start=1)],
                [epoch[name] for epoch in history],
                linestyle="--" if held_out else "-",
                marker="s" if held_out else "o",
                markersize=3,
                color=_LIGHT if held_out else _DARK,
                label=name.replace("_", " ") if name != word else f"training {word}",
            )
        panel.set(xlabel="epoch", title=word.capitalize())
        if names:
            panel.legend()
    return _png(figure)


def spoken(figure: Mapping[str, Any]) -> str:
    """`0.912 (0.852-0.961)`, or a dash for what is not known."""
    if figure.get("value") is None:
        return "-"
    if figure.get("low") is None or figure.get("high") is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


def _shortened(text: str, length: int = 38) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _canvas(width: float, height: float, *, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for panel in [axes] if columns == 1 else axes:
        panel.grid(visible=True, color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, axes


def _legend_below(figure: Any) -> None:
    """Where it hides nothing."""
    figure.legend(loc="outside lower center", ncols=3)


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    # no software name and no date: the same films give the same bytes
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()
