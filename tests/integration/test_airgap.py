"""The bundle for a cluster without internet: made, found damaged, installed.

Image archives here are real ones of a few bytes; `k3s` is a script that records its calls and
keeps a list of images.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, require_program

AIRGAP = ROOT / "deploy" / "airgap"
DIGEST = "sha256:" + "ab" * 32
K3S = r"""#!/bin/sh
state=$(dirname "$0")/../state
echo "$*" >>"$state/calls"
case "$*" in
*"images list"*) test -e "$state/running" && cat "$state/images" ;;
*"images import"*)
    test ! -e "$state/broken" || exit 1
    name=$(tar -xOf "$6" manifest.json | sed 's/.*"RepoTags": \["\([^"]*\)".*/\1/')
    echo "$name" >>"$state/images" ;;
*" diff "*) test -e "$state/applied" ;;
*" apply "*) touch "$state/applied" ;;
esac
"""
MANIFESTS = """
kind: Deployment
spec:
  template:
    spec:
      containers:
      - name: node
        image: dicomnode/node:0.1.0
---
kind: StatefulSet
spec:
  template:
    spec:
      containers:
        - image: "postgres:17.5-bookworm"
          imagePullPolicy: IfNotPresent
---
kind: ConfigMap
data:
  submit.toml: |
    image = "dicomnode/trainer:0.1.0"
