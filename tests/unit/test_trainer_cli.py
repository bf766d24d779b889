"""The command line: exit codes, one-line errors, no tensorflow before it is needed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.unit.test_trainer_registry import publish
from trainer.cli import main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "resnet"], "--network must be one of tiny, vgg16, mobilenet, mobilenet_v2"),
        (["--finding", "flu"], "--finding must be one of covid19"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--learning-rate", "0"], "--learning-rate must be above 0"),
        (["--network", "vgg16", "--weights", "gone.h5"], "no such file"),
        (["--network", "tiny", "--weights", "imagenet"], "--network tiny learns from scratch"),
        (["--minimum-sensitivity", "95"], "--minimum-sensitivity must lie between 0 and 1"),
        (
            ["--recipe", "thesis", "--minimum-sensitivity", "0.95"],
            "--recipe thesis has its threshold at 0.5",
        ),
        (["--progress", "loud"], "loud"),
    ],
)
def test_a_wrong_option_ends_with_2_and_says_what_is_right(
    tmp_path: Path, capsys, options, message
):
    code = run("fit", "--data", str(tmp_path), "--out", str(tmp_path / "m"), *options)
    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--work", "--report"])
def test_a_folder_that_cannot_be_written_is_told_before_the_training(
    tmp_path: Path, capsys, option
):
    """And leaves nothing behind. A file where a folder should be stands for a read-only disk,
    which would not stop root."""
    (tmp_path / "file").write_text("")
    folders = {"--out": tmp_path / "m", "--work": tmp_path / "w", "--report": tmp_path / "r"}
    folders[option] = tmp_path / "file" / "m"
    options = [word for name, folder in folders.items() for word in (name, str(folder))]
    assert run("fit", "--data", str(tmp_path), "--network", "tiny", *options) == 2
    assert "file is no folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_system_is_one_line(tmp_path: Path, capsys, monkeypatch):
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr("trainer.cli.models.registry.versions", full)
    assert run("models", "list", "--base", str(tmp_path)) == 1
    error = capsys.readouterr().err
    assert error == f"system: {tmp_path}: No space left on device (--debug shows where)\n"


def test_a_missing_folder_ends_with_2(tmp_path: Path, capsys):
    code = run("fit", "--data", str(tmp_path / "gone"), "--out", str(tmp_path / "m"))
    assert code == 2
    assert "--data must be a folder" in capsys.readouterr().err


def test_a_network_that_learns_batch_statistics_is_not_shared_out(tmp_path: Path, capsys):
    """The workers refuse; the launcher tells their reason once, and does not try again."""
    options = ("--data", str(tmp_path), "--out", str(tmp_path / "m"), "--workers", "2")
    assert run("fit", *options, "--network", "tiny") == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: --network tiny learns batch statistics")
    assert len(error.splitlines()) == 1


def test_workers_of_this_machine_are_not_started_within_a_cluster(tmp_path: Path, capsys):
    options = ("--data", str(tmp_path), "--out", str(tmp_path / "m"), "--workers", "2")
    assert run("fit", *options, "--strategy", "kubernetes") == 2
    assert "leave out --strategy kubernetes" in capsys.readouterr().err


def test_an_empty_folder_ends_with_1_and_publishes_nothing(tmp_path: Path, capsys):
    code = run("fit", "--data", str(tmp_path), "--out", str(tmp_path / "m"))
    assert code == 1
    error = capsys.readouterr().err
    assert error.startswith("data: ")
    assert len(error.splitlines()) == 1


def test_an_unknown_positive_class_names_the_classes(tmp_path: Path, capsys):
    for label in ("ill", "well"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.png").write_bytes(b"")
    code = run("fit", "--data", str(tmp_path), "--out", str(tmp_path / "m"))
    assert code == 1
    assert "found ill: 1 patient, well: 1 patient" in capsys.readouterr().err


def test_models_list_show_and_rollback_speak_of_the_registry(tmp_path: Path, capsys):
    base = str(tmp_path)
    assert run("models", "list", "--base", base) == 3
    publish(tmp_path)
    assert run("models", "rollback", "--base", base) == 3
    publish(tmp_path)
    capsys.readouterr()
    assert run("models", "rollback", "--base", base) == 0
    assert capsys.readouterr().out == "version 2 is withdrawn, version 1 serves\n"
    assert run("models", "list", "--base", base) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["1", "serving"], ["2", "withdrawn"]]
    assert run("models", "show", "1", "--base", base) == 0
    assert '"model_version": 1' in capsys.readouterr().out
    assert run("models", "show", "9", "--base", base) == 1


def test_tensorflow_is_not_imported_before_a_network_is_built():
    program = (
        "import sys, trainer.cli, trainer.fit, trainer.export, trainer.networks, trainer.train\n"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'h5py')))"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0


def test_a_header_value_that_pydicom_complains_about_is_not_printed(tmp_path: Path) -> None:
    """pydicom quotes what it cannot make sense of: a patient's identifier, for one."""
    for label in ("positive", "negative"):
        (tmp_path / label).mkdir()
        ds = phantom_dataset(1, label == "positive")
        ds.SpecificCharacterSet = "ISO_IR 100"
        data = part10_bytes(ds).replace(b"ISO_IR 100", b"S3CRET 100")
        (tmp_path / label / "film.dcm").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "audit", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "S3CR" not in done.stderr + done.stdout


def test_a_report_that_cannot_be_written_does_not_hide_that_a_version_serves(monkeypatch):
    """It is written after the publication: "nothing was published" would be untrue."""
    from trainer.errors import StorageFull
    from trainer.fit import run as program

    def full(*_arguments: object) -> None:
        raise StorageFull("no space left for the event files in reports/3")

    monkeypatch.setattr(program.evaluate, "write_tensorboard", full)
    config = SimpleNamespace(out=Path("models"), report_folder=Path("reports"))
    candidate = SimpleNamespace(history=(), assessment=None)
    card = SimpleNamespace(model_version=3)
    with pytest.raises(StorageFull, match="version 3 is published in models and serves, but no sp"):
        program._report(config, candidate, card)
