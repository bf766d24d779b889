"""The file of `trainer submit`: every mistake is named, with what would be right."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from trainer.errors import UsageError
from trainer.submit import load, toml
from trainer.submit.settings import parse


def tables(**changed: Any) -> dict[str, Any]:
    given = {
        "cluster": {
            "image": "i",
            "claims": [
                {"claim": "films", "mount": "/data", "read_only": True},
                {"claim": "models", "mount": "/models"},
            ],
        },
        "fit": {"data": "/data", "out": "/models/covid19"},
    }
    for key, value in changed.items():
        table, _, name = key.partition("__")
        given.setdefault(table, {})
        if name:
            given[table][name] = value
        else:
            given[table] = value
    return {table: value for table, value in given.items() if value is not None}


def test_the_example_file_is_valid():
    found = load(ROOT / "config" / "submit.example.toml")
    assert found.cluster.workers == 2
    assert found.run.command == "fit"


def test_a_retraining_file_with_a_cluster_table_serves_both_commands():
    found = parse(
        tables(data={"node": "/data/node.toml"}, retrain={"runs": "/models/runs"}, fit__data=None)
        | {"fit": {"out": "/models/covid19"}},
        "retrain.toml",
    )
    assert found.run.command == "retrain"
    assert "cluster" not in found.run.tables


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cluster": None}, "[cluster] is missing"),
        ({"cluster": 3}, "cluster must be a table, got 3"),
        ({"cluster__image": ""}, "cluster.image"),
        ({"cluster__worker": 2}, "cluster.worker is not a setting; did you mean workers?"),
        ({"cluster__workers": 0}, "cluster.workers"),
        ({"cluster__workers": True}, "cluster.workers"),
        ({"cluster__workers": "2"}, "cluster.workers"),
        ({"cluster__cpu": "two"}, "cluster.cpu"),
        ({"cluster__memory": "2 GB"}, "cluster.memory"),
        ({"cluster__spread": "wide"}, "cluster.spread"),
        ({"cluster__user": 0}, "cluster.user"),
        ({"cluster__namespace": "Dicom"}, "cluster.namespace"),
        ({"cluster__claims": [{"claim": "a", "path": "/a"}]}, "cluster.claims.0.path is not"),
        ({"cluster__claims": [{"claim": "a", "mount": "a"}]}, "mount must be an absolute path"),
        ({"cluster__claims": [{"claim": "a", "mount": "/"}]}, "mount must be an absolute path"),
        ({"cluster__claims": [{"claim": "a", "mount": "/tmp/a"}]}, "mounted over each other"),
        ({"cluster__claims": [{"claim": "a", "mount": "/etc"}]}, "mounted over each other"),
        (
            {"cluster__claims": [{"claim": "a", "mount": "/a", "sub_path": "../b"}]},
            "sub_path must be relative",
        ),
        ({"cluster__in_cluster": True, "cluster__context": "x"}, "exclude each other"),
        ({"fitt": {}}, "fitt is not a table of this file; did you mean fit?"),
        ({"fit__epoch": 3}, "fit.epoch is not a setting; did you mean epochs?"),
        ({"fit": {"data": "/data"}}, "fit.out is missing"),
        ({"fit": {"out": "/models/x"}}, "fit.data is missing"),
        ({"fit__data": "films"}, "fit.data must be an absolute path inside the workers"),
        ({"fit__data": "/films"}, "fit.data /films lies on no claim (mounted: /data, /models)"),
        (
            {"fit__out": "/data/m"},
            "fit.out /data/m is written to, and the claim films is read_only",
        ),
        ({"fit__work": "/data/w"}, "fit.work /data/w is written to"),
        ({"fit__out": "/models"}, "fit.report /models-reports (the default) lies on no claim"),
        ({"fit__strategy": "direct"}, "fit.strategy must be kubernetes here"),
        ({"retrain": {}, "data": {"location": "/data"}}, "retrain.runs is missing"),
        ({"retrain": {"runs": "/models/r"}}, "data.location is missing"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(changed: dict[str, Any], message: str):
    with pytest.raises(UsageError) as told:
        parse(tables(**changed), "submit.toml")
    assert message in str(told.value)
    assert str(told.value).startswith("submit.toml: ")


def test_all_mistakes_are_told_at_once():
    with pytest.raises(UsageError) as told:
        parse(tables(fit__data="/a", fit__out="/b/c", fit__work="/d"), "submit.toml")
    assert len(str(told.value).splitlines()) == 4  # and the reports beside /b/c


def test_a_folder_in_the_mount_s_name_is_not_below_it():
    with pytest.raises(UsageError, match="lies on no claim"):
        parse(tables(fit__data="/database"), "submit.toml")
    with pytest.raises(UsageError, match="lies on no claim"):
        parse(tables(fit__data="/data/../etc"), "submit.toml")


@pytest.mark.parametrize("content", [None, b"[cluster", b"\xff"])
def test_a_file_that_cannot_be_read_is_an_error_of_usage(tmp_path: Path, content: bytes | None):
    path = tmp_path / "submit.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"submit\.toml"):
        load(path)


scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.dates()
    | st.datetimes()
    | st.times()
)
keys = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, values))
def test_what_is_written_as_toml_is_read_back_equal(table: dict[str, Any]):
    assert tomllib.loads(toml.dumps(table)) == table


def test_a_value_that_toml_cannot_say_is_a_type_error():
    with pytest.raises(TypeError, match="NoneType"):
        toml.dumps({"a": None})