"""


def archive(path: Path, name: str, architecture: str = "amd64") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        "manifest.json": [{"Config": "config.json", "RepoTags": [name], "Layers": []}],
        "config.json": {"architecture": architecture, "os": "linux"},
    }
    with tarfile.open(path, "w") as tar:
        for part, value in parts.items():
            content = json.dumps(value).encode()
            member = tarfile.TarInfo(part)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


class Workshop:
    """Slots, as an operator fills them where there is internet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "site.yaml").write_text(MANIFESTS)
        (folder / "images.env").write_text(f"POSTGRES_IMAGE=postgres:17.5-bookworm@{DIGEST}\n")
        for name in ("node", "trainer"):
            archive(self.slot(f"dicomnode_{name}_0.1.0"), f"docker.io/dicomnode/{name}:0.1.0")
        name = "docker.io/library/postgres:17.5-bookworm"  # as containerd would call it
        archive(self.slot("postgres_17.5-bookworm"), name)
        k3s = folder / "k3s" / "amd64"
        k3s.mkdir(parents=True)
        (k3s / "k3s").write_bytes(b"\x7fELF the program")
        (k3s / "k3s-airgap-images-amd64.tar.zst").write_bytes(b"its images")
        (k3s / "sha256sum-amd64.txt").write_text(
            "".join(
                f"{hashlib.sha256((k3s / name).read_bytes()).hexdigest()}  {name}\n"
                for name in ("k3s", "k3s-airgap-images-amd64.tar.zst")
            )
        )

    def slot(self, name: str) -> Path:
        return self.folder / "images" / "amd64" / f"{name}.tar"

    def make(self, *options: str, out: str = "bundle") -> subprocess.CompletedProcess[str]:
        arguments = ["--arch", "amd64", "--manifests", "site.yaml", "--pins", "images.env"]
        version = ["--k3s-version", "v1.33.5+k3s1", "--out", out]
        return subprocess.run(
            [sys.executable, AIRGAP / "make_bundle.py", *arguments, *version, *options],
            cwd=self.folder,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


class Board:
    """A root folder on which a bundle is installed by the installer of the checkout."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.bundle, self.root = folder, bundle, folder / "root"
        self.state = folder / "state"
        for path in (self.root, self.state, folder / "commands"):
            path.mkdir(parents=True)
        self.command("k3s", K3S)
        (self.state / "images").touch()

    def command(self, name: str, text: str) -> None:
        path = self.folder / "commands" / name
        path.write_text(text)
        path.chmod(0o755)

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = [AIRGAP / "install.sh", "--bundle", self.bundle, "--arch", "amd64"]
        return subprocess.run(
            [*program, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "TMPDIR": str(self.folder),
                "ROOT": str(self.root),
                "COMMANDS": str(self.folder / "commands"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def must(self, *arguments: str) -> str:
        done = self.install(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def used(self) -> list[str]:
        """Everything outside the staging folder, and what was told to k3s."""
        told = self.state / "calls"
        lines = told.read_text().splitlines() if told.exists() else []
        stage = self.root / "var/lib/dicomnode-setup"
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return [str(path) for path in files if stage not in path.parents] + [
            line for line in lines if " list " not in line
        ]


def verify(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AIRGAP / "verify.sh", bundle, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle and its seal. Tests that damage it take a copy."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    done = workshop.make()
    assert done.returncode == 0, done.stderr
    return workshop.folder / "bundle", done.stdout.splitlines()[1]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def board(tmp_path: Path, made: tuple[Path, str]) -> Board:
    return Board(tmp_path, shutil.copytree(made[0], tmp_path / "bundle"))


def test_a_bundle_says_what_is_in_it_and_can_be_made_again_to_the_byte(
    workshop: Workshop, made: tuple[Path, str]
) -> None:
    described = json.loads((made[0] / "MANIFEST.json").read_text())
    assert [(image["name"], image["pinned"]) for image in described["images"]] == [
        ("docker.io/dicomnode/node:0.1.0", ""),
        ("docker.io/dicomnode/trainer:0.1.0", ""),
        ("docker.io/library/postgres:17.5-bookworm", DIGEST),
    ]
    assert described["k3s"] == "v1.33.5+k3s1"
    again = workshop.make(out="again")
    assert again.stdout.splitlines()[1] == made[1]
    told = verify(made[0], "--seal", made[1])
    assert told.returncode == 0, told.stderr
    sha256sum = require_program("sha256sum")
    subprocess.run(
        [sha256sum, "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=made[0], check=True
    )


def test_the_manual_is_on_the_stick_and_its_links_lead_somewhere_there(
    made: tuple[Path, str],
) -> None:
    """Where the cluster is there is no internet to look things up."""
    manual = made[0] / "docs" / "operations"
    assert (manual / "bare-boards.md").read_bytes() == (
        ROOT / "docs" / "operations" / "bare-boards.md"
    ).read_bytes()
    links = {
        (page, link)
        for page in [*manual.glob("*.md"), made[0] / "docs" / "operations.md"]
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    }
    assert len(links) > 30
    dead = {link for page, link in links if not (page.parent / link).exists()}
    assert dead <= {"../../deploy/base/trainer-rbac.yaml"}, "manifests are there as rendered"


def test_empty_slots_are_told_all_at_once_with_the_command_that_fills_each(
    workshop: Workshop,
) -> None:
    for path in workshop.slot("x").parent.iterdir():
        path.unlink()
    (workshop.folder / "k3s/amd64/k3s").unlink()
    done = workshop.make()
    assert done.returncode == 1
    assert f"docker://docker.io/library/postgres@{DIGEST}" in done.stderr
    assert "docker save --platform linux/amd64" in done.stderr
    assert "it is k3s of k3s v1.33.5+k3s1" in done.stderr
    assert done.stderr.count("is missing") == 4
    assert not (workshop.folder / "bundle").exists()
    listed = workshop.make("--list")
    assert listed.returncode == 0
    assert (
        str(workshop.slot("postgres_17.5-bookworm").relative_to(workshop.folder)) in listed.stdout
    )


def test_an_image_for_another_architecture_is_found_before_it_is_carried_anywhere(
    workshop: Workshop,
) -> None:
    archive(workshop.slot("dicomnode_node_0.1.0"), "dicomnode/node:0.1.0", "arm64")
    done = workshop.make()
    assert done.returncode == 1
    assert "dicomnode/node:0.1.0 is for arm64, expected amd64" in done.stderr
    assert not list(workshop.folder.glob("bundle*"))


def test_an_archive_of_another_image_and_one_that_is_none_are_refused(workshop: Workshop) -> None:
    archive(workshop.slot("dicomnode_node_0.1.0"), "dicomnode/node:0.0.9")
    assert "holds docker.io/dicomnode/node:0.0.9, expected" in workshop.make().stderr
    workshop.slot("dicomnode_node_0.1.0").write_bytes(b"half an archi")
    assert "not an image archive that can be read" in workshop.make().stderr


def test_a_k3s_that_is_not_the_released_one_is_refused(workshop: Workshop) -> None:
    (workshop.folder / "k3s/amd64/k3s").write_bytes(b"something else")
    done = workshop.make()
    assert done.returncode == 1
    assert "the release says" in done.stderr
    assert not list(workshop.folder.glob("bundle*"))


@pytest.mark.parametrize("name", [f"postgres@{DIGEST}", "postgres:latest", "postgres"])
def test_an_image_without_a_tag_of_its_own_is_refused(workshop: Workshop, name: str) -> None:
    (workshop.folder / "site.yaml").write_text(f"spec:\n  image: {name}\n")
    done = workshop.make()
    assert done.returncode == 1
    assert name in done.stderr


def test_the_overlay_of_two_boards_goes_through_from_its_manifests_to_containerd(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image of the real manifests has a slot, and arrives under the name that pods use."""
    from tests.peers.manifests import _kubectl  # skips or fails when there is none new enough

    monkeypatch.setenv("PATH", f"{Path(_kubectl()).parent}:{os.environ['PATH']}")
    overlay = ROOT / "deploy" / "overlays" / "k3s-jetson"
    options = ["--overlay", str(overlay), "--pins", str(ROOT / "docker" / "images.env")]
    (workshop.folder / "site.yaml").write_text("")
    listed = workshop.make("--list", *options).stdout.splitlines()
    empty = [Path(line) for line in listed if line.endswith(".tar")]
    assert len(empty) > 5
    rendered = subprocess.run(
        ["kubectl", "kustomize", overlay], capture_output=True, text=True, check=True
    )
    names = set(re.findall(r"^ *(?:- )?image: (\S+)$", rendered.stdout, re.MULTILINE))
    for name in names:
        full = (
            name
            if "." in name.split("/")[0]
            else "docker.io/" + ("" if "/" in name else "library/")
        )
        full = full if full == name else full + name
        archive(workshop.folder / "images/amd64" / f"{re.sub('[/:]', '_', name)}.tar", full)
    assert all((workshop.folder / path).is_file() for path in empty)
    done = workshop.make(*options)
    assert done.returncode == 0, done.stderr
    board = Board(workshop.folder / "board", workshop.folder / "bundle")
    (board.state / "running").touch()
    board.must("k3s", "images", "setup")
    board.must("manifests", "--overlay", "k3s-jetson")
    kept = set((board.state / "images").read_text().split())
    assert {name.removeprefix("docker.io/").removeprefix("library/") for name in kept} == names


def test_the_installer_brings_everything_and_a_second_time_finds_nothing_to_do(
    board: Board, made: tuple[Path, str]
) -> None:
    (board.state / "running").touch()
    assert board.install("--check").returncode == 1
    board.must("k3s", "images", "setup", "manifests", "--seal", made[1])
    program = board.root / "usr/local/bin/k3s"
    assert program.read_bytes() == b"\x7fELF the program"
    assert program.stat().st_mode & 0o777 == 0o755
    images = board.root / "var/lib/rancher/k3s/agent/images"
    assert [path.name for path in images.iterdir()] == ["k3s-airgap-images-amd64.tar.zst"]
    told = (board.state / "calls").read_text()
    assert "images label docker.io/dicomnode/node:0.1.0 io.cri-containerd.pinned=pinned" in told
    assert (board.root / "opt/dicomnode/node-setup/board.sh").stat().st_mode & 0o100
    assert "manifests/site.yaml" in told
    before = board.used()
    assert "nothing to do" in board.must()
    assert board.used() == before
    assert board.install("--check", "k3s", "images", "setup", "manifests").returncode == 0


def test_without_a_running_k3s_images_lie_where_its_start_takes_them(board: Board) -> None:
    board.must()
    images = board.root / "var/lib/rancher/k3s/agent/images"
    assert {path.name for path in images.iterdir()} == {
        "k3s-airgap-images-amd64.tar.zst",
        "dicomnode_node_0.1.0.tar",
        "dicomnode_trainer_0.1.0.tar",
        "postgres_17.5-bookworm.tar",
    }
    assert "nothing to do" in board.must()
    (board.state / "running").touch()
    assert "nothing to do" in board.must("--check")


def test_a_dry_run_verifies_tells_and_changes_nothing(board: Board) -> None:
    (board.state / "running").touch()
    told = board.must("--dry-run", "k3s", "images", "setup", "manifests")
    assert "would import docker.io/dicomnode/node:0.1.0" in told
    assert "would put /usr/local/bin/k3s" in told
    assert list(board.root.iterdir()) == []


def test_an_interrupted_import_goes_on_where_it_was(board: Board) -> None:
    (board.state / "running").touch()
    (board.state / "broken").touch()
    done = board.install("images")
    assert done.returncode == 1
    assert "could not import docker.io/dicomnode/node:0.1.0" in done.stderr
    (board.state / "broken").unlink()
    board.must("images")
    # kubelet removed one, or somebody did: it is brought again
    kept = (board.state / "images").read_text().splitlines()[1:]
    (board.state / "images").write_text("\n".join(kept) + "\n")
    (board.state / "calls").unlink()
    board.must("images")
    assert (board.state / "calls").read_text().count(" import ") == 1


def test_an_upgrade_keeps_the_former_program(board: Board) -> None:
    (board.root / "usr/local/bin").mkdir(parents=True)
    (board.root / "usr/local/bin/k3s").write_text("former")
    board.must("k3s")
    assert (board.root / "usr/local/bin/k3s.previous").read_text() == "former"


def test_settings_of_the_board_survive_a_new_bundle(board: Board) -> None:
    mine = board.root / "opt/dicomnode/node-setup/board.env"
    mine.parent.mkdir(parents=True)
    mine.write_text("ROLE=server\n")
    board.must("setup")
    assert mine.read_text() == "ROLE=server\n"


def test_a_disk_without_room_is_told_before_anything_is_copied(board: Board) -> None:
    board.command("df", "#!/bin/sh\necho header\necho disk 100 90 10 90% /\n")
    done = board.install()
    assert done.returncode == 1
    assert "10 KiB are free" in done.stderr
    assert board.used() == []


def test_a_board_of_another_architecture_is_told_so(board: Board) -> None:
    done = board.install("--arch", "arm64")
    assert done.returncode == 1
    assert "nothing for arm64; it was made for: amd64" in done.stderr


def refused(board: Board, *, told: str) -> None:
    for mode in ((), ("--dry-run",), ("--check",)):
        done = board.install(*mode)
        assert done.returncode == 1
        assert told in done.stderr
    assert told in verify(board.bundle).stderr
    assert board.used() == []


def test_a_truncated_file_is_noticed_before_anything_is_used(board: Board) -> None:
    path = board.bundle / "images/amd64/postgres_17.5-bookworm.tar"
    path.write_bytes(path.read_bytes()[:-1])
    refused(board, told="'images/amd64/postgres_17.5-bookworm.tar' is damaged")


@pytest.mark.parametrize("left", [0, 1, 70, -1, -40])
def test_a_truncated_list_is_noticed(board: Board, left: int) -> None:
    sums = board.bundle / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes()[:left])
    assert verify(board.bundle).returncode == 1
    assert board.install().returncode == 1
    assert board.used() == []


