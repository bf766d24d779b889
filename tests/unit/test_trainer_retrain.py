"""A retraining before and around the training: settings, snapshot, runs, one at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.modelcard import CARD_PATH
from dicomnode.testing.stores import opened_store
from tests.unit.test_trainer_registry import publish, with_films
from trainer import data, registry, retrain
from trainer.errors import DataError, NothingToDo, RegistryError, TrainerError, UsageError
from trainer.retrain import flow, runs, snapshot
from trainer.retrain.outcome import decision, ended
from trainer.retrain.runs import Last

SETTINGS = """
[data]
location = "films"
[fit]
out = "models"
test_fraction = 0.4
[retrain]
runs = "runs"
"""


def films(folder: Path, per_class: int = 20) -> Path:
    """Files whose bytes differ; nothing here looks at the picture."""
    for label in ("negative", "positive"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            (folder / label / f"{number}.png").write_bytes(f"{label} {number}".encode())
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> retrain.RetrainSettings:
    films(tmp_path / "films")
    (tmp_path / "retrain.toml").write_text(SETTINGS)
    return retrain.load(tmp_path / "retrain.toml")


def begin(settings: retrain.RetrainSettings, run: str = "first", **options) -> Path:
    options = {"force": False, "tell": False, "progress": lambda _event, _facts: None} | options
    settings.run.runs.mkdir(exist_ok=True)
    return flow._begin(settings, run, **options)


# -------------------------------------------------------------------------------- settings


def test_paths_are_taken_from_the_folder_of_the_file(settings, tmp_path: Path):
    assert settings.location == tmp_path / "films"
    assert settings.fit.out == tmp_path / "models"
    assert settings.run.runs == tmp_path / "runs"
    assert settings.policy.margin == 0.02


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('location = "films"', "", "either node .* or location .*, got neither"),
        ('location = "films"', 'location = "gone"', "data.location is .*gone, which does not"),
        ('location = "films"', 'locaton = "films"', "did you mean data.location"),
        ("[retrain]", "[retrain]\nkeep_run = 2", "did you mean retrain.keep_runs"),
        ("[retrain]", "[retrain]\nkeep_runs = 0", "must be a whole number above 0, got 0"),
        ("[retrain]", "[retrain]\nkeep_runs = 1.5", "must be a whole number above 0, got 1.5"),
        ("[retrain]", "[retrain]\nminimum_new_films = true", "whole number above 0, got True"),
        ("[retrain]", "[retrain]\nwait_seconds = inf", "at most 604800, got inf"),
        ("[retrain]", "[gate]\nmargn = 0.1\n[retrain]", "did you mean gate.margin"),
        ("[retrain]", "[gates]\n[retrain]", "did you mean gate"),
        ("[fit]", "[fit]\nepoch = 3", "did you mean epochs"),
        ("[fit]", "[fit", "is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(settings, tmp_path: Path, before, after, message):
    path = tmp_path / "wrong.toml"
    path.write_text(SETTINGS.replace(before, after))
    with pytest.raises(UsageError, match=message):
        retrain.load(path)


def test_a_mistake_in_the_settings_of_the_node_is_named_with_its_file(tmp_path: Path):
    (tmp_path / "node.toml").write_text("[dimse]\nprot = 104\n")
    path = tmp_path / "retrain.toml"
    path.write_text(SETTINGS.replace('location = "films"', 'node = "node.toml"'))
    with pytest.raises(UsageError, match=r"node\.toml: dimse\.prot is not a setting"):
        retrain.load(path)


def test_a_node_without_labels_is_told_how_to_get_some(tmp_path: Path):
    (tmp_path / "node.toml").write_text("")
    path = tmp_path / "retrain.toml"
    path.write_text(SETTINGS.replace('location = "films"', 'node = "node.toml"'))
    with pytest.raises(DataError, match="there is no store at"):
        retrain.preview(retrain.load(path))
    with opened_store(tmp_path / "var"):
        pass
    with pytest.raises(DataError, match="no labelled film; `dicomnode labels import`"):
        retrain.preview(retrain.load(path))


def test_the_example_file_is_valid(tmp_path: Path):
    text = (Path(__file__).parents[2] / "config" / "retrain.example.toml").read_text()
    (tmp_path / "dicomnode.toml").write_text("")
    (tmp_path / "retrain.toml").write_text(text)
    loaded = retrain.load(tmp_path / "retrain.toml")
    assert loaded.storage is not None
    assert loaded.storage.root == tmp_path / "var"
    assert loaded.policy == type(loaded.policy)(), "the example shows the defaults"
    assert loaded.run == type(loaded.run)(runs=tmp_path / "retraining")


# -------------------------------------------------------------------------------- snapshot


def test_a_snapshot_fixes_films_and_labels_and_only_its_owner_may_read_it(settings):
    folder = begin(settings)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / runs.SNAPSHOT).stat().st_mode & 0o777 == 0o600
    taken = snapshot.read(folder / runs.SNAPSHOT)
    films(settings.location, 25)
    assert snapshot.read(folder / runs.SNAPSHOT).sha256 == taken.sha256
    assert len(taken.cases) == len(taken.labels) == 40
    assert set(taken.labels.values()) == {"negative", "positive"}


def test_a_run_that_was_interrupted_goes_on_with_its_own_snapshot(settings):
    taken = snapshot.read(begin(settings) / runs.SNAPSHOT)
    films(settings.location, 25)
    events = []
    again = begin(settings, progress=lambda event, _facts: events.append(event))
    assert snapshot.read(again / runs.SNAPSHOT).sha256 == taken.sha256
    assert events == ["resumed"]


@pytest.mark.parametrize("outcome", ["published", "refused"])
def test_a_run_that_is_over_is_not_begun_again(settings, outcome):
    folder = begin(settings)
    runs.write_json(folder / runs.DECISION, {"outcome": outcome, "version": 2})
    with pytest.raises(NothingToDo, match=rf"the run first is over \({outcome}\)"):
        retrain.retrain(settings, lambda _event, _facts: None, run="first")


def test_a_chief_that_its_job_starts_again_after_publishing_has_succeeded(settings):
    on_the_cluster = replace(settings, fit=replace(settings.fit, strategy="kubernetes"))
    folder = begin(settings, "retrain-7")
    environ = {
        "JOB_COMPLETION_INDEX": "0",
        "DICOMNODE_JOB_NAME": "retrain-7",
        "DICOMNODE_SERVICE": "retrain-7",
        "DICOMNODE_WORKERS": "2",
    }
    runs.write_json(folder / runs.DECISION, {"outcome": "published", "version": 2})
    ended = retrain.retrain(on_the_cluster, lambda _event, _facts: None, environ=environ)
    assert (ended.outcome, ended.version, ended.run) == ("published", 2, "retrain-7")
    runs.tell_workers(folder, "train")
    other = retrain.retrain(
        on_the_cluster,
        lambda _event, _facts: None,
        environ=environ | {"JOB_COMPLETION_INDEX": "1"},
    )
    assert other.outcome == "worker"


def silent(_event, _facts) -> None: ...


def test_a_run_that_died_between_publishing_and_its_decision_publishes_once(settings):
    """Held against its own version it would pass, and be published a second time."""
    folder = begin(settings)
    publish(settings.fit.out)
    path = settings.fit.out / "1" / CARD_PATH
    card = json.loads(path.read_text())
    told = {"run": "first", "films_sha256": snapshot.read(folder / runs.SNAPSHOT).sha256}
    path.write_text(json.dumps(card | {"gate": told}))
    with pytest.raises(NothingToDo, match=r"the run first is over \(published\)"):
        retrain.retrain(settings, silent, run="first")
    assert decision(settings, folder) == {"outcome": "published", "version": 1}, "workers ask too"
    path.write_text(json.dumps(card | {"gate": told | {"films_sha256": "of other films"}}))
    assert ended(settings, "first") is None


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", "..", ".hidden", "", " ", "x" * 64])
def test_a_run_is_named_like_one_folder(settings, name):
    with pytest.raises(UsageError, match="--run must be the name of one folder"):
        runs.name(name)
    assert runs.name("20261124T160000Z") == "20261124T160000Z"


def test_a_damaged_card_of_what_serves_is_told_before_the_training(settings):
    publish(settings.fit.out)
    (settings.fit.out / "1" / CARD_PATH).write_text("{")
    with pytest.raises(RegistryError, match="is not a model card"):
        retrain.retrain(settings, silent)
    assert not settings.run.runs.exists()


def test_a_folder_of_runs_that_cannot_be_written_is_told_before_the_training(settings):
    settings.run.runs.write_text("a file")
    with pytest.raises(UsageError, match=r"cannot write to .*runs is no folder"):
        retrain.retrain(settings, silent)


def test_a_preview_says_that_what_serves_tells_other_things_apart(settings):
    publish(settings.fit.out)
    path = settings.fit.out / "1" / CARD_PATH
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"classes": ["sick", "well"], "positive_class": "sick"}))
    assert any(
        sentence.startswith("version 1 tells sick, well apart (positive: sick), the films negative")
        for sentence in retrain.preview(settings).missing
    )


def test_films_that_a_version_was_made_from_are_nothing_new(settings):
    known = snapshot.read(begin(settings) / runs.SNAPSHOT).labels
    publish(settings.fit.out)
    with_films(
        settings.fit.out, 1, *((digest, label, "training") for digest, label in known.items())
    )
    with pytest.raises(NothingToDo, match="0 films are new, gone or relabelled since version 1"):
        begin(settings, "second")
    assert [path.name for path in settings.run.runs.iterdir() if path.is_dir()] == ["first"]
    assert begin(settings, "second", force=True).name == "second"


def test_a_new_film_a_lost_one_and_another_label_count_as_new(settings):
    known = dict(snapshot.read(begin(settings) / runs.SNAPSHOT).labels)
    publish(settings.fit.out)
    changed = dict(known)
    first, second, *_ = changed
    changed[first] = "negative" if known[first] == "positive" else "positive"
    del changed[second]
    changed["0" * 64] = "positive"
    with_films(settings.fit.out, 1, *((digest, label, "test") for digest, label in known.items()))
    assert snapshot.changes(known, settings.fit.out) == 0
    assert snapshot.changes(changed, settings.fit.out) == 3


def test_a_version_that_does_not_say_its_films_makes_everything_new(settings):
    assert snapshot.changes({}, settings.fit.out) is None
    publish(settings.fit.out)
    assert snapshot.changes({}, settings.fit.out) is None
    assert begin(settings).is_dir()


def test_what_was_refused_is_not_trained_again_until_something_changes(settings, tmp_path: Path):
    taken = snapshot.read(begin(settings) / runs.SNAPSHOT)
    runs.remember(
        settings.run.runs,
        Last(
            run="first",
            outcome="refused",
            films_sha256=taken.sha256,
            settings_sha256=settings.sha256,
        ),
    )
    with pytest.raises(NothingToDo, match=r"the last run \(first: refused\) had the same"):
        begin(settings, "second")
    (tmp_path / "retrain.toml").write_text(SETTINGS + "[gate]\nmargin = 0.05\n")
    assert begin(retrain.load(tmp_path / "retrain.toml"), "second").is_dir()


def test_one_class_only_is_refused_before_anything_is_written(settings):
    for path in (settings.location / "positive").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="fewer than two classes"):
        begin(settings)
    assert not [path for path in settings.run.runs.iterdir() if path.is_dir()]


# -------------------------------------------------------------------------------- preview


def test_a_preview_counts_and_says_what_is_missing_and_writes_nothing(settings, tmp_path: Path):
    before = sorted(tmp_path.rglob("*"))
    told = retrain.preview(settings)
    assert sorted(tmp_path.rglob("*")) == before
    assert (told.films, told.patients, told.current_version) == (40, 40, None)
    assert sum(part["films"] for part in told.parts.values()) == 40
    assert told.sources == {"unknown": {"negative": 20, "positive": 20}}
    (sentence,) = told.missing
    assert sentence.startswith("cannot be judged: the held-out part stands on ")
    assert json.loads(json.dumps(told.to_json()))["outcome"] == "dry_run"


def test_a_preview_parts_the_films_as_the_run_will(settings):
    told = retrain.preview(settings)
    cases = snapshot.read(begin(settings) / runs.SNAPSHOT).cases
    parts = data.held_out(
        cases,
        test_fraction=settings.fit.test_fraction,
        validation_fraction=settings.fit.validation_fraction,
        seed=settings.fit.seed,
    )
    counts = [len(parts.training), len(parts.validation), len(parts.test)]
    assert [part["films"] for part in told.parts.values()] == counts
    assert not {"negative/1.png", "positive/1.png"} & {case.patient for case in cases}


# ------------------------------------------------------------------------------------ runs


def hold(folder: Path, begun, end) -> None:
    with runs.alone(folder):
        begun.set()
        end.wait(60)


def test_two_retrainings_do_not_run_at_once_and_the_lock_ends_with_the_process(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    begun, end = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path, begun, end))
    other.start()
    assert begun.wait(60)
    with pytest.raises(TrainerError, match="another retraining is on"), runs.alone(tmp_path):
        pass
    other.kill()
    other.join(60)
    with runs.alone(tmp_path):
        pass


def test_old_runs_go_and_nothing_else_does(tmp_path: Path):
    (tmp_path / "kept-by-somebody").mkdir()
    for number in range(4):
        folder = runs.opened(tmp_path, f"run-{number}")
        (folder / runs.SNAPSHOT).write_text("")
        (folder / runs.CANDIDATE).mkdir()
        os.utime(folder, (number, number))
    runs.tidy(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"kept-by-somebody", "run-2", "run-3"}
    assert not list(tmp_path.glob(f"*/{runs.CANDIDATE}"))


def test_a_damaged_record_of_the_last_run_is_named(tmp_path: Path):
    assert runs.last(tmp_path) is None
    (tmp_path / "last.json").write_text("{}")
    with pytest.raises(TrainerError, match="remove it to start afresh"):
        runs.last(tmp_path)


def test_a_worker_waits_for_the_chief_and_not_for_ever(tmp_path: Path):
    runs.opened(tmp_path, "job-1")
    with pytest.raises(TrainerError, match=r"the chief took no snapshot in .* within 0 s"):
        runs.await_chief(tmp_path, "job-1", 0)
    chief = threading.Timer(0.1, runs.tell_workers, (tmp_path / "job-1", "train"))
    chief.start()
    assert runs.await_chief(tmp_path, "job-1", 60) == (tmp_path / "job-1", "train")
    chief.join()


def test_a_worker_hears_that_there_is_nothing_new(settings):
    known = snapshot.read(begin(settings) / runs.SNAPSHOT).labels
    publish(settings.fit.out)
    with_films(settings.fit.out, 1, *((digest, label, "test") for digest, label in known.items()))
    with pytest.raises(NothingToDo):
        begin(settings, "job-1", tell=True)
    assert runs.await_chief(settings.run.runs, "job-1", 0)[1] == "nothing_new"


def test_the_workers_of_a_run_must_agree_on_its_name():
    assert flow._run_name("kubernetes", {"DICOMNODE_JOB_NAME": "retrain-7"}) == "retrain-7"
    with pytest.raises(UsageError, match="the same --run NAME"):
        flow._run_name("direct", {})


def test_the_registry_is_only_looked_at(settings):
    publish(settings.fit.out)
    begin(settings)
    assert registry.versions(settings.fit.out) == (1,)
