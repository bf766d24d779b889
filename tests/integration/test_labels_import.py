"""Importing labels: as a whole or not at all, and never twice."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomnode.cli import main
from dicomnode.errors import LabelsRefused
from dicomnode.storage import Storage, labelimport
from dicomnode.storage.labelfile import LabelLine
from dicomnode.storage.labelimport import (
    Effect,
    Imported,
    Policy,
    import_lines,
    require_known_classes,
)
from dicomnode.testing.stores import opened_store
from tests.integration.test_labels import STUDY, accept, held, say

PATIENT = "PAT-4711"
TIME = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
POLICY = Policy(default_source="import:a.csv", default_author="root")
IMPORTED = {"default_source": "import:a.csv", "default_author": "root"}


def fill(storage: Storage) -> Storage:
    """Three studies: two images, one, one; the last two share an accession number."""
    facts = {"accession_number": "0042", "patient_id": PATIENT}
    accept(storage, sop="1.2.3.1", **facts)
    accept(storage, sop="1.2.3.2", content=b"two", **facts)
    facts = {"accession_number": "77", "patient_id": "PAT-1"}
    accept(storage, sop="1.2.3.3", study="1.2.3.200", series="1.2.4", content=b"3", **facts)
    facts = {"accession_number": "77", "patient_id": "PAT-2"}
    accept(storage, sop="1.2.3.4", study="1.2.3.300", series="1.2.5", content=b"4", **facts)
    return storage


@pytest.fixture
def filled(storage: Storage) -> Storage:
    return fill(storage)


def line(label: str = "positive", number: int = 2, **facts: Any) -> LabelLine:
    return LabelLine(line=number, label=label, **facts)


def effects(imported: Imported) -> dict[Effect, tuple[int, ...]]:
    return dict(imported.effects)


# ---------------------------------------------------------------- keys


def test_a_label_finds_its_image_or_study_by_any_key(filled: Storage) -> None:
    lines = [
        line("negative", 2, sop_instance_uid="1.2.3.2"),
        line("positive", 3, accession_number="0042", patient_id=PATIENT),
        line("positive", 4, study_instance_uid="1.2.3.200", accession_number="77"),
        line("negative", 5, accession_number="77", patient_id="PAT-2"),
    ]
    assert effects(import_lines(filled.labels, lines, POLICY)) == {Effect.NEW: (2, 3, 4, 5)}
    assert held(filled) == {
        "1.2.3.1": "positive",
        "1.2.3.2": "negative",
        "1.2.3.3": "positive",
        "1.2.3.4": "negative",
    }
    assert {(said.source, said.author) for said in filled.labels.history()} == {
        ("import:a.csv", "root")
    }


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"sop_instance_uid": "1.9"}, "the store does not hold"),
        ({"study_instance_uid": "1.9"}, "the store does not hold"),
        ({"accession_number": "42"}, "the store does not hold"),
        ({"sop_instance_uid": "1.2.3.9"}, "the store does not hold"),  # our own heatmap
        ({"accession_number": "77"}, "names 2 studies; give study_instance_uid or patient_id"),
        ({"accession_number": "0042", "patient_id": "PAT-1"}, "patient_id is not that of"),
        ({"sop_instance_uid": "1.2.3.1", "patient_id": "PAT-1"}, "patient_id is not that of"),
        (
            {"sop_instance_uid": "1.2.3.1", "study_instance_uid": "1.2.3.200"},
            "the image is in another study",
        ),
        (
            {"study_instance_uid": STUDY, "accession_number": "77"},
            "accession_number belongs to another study",
        ),
    ],
)
def test_a_key_that_names_nothing_or_too_much_is_refused_by_line(
    filled: Storage, facts: dict[str, str], told: str
) -> None:
    accept(filled, sop="1.2.3.9", content=b"a heatmap", own_product=True)
    lines = [line(number=2, sop_instance_uid="1.2.3.1"), line(number=7, **facts)]
    with pytest.raises(LabelsRefused, match=f"line 7: .*{told}") as refused:
        import_lines(filled.labels, lines, POLICY)
    assert "PAT" not in str(refused.value)
    assert "77" not in str(refused.value)
    assert list(filled.labels.history()) == []


def test_unknown_keys_are_counted_and_may_be_left_out(filled: Storage) -> None:
    lines = [line(number=2, sop_instance_uid="1.2.3.1"), line(number=3, accession_number="42")]
    with pytest.raises(LabelsRefused, match=r"1 of 2 keys are unknown.*leading zeros"):
        import_lines(filled.labels, lines, POLICY)
    skipping = Policy(**IMPORTED, skip_unknown=True)
    done = import_lines(filled.labels, lines, skipping)
    assert effects(done) == {Effect.UNKNOWN: (3,), Effect.NEW: (2,)}
    assert done.recorded == 1


def test_lines_that_contradict_each_other_are_refused_and_equal_ones_count_once(
    filled: Storage,
) -> None:
    lines = [
        line("positive", 2, study_instance_uid=STUDY),
        line("positive", 3, accession_number="0042"),
        line("negative", 4, sop_instance_uid="1.2.3.1"),  # an image may differ from its study
    ]
    contradiction = line("negative", 5, accession_number="0042")
    with pytest.raises(LabelsRefused, match="line 5: contradicts line 2"):
        import_lines(filled.labels, [*lines, contradiction], POLICY)
    assert effects(import_lines(filled.labels, lines, POLICY)) == {Effect.NEW: (2, 4)}


# ---------------------------------------------------------------- what changes


def test_the_same_file_twice_says_nothing_new(filled: Storage) -> None:
    lines = [line(accession_number="0042"), line("negative", 3, sop_instance_uid="1.2.3.2")]
    assert import_lines(filled.labels, lines, POLICY).recorded == 2
    again = import_lines(filled.labels, lines, POLICY)
    assert effects(again) == {Effect.UNCHANGED: (2, 3)}
    assert (again.recorded, len(list(filled.labels.history()))) == (0, 2)


def test_another_author_or_source_is_another_statement_when_it_is_stated(filled: Storage) -> None:
    import_lines(filled.labels, [line(sop_instance_uid="1.2.3.1")], POLICY)
    stated = line(sop_instance_uid="1.2.3.1", author="Dr. Ruiz")
    done = import_lines(filled.labels, [stated], POLICY)
    assert (effects(done), done.changes) == ({Effect.CHANGED: (2,)}, {("positive", "positive"): 1})
    ris = Policy(**IMPORTED, source="ris")
    assert import_lines(filled.labels, [stated], ris).recorded == 1
    assert import_lines(filled.labels, [stated], ris).recorded == 0
    (current,) = filled.labels.current_labels()
    assert (current.source, current.author) == ("ris", "Dr. Ruiz")


def test_a_dry_run_says_the_same_and_records_nothing(filled: Storage) -> None:
    import_lines(filled.labels, [line("negative", sop_instance_uid="1.2.3.1")], POLICY)
    lines = [line(sop_instance_uid="1.2.3.1"), line(number=3, sop_instance_uid="1.2.3.3")]
    dry = import_lines(filled.labels, lines, POLICY, dry_run=True)
    assert held(filled) == {"1.2.3.1": "negative"}
    assert dry == import_lines(filled.labels, lines, POLICY)
    assert dry.changes == {("negative", "positive"): 1, ("", "positive"): 1}
    assert held(filled) == {"1.2.3.1": "positive", "1.2.3.3": "positive"}


def test_what_is_older_than_the_label_that_is_held_does_not_replace_it(filled: Storage) -> None:
    newer = line("negative", sop_instance_uid="1.2.3.1", labelled_at=TIME)
    older = line(sop_instance_uid="1.2.3.1", labelled_at=TIME - timedelta(days=1))
    import_lines(filled.labels, [newer], POLICY)
    assert effects(import_lines(filled.labels, [older], POLICY)) == {Effect.OLDER: (2,)}
    assert held(filled) == {"1.2.3.1": "negative"}


def test_a_readers_review_is_overruled_only_when_that_is_asked_for(filled: Storage) -> None:
    say(filled, "negative", image="1.2.3.1")
    lines = [line(sop_instance_uid="1.2.3.1")]
    assert effects(import_lines(filled.labels, lines, POLICY)) == {Effect.REVIEWED: (2,)}
    same = [line("negative", sop_instance_uid="1.2.3.1", author="RIS")]
    assert effects(import_lines(filled.labels, same, POLICY)) == {Effect.UNCHANGED: (2,)}
    overrule = Policy(**IMPORTED, overrule_reviews=True)
    assert effects(import_lines(filled.labels, lines, overrule)) == {Effect.CHANGED: (2,)}
    review = [line("negative", sop_instance_uid="1.2.3.1", source="review")]
    say(filled, "positive", image="1.2.3.1")
    assert effects(import_lines(filled.labels, review, POLICY)) == {Effect.CHANGED: (2,)}


def test_an_empty_label_in_a_file_takes_back(filled: Storage) -> None:
    import_lines(filled.labels, [line(accession_number="0042")], POLICY)
    back = [line("", accession_number="0042"), line("", 3, sop_instance_uid="1.2.3.3")]
    done = import_lines(filled.labels, back, POLICY)
    assert effects(done) == {Effect.WITHDRAWN: (2,), Effect.UNCHANGED: (3,)}
    assert held(filled) == {}
    assert import_lines(filled.labels, back, POLICY).recorded == 0


def test_an_import_decides_again_when_somebody_labels_meanwhile(
    filled: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A review that is saved between reading and writing is not lost."""
    planned = labelimport._planned
    reviews = ["negative"]

    def planned_while_reviewed(connection: Any, *arguments: Any) -> Any:
        plan = planned(connection, *arguments)
        if reviews:
            thread = threading.Thread(
                target=say, args=(filled, reviews.pop()), kwargs={"image": "1.2.3.1"}
            )
            thread.start()
            thread.join(20)
        return plan

    monkeypatch.setattr(labelimport, "_planned", planned_while_reviewed)
    done = import_lines(filled.labels, [line(sop_instance_uid="1.2.3.1")], POLICY)
    assert effects(done) == {Effect.REVIEWED: (2,)}
    assert held(filled) == {"1.2.3.1": "negative"}


