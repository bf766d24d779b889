"""Labels in the store, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dicomnode.errors import LabelsRefused, NotInStore
from dicomnode.findings import NotEvaluated, Reason
from dicomnode.jobs import JobKind
from dicomnode.ports import Acceptance
from dicomnode.storage import Storage
from dicomnode.storage import labels as labels_module
from dicomnode.storage.labels import class_name, origin
from dicomnode.storage.schema import labels
from dicomnode.testing.stores import received_instance

NOW = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)
STUDY = "1.2.3.100"


def accept(storage: Storage, *, now: datetime = NOW, **facts: Any) -> Acceptance:
    received = received_instance(storage.files.incoming, received_at=now, **facts)
    path = storage.files.keep(received)
    found = storage.index.accept(received, path=path, now=now, report_due_at=now)
    if found is Acceptance.CONFLICT:
        storage.index.record_conflict(received, path=storage.files.set_aside(path))
    return found


def say(storage: Storage, label: str, *, study: str = STUDY, image: str = "", **facts: Any) -> bool:
    facts = {"author": "Dr. Ruiz"} | facts
    return storage.labels.record(label, study_instance_uid=study, sop_instance_uid=image, **facts)


def held(storage: Storage) -> dict[str, str]:
    """Which label holds for which image."""
    return {
        found.instance.sop_instance_uid: found.label.label
        for found in storage.labels.labelled_instances()
    }


@pytest.fixture
def study(storage: Storage) -> Storage:
    """A study of two images, and another of one."""
    accept(storage, sop="1.2.3.1")
    accept(storage, sop="1.2.3.2", content=b"two")
    accept(storage, sop="1.2.3.3", study="1.2.3.200", series="1.2.3.20", content=b"three")
    return storage


def test_a_studys_label_holds_for_its_images_until_an_image_has_its_own(study: Storage) -> None:
    assert say(study, "positive")
    assert held(study) == {"1.2.3.1": "positive", "1.2.3.2": "positive"}
    assert say(study, "negative", image="1.2.3.2")
    assert held(study) == {"1.2.3.1": "positive", "1.2.3.2": "negative"}
    (count, _) = study.labels.counts(), study.labels.unlabelled()
    assert [(c.label, c.studies, c.instances) for c in count] == [
        ("negative", 1, 1),
        ("positive", 1, 1),
    ]
    assert count[0].newest.tzinfo is not None
    assert study.labels.unlabelled() == 1
    assert study.labels.classes() == {"negative", "positive"}


def test_a_label_is_superseded_and_its_history_is_kept(study: Storage) -> None:
    say(study, "positive", source="ris", author="import", labelled_at=NOW)
    say(study, "negative")
    first, second = study.labels.history(STUDY)
    assert (first.label, first.source, first.author) == ("positive", "ris", "import")
    assert first.labelled_at == NOW
    assert first.superseded_at == second.recorded_at == second.labelled_at
    assert second.superseded_at is None
    assert list(study.labels.current_labels(STUDY)) == [second]
    assert list(study.labels.history("1.2.3.200")) == []


def test_an_empty_label_takes_back_what_was_said(study: Storage) -> None:
    say(study, "positive")
    say(study, "negative", image="1.2.3.1")
    assert say(study, "", image="1.2.3.1")
    assert held(study) == {"1.2.3.1": "positive", "1.2.3.2": "positive"}
    assert say(study, "")
    assert not say(study, "")
    assert held(study) == {}
    assert list(study.labels.current_labels()) == []
    assert study.labels.classes() == set()
    assert [label.label for label in study.labels.history()] == ["positive", "negative", "", ""]
    assert say(study, "positive")
    assert len(held(study)) == 2


def test_what_was_said_already_is_not_said_again(study: Storage) -> None:
    assert say(study, "positive")
    assert not say(study, "positive")
    assert say(study, "positive", author="Dr. Weber")
    assert len(list(study.labels.history())) == 2
    assert not say(study, "", study="1.2.3.200")


def test_what_is_not_in_the_store_cannot_be_labelled(study: Storage) -> None:
    accept(study, sop="1.2.3.9", content=b"a heatmap", own_product=True)
    for target in (
        {"study": "1.9"},
        {"image": "1.9"},
        {"image": "1.2.3.3"},  # of another study
        {"image": "1.2.3.9"},
    ):
        with pytest.raises(NotInStore, match=r"no (study|image) [\d.]+ .*in the store"):
            say(study, "positive", **target)
    assert list(study.labels.history()) == []


def test_own_products_have_no_label_and_conflicts_are_told(study: Storage) -> None:
    accept(study, sop="1.2.3.9", content=b"a heatmap", own_product=True)
    assert accept(study, sop="1.2.3.2", content=b"other content") is Acceptance.CONFLICT
    say(study, "positive")
    assert {
        found.instance.sop_instance_uid: found.came_twice
        for found in study.labels.labelled_instances()
    } == {"1.2.3.1": False, "1.2.3.2": True}
    assert study.labels.unlabelled() == 1


def test_what_the_node_refused_is_said_with_the_label(study: Storage) -> None:
    for job in study.queue.claim(JobKind.ANALYSE, owner="w", now=NOW, lease_seconds=60, limit=1):
        refused = NotEvaluated(reason=Reason.CONTRAST, detail="blank")
        study.index.record_outcome(job, refused, now=NOW)
    say(study, "positive")
    assert [found.refusal for found in study.labels.labelled_instances()] == [
        Reason.CONTRAST,
        None,
    ]


def test_pages_leave_nothing_out(study: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "_PAGE", 2)
    for number in range(4, 9):
        accept(study, sop=f"1.2.3.{number}", content=b"%d" % number)
    say(study, "positive")
    for number in (5, 6, 7):
        say(study, "negative", image=f"1.2.3.{number}")
    assert len(held(study)) == 7
    assert len(list(study.labels.history())) == 4
    assert len(list(study.labels.current_labels())) == 4


def test_two_readers_at_once_leave_one_label_and_both_statements(study: Storage) -> None:
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def read(author: str) -> None:
        start.wait(20)
        try:
            for label in ("positive", "negative") * 5:
                say(study, label, author=author)
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=read, args=(f"reader {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    history = list(study.labels.history())
    assert len(history) == 40
    assert [label.superseded_at is None for label in history].count(True) == 1


@pytest.mark.parametrize("name", ["positive", "no finding", "covid-19", "néoplasie", "2", "a.b+c"])
def test_a_class_name_may_be_any_short_word(name: str) -> None:
    assert class_name(f" {name} ") == name


@pytest.mark.parametrize(
    "name", ["", "=1+1", "../x", "a/b", "-", "a,b", "x" * 65, "a\nb", "Doe^John", ".hidden", "a."]
)
def test_what_is_no_class_name_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(LabelsRefused, match="letters, digits, spaces") as refused:
        class_name(name)
    assert not name.strip("-.") or name not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["review", "import:labels 2.csv", "Dr. Müller, Karl", "O'Neil (MD)"]
)
def test_a_source_or_author_may_be_what_people_are_called(text: str) -> None:
    assert origin(text, "author") == text


def test_a_spreadsheet_takes_no_author_for_a_formula(study: Storage) -> None:
    for author in ("=cmd()", "@SUM(1)", "+1", "-1", ""):
        with pytest.raises(LabelsRefused, match="the author cannot be used"):
            say(study, "positive", author=author)
    with pytest.raises(LabelsRefused, match="the source cannot be used"):
        say(study, "positive", source="=1")


def test_times_keep_their_moment_whatever_their_zone(study: Storage) -> None:
    zone = datetime.fromisoformat("2026-03-04T06:06:07+01:00")
    say(study, "positive", labelled_at=zone)
    (label,) = study.labels.current_labels()
    assert label.labelled_at == zone
    assert label.labelled_at.utcoffset() == timedelta(0)


def test_the_database_itself_allows_one_current_label(study: Storage) -> None:
    from dicomnode.storage.database import IntegrityRefused

    say(study, "positive")
    say(study, "negative", image="1.2.3.1")

    def twice(image: bool) -> None:
        condition = labels.c.instance_id.is_not(None) if image else labels.c.instance_id.is_(None)

        def work(connection: Any) -> None:
            row = dict(connection.execute(select(labels).where(condition)).mappings().one())
            del row["id"]
            connection.execute(labels.insert().values(**row))

        study.database.write(work)

    for image in (True, False):
        with pytest.raises(IntegrityRefused):
            twice(image)
