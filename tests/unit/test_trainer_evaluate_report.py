"""The page about a model: complete, self-contained, and silent about patients."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from dicomnode.modelcard import Calibration, Code, ModelCard, Threshold
from tests.conftest import ROOT
from tests.unit.trainer_predictions import predictions
from trainer.errors import StorageFull, TrainerError
from trainer.evaluate import Assessment, assess, judge, text, write_report
from trainer.evaluate.history import epochs_of

pytest.importorskip("matplotlib")

VOID = {"meta", "img", "br"}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    number: int
    loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Skipped:
    name: str
    reason: str


HISTORY = [
    Epoch(number=n, loss=1 / n, validation_loss=1.1 / n, validation_accuracy=1 - 0.5 / n)
    for n in range(1, 6)
]


class Page(HTMLParser):
    """Tags that open and close in order, what they refer to, and the words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.alternatives: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        facts = dict(attrs)
        self.references += [str(facts[name]) for name in ("src", "href") if name in facts]
        if tag == "img":
            self.alternatives.append(facts["alt"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + " "


def assessed(count: int = 80) -> Assessment:
    rng = np.random.default_rng(2)

    def part(prefix: str, films: int):
        truth = np.arange(films) % 2 == 0
        scores = 1 / (1 + np.exp(-2 * (rng.normal(0, 1, films) + truth - 0.5)))
        return predictions(
            truth,
            scores,
            prefix=prefix,
            sources=[("ward", "clinic <b>", "")[n % 3] for n in range(films)],
            patients=[f"SECRET^{prefix}{n // 2}" for n in range(films)],
            views=["PA"] * films,
        )

    return assess(part("validation", 60), part("test", count), prevalence=0.05, resamples=100)


def card_of(told: Assessment) -> ModelCard:
    return ModelCard(
        model_name="covid19",
        model_version=3,
        network="mobilenet",
        classes=told.classes,
        positive_class=told.positive_class,
        finding=Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
        preprocess_profile="unit-rgb-224/1",
        threshold=Threshold(value=told.threshold, rule=told.threshold_rule),
        calibration=Calibration(method="temperature", temperature=told.temperature),
        created_at="2026-11-24T12:00:00+00:00",
    )


@pytest.fixture(scope="module")
def told() -> Assessment:
    return assessed()


@pytest.fixture(scope="module")
def folder(told: Assessment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    write_report(
        path / "deep",
        title="covid19 <3>",
        card=card_of(told),
        assessment=told,
        history=HISTORY,
        skipped=[Skipped("positive/Garcia.jpg", "the file ends <too> early")],
        notes=["the films are phantoms"],
    )
    return path / "deep"


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_anywhere(page, folder):
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    source = (folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in source
    assert not re.search(r"https?://|url\(|@import", source)


def test_the_pictures_are_in_the_page_and_beside_it(page, folder):
    names = {"roc", "precision_recall", "reliability", "scores", "sources", "training"}
    assert {path.stem for path in folder.glob("*.png")} == names
    assert len(page.references) == len(names)
    assert all(page.alternatives)
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 250
            grey = np.asarray(picture.convert("L"))
        assert grey.std() > 10, "something is drawn, and it shows without colour"


def test_it_says_what_it_is_for_and_what_it_stands_on(page):
    assert "Investigational, not for diagnostic use" in page.words
    assert "Judged on 80 films of 40 patients" in page.words
    assert "it learned from none of them" in page.words
    assert "The films are phantoms." in page.words
    assert "positive class 'positive'" in page.words


def test_every_figure_stands_there_with_its_interval(page, told):
    for name in ("auc", "auc_mixed_sources", "sensitivity", "specificity", "ppv", "npv"):
        figure = told.metrics[name]
        assert f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})" in page.words
    assert "PPV at the stated prevalence 0.05" in page.words
    assert "PPV in this sample (prevalence 0.5)" in page.words


def test_sources_are_listed_and_escaped(page):
    assert "clinic <b>" in page.words
    assert "covid19 <3>" in page.words
    assert "b" not in page.tags


def test_films_that_were_left_out_are_counted_on_the_page_and_named_beside_it(page, folder):
    """A page goes from hand to hand, and a file may be called like a patient."""
    assert "films reason 1 the file ends <too> early" in page.words
    assert "Garcia" not in (folder / "report.html").read_text(encoding="utf-8")
    listed = folder / "skipped.csv"
    assert listed.read_text() == "film,reason\npositive/Garcia.jpg,the file ends <too> early\n"
    assert listed.stat().st_mode & 0o777 == 0o600


def test_no_patient_is_named(folder):
    for path in (folder / "report.html", folder / "assessment.json"):
        assert "SECRET" not in path.read_text(encoding="utf-8")


def test_the_figures_lie_beside_the_page_as_json(folder, told):
    stored = json.loads((folder / "assessment.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(told.to_json()))


def test_a_warning_of_confounding_stands_at_the_top(tmp_path):
    truth = np.arange(60) % 2 == 0
    films = predictions(
        truth, np.where(truth, 0.9, 0.1), sources=["clinic" if one else "ward" for one in truth]
    )
    told = judge(films, threshold=0.5, resamples=50)
    page = write_report(tmp_path, title="t", card=card_of(told), assessment=told)
    source = page.read_text(encoding="utf-8")
    assert source.index('class="warning"') < source.index("<h2>Figures")
    assert "Source confounding cannot be judged: no source holds both labels" in source


def test_films_of_one_label_still_make_a_page(tmp_path):
    films = predictions(np.ones(3, dtype=bool), np.array([0.2, 0.6, 0.9]))
    told = judge(films, threshold=0.5, resamples=10)
    path = write_report(tmp_path, title="t", card=card_of(told), assessment=told, held_out=None)
    page = Page(path.read_text(encoding="utf-8"))
    assert not (tmp_path / "roc.png").exists()
    assert "No negative film" in page.words
    assert "is not known" in page.words
    assert "no prevalence stated" in page.words


def test_the_same_films_give_the_same_bytes(told, folder, tmp_path):
    again = assessed()
    assert again == told
    write_report(tmp_path, title="covid19 <3>", card=card_of(again), assessment=again)
    assert (tmp_path / "roc.png").read_bytes() == (folder / "roc.png").read_bytes()


def test_a_full_disk_and_a_folder_that_is_a_file_are_told_apart(told, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "scores.png").symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="no space left for the report"):
        write_report(tmp_path, title="t", card=card_of(told), assessment=told)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainerError, match="cannot write the report"):
        write_report(tmp_path / "file", title="t", card=card_of(told), assessment=told)


def test_a_history_is_read_from_records_and_from_mappings():
    rows = epochs_of([HISTORY[0], {"number": 2, "loss": 0.5, "note": "warm", "best": True}])
    assert rows[0]["validation_loss"] == 1.1
    assert rows[1] == {"number": 2.0, "loss": 0.5}


def test_the_lines_for_a_terminal_hold_the_same_figures(told):
    printed = "\n".join(text.lines(told))
    assert "80 films of 40 patients: 40 positive (the positive class), 40 not" in printed
    sensitivity = told.metrics["sensitivity"]
    assert f"{sensitivity['value']:.3f} ({sensitivity['low']:.3f}" in printed
    assert "unknown" in printed
    assert "SECRET" not in printed
    assert all(len(line) < 120 for line in printed.splitlines()[4:-1])


def test_pictures_are_png_without_a_date(folder):
    with Image.open(io.BytesIO((folder / "roc.png").read_bytes())) as picture:
        assert picture.format == "PNG"
        assert "Software" not in picture.info


def test_the_manual_names_every_option_every_figure_and_every_verdict(told):
    import typer

    from trainer.cli.app import app
    from trainer.evaluate.confounding import Verdict

    manual = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    command = typer.main.get_command(app).commands["evaluate"]
    for parameter in command.params:
        if parameter.name != "help":
            assert f"`{parameter.opts[0]}" in manual, parameter.opts
    for name in told.metrics:
        assert f"`{name}`" in manual
    for verdict in get_args(Verdict):
        assert f"| {verdict} |" in manual