# ---------------------------------------------------------------- class names


@pytest.mark.parametrize(
    ("names", "known", "told"),
    [
        (["positive", "negative"], [], None),
        (["normal", "abnormal", "covid", "no covid"], [], None),
        (["positive", "postive"], [], "class 'postive' was not used before, nearly 'positive'"),
        (["positive", "Positive"], [], "'Positive' was not used before, nearly 'positive'"),
        (["positive"], ["positive", "negative"], None),
        (["tuberculosis"], ["positive", "negative"], "class 'tuberculosis' was not used before$"),
    ],
)
def test_a_class_name_that_looks_like_a_typing_error_is_asked_about(
    names: list[str], known: list[str], told: str | None
) -> None:
    lines = [line(name, number) for number, name in enumerate(names, start=2)]
    if told is None:
        require_known_classes(lines, known, [])
        return
    with pytest.raises(LabelsRefused, match=f"(?m)line .*{told}"):
        require_known_classes(lines, known, [])
    require_known_classes(lines, known, names)


# ---------------------------------------------------------------- the command


@pytest.fixture
def config(tmp_path: Path) -> Path:
    with opened_store(tmp_path / "var") as storage:
        fill(storage)
    path = tmp_path / "node.toml"
    path.write_text("[storage]\nminimum_free_bytes = 0\n")
    return path


