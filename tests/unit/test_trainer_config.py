"""A training run, as options and cards say it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from trainer.config import FitConfig, fit_config, load_experiment, load_fit
from trainer.errors import UsageError
from trainer.launch import arguments


def card(folder: Path, text: str) -> Path:
    path = folder / "card.toml"
    path.write_text(text)
    return path


def test_a_card_gives_the_run_and_options_are_stronger(tmp_path: Path):
    path = card(tmp_path, f'[fit]\ndata = "{tmp_path}"\nepochs = 3\nprevalence = 1e-2\nseed = 7')
    config = load_fit(path, {"out": tmp_path / "chest", "seed": 8, "epochs": None})
    assert (config.epochs, config.seed, config.prevalence) == (3, 8, 0.01)
    assert config.data == tmp_path
    assert config.model_name == "chest", "a model is named after its directory"


def test_a_recipe_gives_what_nobody_said(tmp_path: Path):
    path = card(tmp_path, '[fit]\nrecipe = "thesis"\nbatch_size = 1')
    config = load_fit(path, {"data": tmp_path, "out": tmp_path / "m"})
    assert (config.network, config.head, config.epochs) == ("vgg16", "thesis", 25)
    assert (config.batch_size, config.rate, config.seed) == (1, 1e-3, 42)


def test_only_tiny_augments_unless_it_is_said(tmp_path: Path):
    said = {"data": tmp_path, "out": tmp_path / "m"}
    tiny = said | {"network": "tiny"}
    assert not fit_config(said).augments
    assert fit_config(said | {"augment": True}).augments
    assert fit_config(tiny).augments
    assert not fit_config(tiny | {"augment": False}).augments


def test_work_and_reports_lie_where_no_server_looks(tmp_path: Path):
    config = fit_config({"data": tmp_path, "out": tmp_path / "covid19"})
    assert config.work_folder == tmp_path / "covid19" / ".work"
    assert config.report_folder == tmp_path / "covid19-reports"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fit]\nepoch = 3", r"fit\.epoch is not a setting; did you mean epochs\?"),
        ('[fit]\nepochs = "3"', r"fit\.epochs must be a whole number, got '3'"),
        ("[fit]\nepochs = true", r"fit\.epochs must be a whole number, got True"),
        ("[fit]\nstrict = 1", r"fit\.strict must be true or false, got 1"),
        ("[fit]\ndata = 1", r"fit\.data must be a path in quotes, got 1"),
        ("fit = 3", r"fit must be a table"),
        ("[fit]\nnetwork = 'resnet'", r"--network must be one of"),
        ("[fit]\nhead = 'big'", r"--head must be one of thesis, pooled"),
        ("[fit]\ntest_fraction = 1.0", r"--test-fraction must lie between 0 and 1, got 1.0"),
        ("[fit]\nnetwork = 'tiny'\nfine_tune = 3", r"tiny is trained as a whole"),
        ("[experiment]\nnam = 'x'", r"experiment\.nam is not a setting; did you mean name\?"),
        ("[fit", r"is not TOML"),
    ],
)
def test_a_card_that_cannot_be_used_names_the_key(tmp_path: Path, text, message):
    with pytest.raises(UsageError, match=message):
        load_fit(card(tmp_path, text), {"data": tmp_path, "out": tmp_path / "m"})


def test_tables_of_other_commands_are_left_alone(tmp_path: Path):
    path = card(tmp_path, "[retrain]\nanything = 1\n[fit]\nepochs = 2")
    assert load_fit(path, {"data": tmp_path, "out": tmp_path / "m"}).epochs == 2


def test_what_is_missing_is_asked_for(tmp_path: Path):
    with pytest.raises(UsageError, match="does not say out; pass --out DIR"):
        load_fit(card(tmp_path, "[fit]"), {"data": tmp_path})
    with pytest.raises(UsageError, match=r"cannot read .*gone\.toml"):
        load_fit(tmp_path / "gone.toml", {})


def test_a_card_says_what_to_expect(tmp_path: Path):
    path = card(tmp_path, '[experiment]\nname = "thesis"\nexpected_time = "1 min"')
    assert load_experiment(path).expected_time == "1 min"


def test_a_worker_is_told_all_that_the_launcher_was_told(tmp_path: Path):
    config = fit_config(
        {
            "data": tmp_path,
            "out": tmp_path / "m",
            "augment": False,
            "strict": True,
            "alpha": 0.5,
            "network": "mobilenet",
            "work": tmp_path / "w",
        }
    )
    told = arguments(config)
    assert told[:2] == ["--strategy", "direct"]
    assert {"--no-augment", "--strict"} <= set(told)
    assert told[told.index("--alpha") + 1] == "0.5"
    unsaid = {field.name for field in fields(FitConfig) if getattr(config, field.name) is None}
    options = {word for word in told if word.startswith("--")}
    assert len(options) == len(fields(FitConfig)) - len(unsaid)
