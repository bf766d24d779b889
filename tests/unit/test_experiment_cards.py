"""The experiment cards: every one runs as it says."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import typer

from tests.conftest import ROOT
from trainer.cli.app import app
from trainer.config import NETWORKS, FitConfig, load_experiment, load_fit

CARDS = sorted((ROOT / "config" / "train").glob("*.toml"))
NAMES = [card.stem for card in CARDS]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """What stands for the placeholders of a command."""
    weights = tmp_path / "weights.h5"
    weights.touch()
    return {"DATA": str(tmp_path), "OUT": str(tmp_path / "covid19"), "FILE": str(weights)}


def config_of(card: Path, places: dict[str, str]) -> FitConfig:
    return load_fit(card, {"data": Path(places["DATA"]), "out": Path(places["OUT"])})


def test_there_is_a_card_for_every_network():
    told = {re.search(r'^network = "(\w+)"$', card.read_text(), re.M) for card in CARDS}
    assert {found[1] for found in told if found} == set(NETWORKS)


@pytest.mark.parametrize("card", CARDS, ids=NAMES)
def test_a_card_is_a_run_and_says_what_to_expect(card: Path, places: dict[str, str]):
    config_of(card, places)
    experiment = load_experiment(card)
    assert all(asdict(experiment).values()), "every field of [experiment] is filled in"
    assert experiment.name == card.stem
    measured = re.search(r"\d\.\d\d", experiment.expected_score)
    assert measured or "not measured here" in experiment.expected_score


@pytest.mark.parametrize("card", CARDS, ids=NAMES)
def test_the_command_of_a_card_is_one_that_the_trainer_takes(card: Path, places: dict[str, str]):
    words = [places.get(word, word) for word in shlex.split(load_experiment(card).command)]
    assert words[:4] == ["trainer", "fit", "--config", f"config/train/{card.name}"]
    command = typer.main.get_command(app).commands["fit"]  # type: ignore[attr-defined]
    given = command.make_context("fit", words[2:]).params
    assert given["data"] == Path(places["DATA"])
    assert given["out"] == Path(places["OUT"])
    settings = {field.name for field in fields(FitConfig)}
    config = load_fit(card, {name: value for name, value in given.items() if name in settings})
    assert config.network == config_of(card, places).network


@pytest.mark.parametrize("card", CARDS, ids=NAMES)
def test_the_documentation_lists_the_card(card: Path):
    assert f"`{card.name}`" in (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")


def test_the_cards_of_the_thesis_differ_by_their_batch_only(places: dict[str, str]):
    """Its four data sizes are folders; the recipe is one."""
    cards = [card for card in CARDS if card.stem.startswith("thesis")]
    sizes = ("25-75", "100-100", "184-184", "184-368")
    expected = {"thesis"} | {
        f"thesis-{size}{batch}" for size in sizes for batch in ("", "-batch-1")
    }
    assert {card.stem for card in cards} == expected
    configs = [config_of(card, places) for card in cards]
    assert {config.recipe for config in configs} == {"thesis"}
    assert {config.network for config in configs} == {"vgg16"}
    for card, config in zip(cards, configs, strict=True):
        assert config.batch_size == (1 if card.stem.endswith("batch-1") else 2)
    same = [asdict(config) | {"batch_size": 0} for config in configs]
    assert all(one == same[0] for one in same)
