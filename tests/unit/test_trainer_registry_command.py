"""`trainer models`: what it prints for people and for scripts, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dicomnode.modelcard import CARD_PATH
from tests.unit.test_trainer_registry import publish, publish_many, with_films
from trainer import registry
from trainer.cli import main


@pytest.fixture
def run(capsys):
    """Runs the command: its exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["models", *arguments])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


def read(answer: tuple[int, str, str]) -> Any:
    assert answer[0] == 0, answer[2]
    return json.loads(answer[1])


def test_list_tells_state_and_parent(run, tmp_path: Path):
    publish_many(tmp_path, "a", 3)
    registry.withdraw(tmp_path, 3)
    base = f"--base={tmp_path}"
    rows = read(run("list", base, "--json"))
    states = [(row["version"], row["state"], row["parent_version"]) for row in rows]
    assert states == [(1, "published", None), (2, "serving", None), (3, "withdrawn", None)]
    lines = run("list", base)[1].splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["1", "published", "from", "-"],
        ["2", "serving", "from", "-"],
        ["3", "withdrawn", "from", "-"],
    ]


def test_a_damaged_version_is_listed_and_hides_no_other(run, tmp_path: Path):
    """Whoever looks has come to put it right: a server may be trying to load it."""
    publish_many(tmp_path, "a", 2)
    (tmp_path / "2" / CARD_PATH).write_text("{")
    (tmp_path / "7").mkdir()
    base = f"--base={tmp_path}"
    rows = read(run("list", base, "--json"))
    assert [(row["version"], row["state"]) for row in rows] == [
        (1, "published"),
        (2, "published"),
        (7, "serving"),
    ]
    assert rows[1]["problem"] == f"{tmp_path / '2' / CARD_PATH} is not a model card"
    assert "damaged: " in run("list", base)[1].splitlines()[2]


@pytest.mark.parametrize("missing", [CARD_PATH, "saved_model.pb"])
def test_a_damaged_version_is_not_promoted(run, tmp_path: Path, missing: str):
    publish_many(tmp_path, "a", 2)
    registry.withdraw(tmp_path, 1)
    (tmp_path / "withdrawn" / "1" / missing).unlink()
    code, _, error = run("promote", "1", f"--base={tmp_path}")
    assert (code, missing in error) == (1, True)
    assert registry.versions(tmp_path) == (2,)


def test_a_folder_with_a_damaged_card_is_not_published(run, tmp_path: Path):
    publish(tmp_path / "other")
    (tmp_path / "other" / "1" / CARD_PATH).write_text("{}")
    code, _, error = run("publish", str(tmp_path / "other" / "1"), f"--base={tmp_path / 'm'}")
    assert code == 1
    assert error.endswith("is not a model card; nothing was published\n")
    assert registry.versions(tmp_path / "m") == ()


def test_promote_says_what_it_will_do_what_it_did_and_the_way_back(run, tmp_path: Path):
    publish_many(tmp_path, "a", 3)
    base = f"--base={tmp_path}"
    planned = run("promote", "1", base, "--dry-run")
    assert planned[1].splitlines()[:3] == [
        "version 2 would be withdrawn",
        "version 3 would be withdrawn",
        "version 1 would serve",
    ]
    assert registry.versions(tmp_path) == (1, 2, 3)
    assert run("promote", "1", base)[1].splitlines() == [
        "version 2 is withdrawn",
        "version 3 is withdrawn",
        "version 1 serves",
        f"the way back: trainer models promote 3 --base {tmp_path}",
    ]
    back = read(run("promote", "3", base, "--json"))
    assert (back["returns"], back["withdraws"], back["done"]) == (True, [], True)
    assert run("promote", "3", base)[0] == 3
    assert run("promote", "9", base)[0] == 1


def test_diff_shows_what_changed_and_how_many_films(run, tmp_path: Path):
    publish_many(tmp_path, "a", 2)
    with_films(tmp_path, 1, ("a", "ill", "training"))
    with_films(tmp_path, 2, ("a", "well", "training"), ("b", "ill", "test"))
    base = f"--base={tmp_path}"
    _, text, _ = run("diff", "1", "2", base)
    assert "films from 1 to 2: 1 added, 0 removed, 1 relabelled, 0 moved, 1 kept" in text
    assert "label well" in text
    assert "positive_class" not in text
    assert "positive_class" in run("diff", "1", "2", base, "--all")[1]
    assert read(run("diff", "1", "2", base, "--json"))["films"]["added"] == 1
    code, _, error = run("diff", "1", "9", base)
    assert code == 1
    assert "no version 9; published: 1, 2" in error


def test_a_folder_is_published_by_hand(run, tmp_path: Path):
    publish(tmp_path / "candidates")
    base = tmp_path / "models"
    assert run("publish", str(tmp_path / "candidates" / "1"), f"--base={base}")[1] == (
        "version 1 serves\n"
    )
    again = read(run("publish", str(tmp_path / "candidates" / "1"), f"--base={base}", "--json"))
    assert again["version"] == 2
    code, _, error = run("publish", str(tmp_path), f"--base={base}")
    assert code == 1
    assert "holds no saved_model.pb" in error


def test_rollback_and_show_speak_json_too(run, tmp_path: Path):
    publish_many(tmp_path, "a", 2)
    base = f"--base={tmp_path}"
    assert read(run("show", "2", base, "--json"))["model_version"] == 2
    assert read(run("rollback", base, "--json")) == {"withdrawn": 2, "serving": 1}