def test_a_list_that_lost_whole_lines_is_noticed(board: Board) -> None:
    sums = board.bundle / "SHA256SUMS"
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:-1]))
    refused(board, told="is in the folder and not in SHA256SUMS")


def test_a_missing_file_is_noticed(board: Board) -> None:
    (board.bundle / "node-setup/steps/k3s.sh").unlink()
    refused(board, told="'node-setup/steps/k3s.sh' is missing")


@pytest.mark.parametrize("name", ["node-setup/steps/evil.sh", ".hidden", "images/amd64/._x.tar"])
def test_a_file_too_many_is_refused(board: Board, name: str) -> None:
    (board.bundle / name).write_text("surprise")
    refused(board, told=f"'{name}' is in the folder and not in SHA256SUMS")


@pytest.mark.parametrize("target", ["/etc/passwd", "MANIFEST.json"])
def test_a_link_is_refused_wherever_it_leads(board: Board, target: str) -> None:
    path = board.bundle / "versions.txt"
    path.unlink()
    path.symlink_to(target)
    refused(board, told="is neither a file nor a folder")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../outside", "unsafe path"),
        ("images/../../outside", "unsafe path"),
        ("./MANIFEST.json", "unsafe path"),
        ("-rf", "unsafe path"),
        ("/etc/passwd", "is damaged"),
        ("a//b", "is damaged"),
        ("a b", "is damaged"),
        ("$(reboot)", "is damaged"),
        ("MANIFEST.json", "twice"),
    ],
)
def test_a_list_with_an_unsafe_path_is_refused(board: Board, name: str, told: str) -> None:
    (board.bundle.parent / "outside").write_text("x")
    sums = board.bundle / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{hashlib.sha256(b'x').hexdigest()}  {name}\n")
    refused(board, told=told)


