"""Settings are checked as a whole and answered in the operator's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.config import load
from dicomnode.errors import ConfigError


def problems(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, environment=environment or {})
    return caught.value.problems


def test_all_errors_are_told_at_once_each_naming_its_key(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        [dimse]
        port = 70000
        ae_title = "A_VERY_LONG_AE_TITLE"
        [serving]
        targets = ["nowhere"]
        [[destinations]]
        name = "pacs"
        """,
    )
    assert [line.split()[0].rstrip(":") for line in found] == [
        "dimse.ae_title",
        "dimse.port",
        "serving.targets",
        "destinations[0]",
    ]
    assert "got 70000" in found[1]
    assert "ae_title, host, port" in found[3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[dimse]\nprot = 1", "dimse.prot is not a setting; did you mean dimse.port?"),
        ("[dimse]\nroot = 'x'", "dimse.root is not a setting; did you mean storage.root?"),
        ("[storag]\n", "storag is not a setting; did you mean storage?"),
        (
            "[[destinations]]\nname='a'\nae_title='B'\nhost='h'\nport=1\ntimeout=3",
            "destinations[0].timeout is not a setting; "
            "did you mean destinations[0].timeout_seconds?",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert problems(tmp_path, text) == [expected]


def test_a_mistyped_environment_variable_is_an_error_too(tmp_path: Path) -> None:
    assert problems(tmp_path, "", {"DICOMNODE_DIMSE__PROT": "1"}) == [
        "dimse.prot is not a setting; did you mean dimse.port?"
    ]


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[dimse]\nport = 104\n")
    settings = load(
        path,
        environment={
            "DICOMNODE_DIMSE__PORT": "11113",
            "DICOMNODE_DIMSE__AE_TITLE": "NODE2",
            "DICOMNODE_SERVING__TARGETS": '["a:1", "b:2"]',
        },
    )
    assert settings.dimse.port == 11113
    assert settings.dimse.ae_title == "NODE2"
    assert settings.serving.targets == ["a:1", "b:2"]


def test_relative_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[storage]\nroot = 'data'\n")
    settings = load(path, environment={})
    assert settings.storage.root == tmp_path / "data"
    assert settings.serving.model_base_path == tmp_path / "var/models/covid19"


def test_secrets_are_masked_wherever_settings_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[storage]\ndatabase_url = 'postgresql+psycopg://u:geheim@h/d'\n")
    settings = load(path, environment={})
    assert "geheim" not in repr(settings)
    assert "geheim" not in settings.model_dump_json()
    found = problems(tmp_path, "[storage]\ndatabase_url = 3\n")
    assert "geheim" not in found[0]


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "[dimse\n")
    assert "is not valid TOML" in line


def test_only_loopback_and_known_peers_by_default() -> None:
    settings = load(None, environment={})
    assert settings.dimse.host == "127.0.0.1"
    assert settings.web.host == "127.0.0.1"
    assert not settings.dimse.accept_unknown_peers
    assert settings.dimse.peers == []