def run(capfd: pytest.CaptureFixture[str], config: Path, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["labels", *arguments, "--config", str(config)])
    captured = capfd.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def written(folder: Path, text: str, name: str = "labels.csv") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_the_command_imports_once_and_then_has_nothing_to_do(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    file = written(tmp_path, "AccessionNumber;PatientID;label\n0042;PAT-4711;positive\n")
    code, out, _ = run(capfd, config, "import", file, "--dry-run")
    assert (code, "nothing was recorded (--dry-run)" in out) == (0, True)
    code, out, _ = run(capfd, config, "import", file, "--json")
    assert (code, json.loads(out)["new"], json.loads(out)["recorded"]) == (0, 1, 1)
    code, out, _ = run(capfd, config, "import", file)
    assert (code, "nothing to do" in out) == (3, True)
    code, out, _ = run(capfd, config, "list", "--json")
    (found,) = json.loads(out)["classes"]
    assert (found["label"], found["studies"], found["images"]) == ("positive", 1, 2)
    assert json.loads(out)["unlabelled"] == 2
    code, out, _ = run(capfd, config, "list")
    assert (code, "2 images without a label" in out) == (0, True)


def test_an_export_can_be_imported_into_the_same_store_and_changes_nothing(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    assert run(capfd, config, "export")[0] == 3
    file = written(
        tmp_path,
        "sop_instance_uid,study_instance_uid,label\n,1.2.3.100,positive\n1.2.3.2,,negative\n",
    )
    run(capfd, config, "import", file, "--author", "Dr. Ruiz", "--source", "ris")
    written(tmp_path, "sop_instance_uid,label\n1.2.3.2,positive\n")
    run(capfd, config, "import", file)
    for options in ([], ["--history"]):
        exported = tmp_path / "exported.csv"
        code, out, _ = run(capfd, config, "export", str(exported), *options)
        assert (code, out.split()[0]) == (0, "3" if options else "2")
        assert exported.stat().st_mode & 0o777 == 0o600
        assert run(capfd, config, "export", *options)[1] == exported.read_text()
        code, out, _ = run(capfd, config, "import", str(exported))
        assert (code, "2 said already" in out) == (3, True)
    assert "ris,Dr. Ruiz" in exported.read_text()
    assert list(tmp_path.glob(".exported*")) == []


def test_an_export_can_be_imported_into_another_store(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    file = written(tmp_path, "sop_instance_uid,label\n1.2.3.2,negative\n1.2.3.3,positive\n")
    run(capfd, config, "import", file, "--author", "Dr. Ruiz", "--source", "review")
    first = run(capfd, config, "export")[1]
    other = tmp_path / "other"
    with opened_store(other / "var") as storage:
        fill(storage)
    other_config = other / "node.toml"
    other_config.write_text(config.read_text())
    code, _, _ = run(capfd, other_config, "import", written(tmp_path, first, "exported.csv"))
    assert code == 0
    assert run(capfd, other_config, "export")[1] == first


def test_the_command_says_what_is_wrong_without_patients(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    file = written(
        tmp_path, f"accession_number,patient_id,label\n0042,{PATIENT},positive\n42,PAT-9,positive\n"
    )
    logging.getLogger().setLevel(logging.DEBUG)
    code, out, err = run(capfd, config, "import", file)
    assert (code, out) == (1, "")
    assert err.startswith("labels_refused: labels.csv: nothing was recorded:\n  line 3: ")
    assert "PAT" not in err
    assert "0042" not in err
    code, out, err = run(capfd, config, "import", file, "--skip-unknown")
    assert (code, "1 not in the store, left out: lines 3" in out) == (0, True)
    assert "PAT" not in out + err
    file = written(tmp_path, "study_instance_uid,label,ward\n1.2.3.200,postive,x\n")
    code, out, err = run(capfd, config, "import", file)
    assert (code, "'postive' was not used before, nearly 'positive'" in err) == (1, True)
    code, out, err = run(capfd, config, "import", file, "--new-class", "postive")
    assert (code, "column 3 is not read" in err) == (0, True)


def test_wrong_usage_ends_with_2_and_a_missing_file_with_1(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    file = written(tmp_path, "study_instance_uid,label\n1.2.3.200,positive\n")
    assert run(capfd, config, "import", file, "--author", "=cmd()")[0] == 2
    assert run(capfd, config, "import", file, "--new-class", "a/b")[0] == 2
    assert run(capfd, config, "import")[0] == 2
    code, _, err = run(capfd, config, "import", str(tmp_path / "none.csv"))
    assert (code, "cannot read" in err) == (1, True)
    code, _, err = run(capfd, config, "export", str(tmp_path / "none" / "labels.csv"))
    assert (code, "cannot write" in err) == (1, True)


def test_a_command_works_beside_a_running_node(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    file = written(tmp_path, "study_instance_uid,label\n1.2.3.200,positive\n")
    with opened_store(tmp_path / "var") as node:
        assert run(capfd, config, "import", file)[0] == 0
        assert held(node) == {"1.2.3.3": "positive"}