def test_another_bundle_than_the_sealed_one_is_refused(
    board: Board, made: tuple[Path, str]
) -> None:
    path = board.bundle / "k3s/amd64/k3s"
    path.write_bytes(b"a program of somebody else")
    sums = board.bundle / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if not line.endswith("  k3s/amd64/k3s")]
    lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  k3s/amd64/k3s")
    sums.write_text("\n".join(lines) + "\n")
    assert verify(board.bundle).returncode == 0
    done = board.install("--seal", made[1])
    assert done.returncode == 1
    assert "not the bundle whose seal you have" in done.stderr
    assert board.used() == []


@pytest.mark.parametrize("name", ["cmp", "sha256sum", "find"])
def test_a_system_that_cannot_verify_refuses(board: Board, tmp_path: Path, name: str) -> None:
    """A check whose program is missing must not pass for want of an answer."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in (Path("/usr/bin"), Path("/bin")):
        for program in folder.iterdir():
            if program.name != name and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    done = subprocess.run(
        [require_program("dash"), AIRGAP / "verify.sh", board.bundle],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"this system has no {name}" in done.stderr


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_noticed_before_use(
    board: Board, data: st.DataObject
) -> None:
    files = sorted(path for path in board.bundle.rglob("*") if path.is_file())
    # the list itself in every third case: it is what everything else is held to
    path = data.draw(st.one_of(st.just(board.bundle / "SHA256SUMS"), st.sampled_from(files)))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        assert verify(board.bundle).returncode == 1
        if data.draw(st.integers(0, 3)) == 0:
            assert board.install().returncode == 1
            assert board.used() == []
    finally:
        path.write_bytes(whole)
        shutil.rmtree(board.root)  # a board that has whole copies already would use those
        board.root.mkdir()


def test_what_a_worn_stick_answers_differently_the_second_time_is_not_used(board: Board) -> None:
    """The copy is verified, so a `cp` that spoils what it copies is caught."""
    board_cp = board.folder / "cp" / "cp"
    board_cp.parent.mkdir()
    board_cp.write_text('#!/bin/sh\n/bin/cp "$@" && case "$2" in *k3s.part) echo >>"$2" ;; esac\n')
    board_cp.chmod(0o755)
    program = [AIRGAP / "install.sh", "--bundle", board.bundle, "--arch", "amd64"]
    done = subprocess.run(
        program,
        env={
            "PATH": f"{board_cp.parent}:{os.environ['PATH']}",
            "ROOT": str(board.root),
            "COMMANDS": str(board.folder / "commands"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "'k3s/amd64/k3s' is damaged" in done.stderr
    assert board.used() == []
